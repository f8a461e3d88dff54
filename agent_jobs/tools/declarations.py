"""The `tools` of a job type: the fields of each kind, and the validation of a list of declarations.

Saving a type validates the form only and asks no server, because a server may be down at that minute. Every call
validates again what it calls and with which arguments.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from agent_jobs import rules
from agent_jobs.errors import FieldError
from agent_jobs.sandbox import json_schema
from agent_jobs.specs import MAX_DELAY_MINUTES
from infra.egress import addresses, requests_client

MAX_TOOLS = 32
MAX_SIZE = 64 * 1024
MAX_TIMEOUT_SECONDS = 60
MAX_DESCRIPTION = 1_000
MAX_PROPERTIES = 64
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
ON_TIMEOUT = ("deny", "approve", "fail")
# Tools that the model calls to end its turn, and names that it may mistake for them.
RESERVED = {"respond", "finish"}
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
SECRET = re.compile(r"\{secret:([^{}]*)\}")
SECRET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}}

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_NAME_FORM = "must begin with a letter and have up to {most} letters, digits, dashes and single underscores"
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_OAUTH_WORD = re.compile(r"[\x20-\x7e]{1,500}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{1,1000}")
# Everybody with READ sees a declaration, and the audit stores it, so credentials must be secrets.
_CREDENTIAL_HEADER = re.compile(
    r"authorization|cookie|secret|token|passw|credential|signature|(api|auth|access)[_-]?key", re.I
)
_CREDENTIAL = re.compile(r"\s*(bearer|basic|token|apikey|digest|negotiate|aws4-hmac-sha256)\s+\S", re.IGNORECASE)
# Headers that we or the connection set.
_OUR_HEADERS = {
    *("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect"),
    *("proxy-authorization", "accept-encoding", "content-type", "idempotency-key", "user-agent"),
    *("mcp-session-id", "mcp-protocol-version", "last-event-id"),
}
_HOST = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MOST_NAME = 64
_MOST_SERVER_NAME = 24

Complaint = tuple[str, str, str]  # field within the tool, code, message
_COMMON = ("type", "name", "description", "timeout_seconds")
_APPROVAL = ("requires_approval", "approvers", "approval_minutes", "on_timeout")
_CALLED = ("url", "headers", "is_idempotent")
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "http": (*_COMMON, *_APPROVAL, *_CALLED, "method", "methods", "allowed_hosts", "parameters", "body"),
    "mcp": (*_COMMON, *_APPROVAL, *_CALLED, "allowed", "optional", "oauth"),
    "send_message": ("type", "description", *_APPROVAL),
    "ask_approval": ("type", "description", "approvers", "approval_minutes", "on_timeout"),
}
KINDS = tuple(_FIELDS)


def without_nulls(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Null for an optional field equals its absence."""
    known = _FIELDS.get(str(tool.get("type")), ())
    return {name: value for name, value in tool.items() if value is not None or name not in known}


def check(declared: Any, *, at: str = "tools") -> list[FieldError]:
    """Errors in a job type's tools: `[FieldError("tools.0.url", "invalid", "must be …")]`."""
    if not isinstance(declared, list):
        return [FieldError(at, "invalid", "must be a list")]
    if len(declared) > MAX_TOOLS:
        return [FieldError(at, "too_many", f"may be at most {MAX_TOOLS}")]
    if len(json.dumps(declared)) > MAX_SIZE:
        return [FieldError(at, "too_large", f"may have at most {MAX_SIZE:,} bytes as JSON")]
    errors: list[FieldError] = []
    names: set[str] = set()
    for place, tool in enumerate(declared):
        here = f"{at}.{place}"
        if not isinstance(tool, dict):
            errors.append(FieldError(here, "invalid", "must be an object"))
            continue
        if not isinstance(tool.get("type"), str) or tool["type"] not in _FIELDS:
            errors.append(FieldError(f"{here}.type", "invalid", f"must be one of {', '.join(KINDS)}"))
            continue
        errors += [FieldError(f"{here}.{field}", code, message) for field, code, message in _complaints(tool)]
        name = str(tool.get("name", tool["type"]))
        if name in names:
            errors.append(FieldError(f"{here}.name", "duplicate", "is the name of another tool here"))
        names.add(name)
    return errors


def allowed_complaint(allowed: Any) -> str:
    """The error in a profile's `allowed_tools` (null allows all tools); empty if there is none."""
    if allowed is None or allowed == []:
        return ""
    return f"{message}, or null for all" if (message := rules.texts(200, 160)(allowed)) else ""


def is_covered(host: str, hosts: Sequence[str]) -> bool:
    """Whether `hosts` covers a host, or every host below a `*.example.com`."""
    name = host.lower().removeprefix("*")
    return any(host.lower() == known or _is_below(name, known) for known in hosts)


