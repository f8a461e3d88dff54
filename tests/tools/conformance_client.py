"""Our MCP client for the official conformance tests, which start it with the address of their server:

    npx @modelcontextprotocol/conformance client --scenario tools_call \
        --command ".venv/bin/python -m tests.tools.conformance_client"

Passed by 0.1.16: `initialize`, `tools_call`, `sse-retry`, `auth/client-credentials-basic`, `auth/pre-registration`. The
other `auth` scenarios want a browser, dynamic registration or signed assertions, and `elicitation` a person.
"""

import json
import os
import sys
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import django

SERVER = "conformance"


def main(url: str, context: dict[str, Any]) -> None:
    from agent_jobs import tools
    from agent_jobs.tools import tool_secrets

    stated: dict[str, Any] = {"type": "mcp", "name": SERVER, "url": url, "timeout_seconds": 20}
    if "client_secret" in context:
        # There is no database here: the secret comes from the test.
        tool_secrets.opened = lambda org_id, name, *, tool, host: (context["client_secret"], ("localhost", "127.0.0.1"))
        credentials = {"client_id": context["client_id"], "client_secret": "{secret:test}"}
        stated["oauth"] = {"issuer": _issuer(url), **credentials}
    assert tools.check([stated]) == []
    for tool in tools.offered("acme", [stated], allowed=None):
        arguments = dict.fromkeys(tool.parameters.get("properties", {}), 5)
        print(tool.name, tools.call("acme", tool, arguments, key="step-1"))


def _issuer(url: str) -> str:
    """The issuer that the test's server names; a declaration would state it."""
    parts = urlsplit(url)
    metadata = f"{parts.scheme}://{parts.netloc}/.well-known/oauth-protected-resource{parts.path}"
    with urllib.request.urlopen(metadata) as answer:
        return str(json.load(answer)["authorization_servers"][0])


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    os.environ |= {"AGENT_JOBS_ALLOW_PRIVATE_ADDRESSES": "1", "AGENT_JOBS_DATA_DIR": "/dev/null/none"}
    django.setup()
    main(sys.argv[-1], json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}"))
