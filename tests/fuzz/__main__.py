"""Generated requests against the whole OpenAPI document: `make fuzz SEED= EXAMPLES=`.

A real web process with a PostgreSQL and a Redis of its own, and no worker: what the made-up channels name is
never connected to. schemathesis asks every operation, with a WRITE, a READ and an ADMIN token in turn, and fails for a
500, a status or content type that the document does not have, an answer that is not of its shape, and for what is let
in against the document. `hooks.py` sees to it that a part of the requests is about things that are there.
"""

import argparse
import base64
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from config import embedded
from tests.live.stack import ROOT, run_manage
from tests.waiting import PATIENCE, wait_for

BIN = Path(sys.executable).parent
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--examples", type=int, default=25, help="cases for each operation and token")
    parser.add_argument("--phases", default="examples,coverage,fuzzing,stateful")
    parser.add_argument("--har", help="write every request and answer to this file, one for each token")
    options = parser.parse_args()
    with _home() as home, contextlib.ExitStack() as running:
        environment = _environment(home, running)
        address = _web(home, environment, running)
        things = _things(address, environment)
        worst = 0
        for number, (scope, token) in enumerate(things.pop("tokens").items()):
            print(f"--- {scope}, seed {options.seed}", flush=True)
            worst = max(worst, _run(number, address, token, things, environment, options))
        return worst


def _run(
    number: int, address: str, token: str, things: dict[str, Any], environment: dict[str, str], options: Any
) -> int:
    command = [
        *(BIN / "schemathesis", "run", f"{address}/schema?format=json", f"--url={address}"),
        *("--header", f"Authorization: Bearer {token}", f"--checks={','.join(CHECKS)}", "--no-color"),
        *(f"--phases={options.phases}", f"--seed={options.seed}", f"--max-examples={options.examples}"),
        *("--generation-database=none", "--continue-on-failure", "--warnings=off", "--workers=1"),
        *("--request-timeout=120", "--suppress-health-check=all"),
        "--exclude-path=/health/ready",  # its 503 is right here, where no worker is
        *(("--report=har", f"--report-har-path={options.har}.{number}") if options.har else ()),
    ]
    hooks = {"SCHEMATHESIS_HOOKS": "tests.fuzz.hooks", "FUZZ_THINGS": json.dumps(things), "PYTHONPATH": str(ROOT)}
    # It keeps notes where it stands.
    home = environment["AGENT_JOBS_DATA_DIR"]
    return subprocess.run(command, cwd=home, env={**environment, **hooks}, check=False).returncode


def _things(address: str, environment: dict[str, str]) -> dict[str, Any]:
    """Some of everything, made through the front door, so that requests find more than 404s."""
    run_manage(environment, "create_org", "acme", "--name", "Acme")
    tokens = {scope: _token(environment, scope, name=scope) for scope in ("WRITE", "READ", "ADMIN")}
    # What an ADMIN may revoke without ending the run.
    spare = _token(environment, "READ", name="spare")

    def post(path: str, body: dict[str, Any], *, by: str = "WRITE") -> dict[str, Any]:
        request = urllib.request.Request(
            f"{address}/services/{path}",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {tokens[by]}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            data: dict[str, Any] = json.load(answer)["data"]
            return data

    greet = {"id": "greet", "name": "Greet", "runner": "message", "default_config": {"start_prompt": "Hello"}}
    post("organizations/acme/agent-jobs-type", greet)
    post("organizations/acme/profiles", {"id": "profile", "name": "Profile"})
    post("channels", {"platform": "webhook", "code": "hook", "address": "https://127.0.0.1:9/"}, by="ADMIN")
    slack = {"team_id": "T1", "bot_token": "xoxb-1", "signing_secret": "8" * 32}
    post("channels/slack/installations", slack, by="ADMIN")
    post("channels/web/lobby/messages", {"author": "Ann", "text": "Hello"})
    target = {"org_id": "acme", "platform": "web", "code": "lobby"}
    jobs = [post("agent-jobs", {"job_type_id": "greet", "target_channel": target})["job_id"] for _ in range(20)]
    return {"tokens": tokens, "jobs": jobs, "spare": spare[:16]}


# --- Processes -------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def _home() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="aj-fuzz-", dir="/tmp"))
    home.chmod(0o711)  # PostgreSQL's account passes through
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _environment(home: Path, running: contextlib.ExitStack) -> dict[str, str]:
    postgres, redis = embedded.Postgres(home, durable=False), embedded.Redis(home)
    for server in (postgres, redis):
        server.prepare()
        log = running.enter_context((home / f"{type(server).__name__}.log").open("wb"))
        process = server.spawn(log)
        running.callback(embedded.stop, process, server.stop_signal)
        embedded.wait_ready(server, process)
    ours = ("AGENT_JOBS_", "DATABASE_URL", "REDIS_URL", "DJANGO_")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(ours)},
        "DATABASE_URL": postgres.url("agent_jobs"),
        "REDIS_URL": redis.url(),
        "AGENT_JOBS_DATA_DIR": str(home),
        "AGENT_JOBS_SECRET_KEY": secrets.token_urlsafe(48),
        "AGENT_JOBS_TOKEN_PEPPER": secrets.token_urlsafe(48),
        "AGENT_JOBS_SEALING_KEYS": f"k1:{base64.b64encode(secrets.token_bytes(32)).decode()}",
        "AGENT_JOBS_ALLOW_PRIVATE_ADDRESSES": "1",  # else every made-up host name is looked up
        "AGENT_JOBS_LOG_LEVEL": "ERROR",
        "DJANGO_SETTINGS_MODULE": "tests.quick_settings",
        "TEST_STREAM_SECONDS": "0",  # nothing happens to these jobs that would be worth a wait
        "AGENT_JOBS_RATE_ORG": "off",
    }


def _web(home: Path, environment: dict[str, str], running: contextlib.ExitStack) -> str:
    with psycopg.connect(
        environment["DATABASE_URL"].replace("/agent_jobs", "/postgres"), autocommit=True
    ) as connection:
        connection.execute("CREATE DATABASE agent_jobs")
    run_manage(environment, "migrate", "--no-input")
    port = embedded.free_port()
    web = subprocess.Popen(
        [sys.executable, "-m", "config.serve", "--port", str(port)],
        cwd=ROOT,
        env=environment,
    )
    running.callback(web.wait, PATIENCE)
    running.callback(web.terminate)
    address = f"http://127.0.0.1:{port}"

    def is_live() -> bool:
        assert web.poll() is None, "the web process ended"
        try:
            with urllib.request.urlopen(f"{address}/health/live", timeout=20):
                return True
        except (urllib.error.URLError, OSError):
            return False

    wait_for(is_live, what="the web process answers")
    return address


def _token(environment: dict[str, str], scope: str, *, name: str) -> str:
    options = ("--org", "acme", "--scope", f"SERVICES:{scope}", "--name", name)
    return run_manage(environment, "create_token", *options).strip()


if __name__ == "__main__":
    sys.exit(main())