def _is_below(name: str, known: str) -> bool:
    return known.startswith("*.") and name.endswith(known[1:]) and len(name) >= len(known)


def destinations(tool: Mapping[str, Any]) -> list[str]:
    """The hosts to which a valid declaration may send requests, as it states them."""
    if "allowed_hosts" in tool:
        return list(tool["allowed_hosts"])
    return [addresses.host_of(PLACEHOLDER.sub("x", tool["url"]))] if "url" in tool else []


def _complaints(tool: Mapping[str, Any]) -> Iterator[Complaint]:
    known = _FIELDS[tool["type"]]
    for field in tool:
        if field not in known:
            yield field, "unknown_field", f"is not a field of such a tool; the fields are {', '.join(known)}"
    for field, rule in _RULES.items():
        if field in known and field in tool and (message := rule(tool[field])):
            yield field, "invalid", message
    if (
        tool["type"] != "mcp"
        and "requires_approval" in known
        and (message := rules.flag(tool.get("requires_approval", False)))
    ):
        yield "requires_approval", "invalid", message
    if tool["type"] == "http":
        yield from _http_complaints(tool)
    if tool["type"] == "mcp":
        yield from _mcp_complaints(tool)


# --- Fields ----------------------------------------------------------------------------------------------------
def _text(most: int) -> Callable[[Any], str]:
    def rule(value: Any) -> str:
        ok = isinstance(value, str) and value.strip() and len(value) <= most and "\x00" not in value
        return "" if ok else f"must be a text of 1 to {most:,} characters"

    return rule


def _headers(value: Any) -> str:
    if not isinstance(value, dict) or len(value) > 20:
        return "must be an object of at most 20 headers"
    for name, text in value.items():
        if not _HEADER.fullmatch(name) or name.lower() in _OUR_HEADERS:
            return f"may not have the header {name[:64]!r}"
        if not isinstance(text, str) or not _HEADER_VALUE.fullmatch(text):
            return f"must give {name} a value of 1 to 1,000 printable ASCII characters"
        if not SECRET.search(text) and (_CREDENTIAL_HEADER.search(name) or _CREDENTIAL.match(text)):
            return f"must take the credential in {name} from a secret: {{secret:name}}"
        if not all(SECRET_NAME.fullmatch(secret) for secret in SECRET.findall(text)):
            return f"must name the secret in {name} as {{secret:name}}"
    return "" if len({name.lower() for name in value}) == len(value) else "must name each header once"


def _oauth(value: Any) -> str:
    known = ("issuer", "client_id", "client_secret", "scope")
    if not isinstance(value, dict) or not set(known[:3]) <= set(value) <= set(known):
        return "must be an object of issuer, client_id, client_secret and, if wanted, scope"
    issuer = value["issuer"]
    if not isinstance(issuer, str) or "?" in issuer or "#" in issuer:
        return "must have the address of the authorization server as issuer"
    if reason := requests_client.refusal_of_shape(issuer):
        return f"has an issuer that {reason}"
    secret = value["client_secret"]
    found = SECRET.fullmatch(secret) if isinstance(secret, str) else None
    if found is None or not SECRET_NAME.fullmatch(found[1]):
        return "must take client_secret from a secret: {secret:name}"
    for name in set(value) & {"client_id", "scope"}:
        if not isinstance(value[name], str) or not _OAUTH_WORD.fullmatch(value[name]):
            return f"must give {name} as 1 to 500 printable ASCII characters"
    return ""


def hosts_complaint(value: Any) -> str:
    """The error in a list of hosts, as the end of a sentence; empty if there is none."""
    if not isinstance(value, list) or not 0 < len(value) <= 50 or not all(isinstance(host, str) for host in value):
        return "must be a list of 1 to 50 names of hosts"
    for host in value:
        # Refuse `*.com`: somebody else owns the names directly below a top-level domain.
        if len(host) > 253 or not _HOST.fullmatch(host) or (host.startswith("*.") and host.count(".") < 2):
            return f"must name hosts as example.com or *.example.com, in lower case and without a port: {host[:64]!r}"
    return ""


def _tool_name(value: Any) -> str:
    # Two underscores separate a server from its tool.
    if not isinstance(value, str) or not _NAME.fullmatch(value) or "__" in value or value.endswith("_"):
        return _NAME_FORM.format(most=_MOST_NAME)
    return f"may not be {value}" if value.lower() in RESERVED | {"send_message", "ask_approval"} else ""


_RULES: Mapping[str, Callable[[Any], str]] = {
    "name": _tool_name,
    "description": _text(MAX_DESCRIPTION),
    "timeout_seconds": rules.number(0, MAX_TIMEOUT_SECONDS, above=True),
    "approvers": rules.approvers,
    "approval_minutes": rules.number(0, MAX_DELAY_MINUTES, above=True),
    "on_timeout": rules.one_of(*ON_TIMEOUT),
    "is_idempotent": rules.flag,
    "optional": rules.flag,
    "oauth": _oauth,
    "headers": _headers,
    "allowed_hosts": hosts_complaint,
    "method": rules.one_of(*METHODS),
    "body": rules.one_of("arguments", "query"),
}


