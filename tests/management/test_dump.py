"""A dump of the database gives no secret away, in whatever form it might stand there."""

import base64
import io
import subprocess

import pytest
from django.core.management import call_command
from django.db import connection

from agent_jobs.audit import audit_log
from config.embedded import postgres_server
from tests import factories, rows

SLACK = {"team_id": "T0ACME", "bot_token": "xoxb-canary-of-slack", "signing_secret": "canary-of-signing"}
HOOK_SECRET = "whsec_" + base64.b64encode(b"canary-of-the-webhooks-secret!!!").decode()


def dump():
    """The output of pg_dump for the tests' database."""
    known = connection.get_connection_params()
    command = [postgres_server.binaries() / "pg_dump", "--no-owner", f"--dbname={known['dbname']}"]
    for option, name in (("--host", "host"), ("--port", "port"), ("--username", "user")):
        if known.get(name):
            command.append(f"{option}={known[name]}")
    environment = {"PGPASSWORD": str(known.get("password") or "")}
    return subprocess.run(command, env=environment, capture_output=True, check=True).stdout


def forms(secret):
    raw = secret.encode()
    return {raw, raw.hex().encode(), base64.b64encode(raw)[:-4], raw[len(raw) // 3 :]}


@pytest.mark.django_db(transaction=True)
def test_no_secret_stands_in_a_dump(monkeypatch):
    rows.job_type()
    admin_token = factories.token("acme", "SERVICES:ADMIN")
    api = factories.Api(admin_token)
    made = api.post("/services/app-tokens", {"app": "crm", "scopes": ["SERVICES:READ"]}, Idempotency_Key="k1")
    installed = api.post("/services/channels/slack/installations", SLACK, Idempotency_Key="k2")
    hook = {"platform": "webhook", "address": "http://127.0.0.1:9/visible-address"}
    given = api.post("/services/channels", {**hook, "code": "a", "secret": HOOK_SECRET}, Idempotency_Key="k3")
    generated = api.post("/services/channels", {**hook, "code": "b"}, Idempotency_Key="k4")
    kept = api.put("/services/organizations/acme/model-keys/openai", {"key": "sk-canary-of-the-model"})
    assert kept.status_code == 200
    assert {answer.status_code for answer in (made, installed, given, generated)} == {201}
    monkeypatch.setattr("sys.stdin", io.StringIO("canary password of ann\n"))
    call_command(
        "create_user", "--org=acme", "--username=ann", "--role=admin", "--password-stdin", stdout=io.StringIO()
    )
    audit_log.seal()
    secrets = [
        admin_token,
        made.json()["data"]["token"],
        SLACK["bot_token"],
        SLACK["signing_secret"],
        HOOK_SECRET,
        generated.json()["data"]["secret"],
        "canary password of ann",
        "sk-canary-of-the-model",
    ]

    text = dump()

    assert b"visible-address" in text  # so this test can see what is there
    assert b"agent_jobs_auditentry" in text
    for secret in secrets:
        for form in forms(secret):
            assert form not in text, f"{secret[:12]}… stands in the dump"