# --- Kinds -----------------------------------------------------------------------------------------------------
def _http_complaints(tool: Mapping[str, Any]) -> Iterator[Complaint]:
    if "name" not in tool:
        yield "name", "required", "is required"
    if "description" not in tool:
        yield "description", "required", "is required"
    methods = tool.get("methods")
    if "methods" in tool:
        if "method" in tool:
            yield "methods", "invalid", "may not stand beside method"
        if not isinstance(methods, list) or not methods or any(method not in METHODS for method in methods):
            yield "methods", "invalid", f"must be a list of {', '.join(METHODS)}"
    schema = tool.get("parameters", NO_ARGUMENTS)
    if problems := _parameters_complaints(schema):
        yield from problems
        return
    if ("url" in tool) == ("allowed_hosts" in tool):
        yield "url", "required", "must be given, or else allowed_hosts: one of the two"
    elif "url" in tool:
        if "methods" in tool and "method" in schema.get("properties", {}):
            yield "parameters.properties.method", "invalid", "is the name of the argument for one of several methods"
        yield from _url_complaints(tool["url"], schema)
    else:
        for field in ("parameters", "body"):
            if field in tool:
                yield field, "invalid", "may not stand beside allowed_hosts: the arguments are url, method and body"


def _parameters_complaints(schema: Any) -> list[Complaint]:
    if errors := json_schema.check_schema(schema, at="parameters"):
        return [(error.field, error.code, error.message) for error in errors]
    properties = schema.get("properties", {})
    if schema.get("type") != "object" or not isinstance(properties, dict):
        return [("parameters", "invalid", "must be the schema of an object")]
    if len(properties) > MAX_PROPERTIES:
        return [("parameters.properties", "too_many", f"may be at most {MAX_PROPERTIES}")]
    return [
        (
            f"parameters.properties.{name}",
            "invalid",
            "must be a name of up to 64 letters, digits, dots, dashes and underscores",
        )
        for name in properties
        if not ARGUMENT.fullmatch(name)
    ]


def _url_complaints(template: Any, schema: Mapping[str, Any]) -> Iterator[Complaint]:
    """Placeholders may stand in path and query, never in the part that selects the server."""
    if not isinstance(template, str):
        yield "url", "invalid", "must be a text"
        return
    plain = PLACEHOLDER.sub("x", template)
    if "{" in plain or "}" in plain:
        yield "url", "invalid", "must have its placeholders as {name}"
        return
    if reason := requests_client.refusal_of_shape(plain):
        yield "url", "invalid", reason
        return
    try:
        parts = urlsplit(template)
    except ValueError:
        yield "url", "invalid", "is not a valid address"
        return
    if "{" in parts.scheme + parts.netloc:
        yield "url", "invalid", "may have placeholders in its path and query alone"
    if any(segment in (".", "..") for segment in parts.path.split("/")):
        yield "url", "invalid", "may not have . or .. in its path"
    for name in PLACEHOLDER.findall(template):
        if name not in schema.get("properties", {}) or name not in schema.get("required", []):
            yield "url", "invalid", f"names {{{name[:64]}}}, which is not a required property of parameters"


def _mcp_complaints(tool: Mapping[str, Any]) -> Iterator[Complaint]:
    if "name" not in tool:
        yield "name", "required", "is required"
    elif isinstance(tool["name"], str) and len(tool["name"]) > _MOST_SERVER_NAME:
        yield "name", "invalid", _NAME_FORM.format(most=_MOST_SERVER_NAME)
    if "url" not in tool:
        yield "url", "required", "is required"
    elif not isinstance(tool["url"], str):
        yield "url", "invalid", "must be a text"
    elif reason := requests_client.refusal_of_shape(tool["url"]):
        yield "url", "invalid", reason
    allowed = tool.get("allowed")
    if allowed is not None and (message := rules.texts(200, 128)(allowed)):
        yield "allowed", "invalid", f"{message}, or null for all"
    headers = tool.get("headers")
    if "oauth" in tool and isinstance(headers, dict) and "authorization" in map(str.lower, headers):
        yield "oauth", "invalid", "may not stand beside a header Authorization"
    approval = tool.get("requires_approval", False)
    if not isinstance(approval, bool) and rules.texts(200, 128)(approval):
        yield "requires_approval", "invalid", "must be true, false, or a list of names of the server's tools"
    elif isinstance(approval, list) and isinstance(allowed, list):
        for name in approval:
            if name not in allowed:
                yield "requires_approval", "unknown_tool", f"names {name[:64]!r}, which is not one of allowed"
