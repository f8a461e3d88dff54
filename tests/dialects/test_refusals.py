"""Each dialect answers every refusal in its own form: never HTML, never the native form, never a redirect."""

import json
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.test import Client

from agent_jobs import dialects
from agent_jobs.api import errors
from agent_jobs.api.base import Resource
from agent_jobs.errors import FieldError
from agent_jobs.models import Schedule
from config import asgi
from tests import factories
from tests.dialects.own_forms import NAMES, OwnDoor, door, is_in_form

__all__ = ["door"]
pytestmark = pytest.mark.django_db
UNKNOWN = "c4291aff-31b9-4902-9a84-41c054d3b0fe"  # nobody's id
# Statuses that a dialect's document does not know, and what stands for them.
OTHERWISE = {"executr": {409: 400, 422: 400}, "workspace": {409: 400}}
STATUSES = (400, 401, 403, 404, 405, 408, 409, 411, 413, 414, 415, 422, 429, 431, 500, 503)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("name", NAMES)
def test_every_status_has_the_form_of_the_dialect(name: str, status: int) -> None:
    dialect = next(one for one in dialects.DIALECTS if one.name == name)
    path = f"/{dialect.mount}{dialect.routes[0][0]}"
    for problems in ((), (FieldError("name", "invalid", "must be a text"),)):
        refused = errors.RefusedRequest(status, "a_code", "the message", problems, "r-1")
        told, shown = errors.enveloped(path, refused)
        by_field = {400: 422} if name == "workspace" and problems else {}
        assert told == {**OTHERWISE.get(name, {}), **by_field}.get(status, status)
        assert is_in_form(name, shown)
    before_django = asgi._refused(asgi.RequestRefusal(status, "a_code", "the message"), path)
    assert is_in_form(name, json.loads(before_django.body))


CODES = {
    "chadburn": {401: "unauthorized", 403: "forbidden", 404: "not_found", 409: "conflict", 429: "rate_limit_exceeded"},
    "chronos": {
        400: "VALIDATION_ERROR",
        401: "UNAUTHORIZED",
        403: "FORBIDDEN",
        404: "NOT_FOUND",
        429: "RATE_LIMITED",
        500: "INTERNAL_ERROR",
        503: "STORE_ERROR",
    },
}


@pytest.mark.parametrize(("name", "status"), [(name, status) for name, codes in CODES.items() for status in codes])
def test_statuses_have_the_codes_that_upstream_gives_them(name: str, status: int) -> None:
    refused = errors.RefusedRequest(status, "a_code_of_ours", "the message")
    _, shown = errors.enveloped(f"/{name}/api/v1/jobs", refused)
    assert shown["error"] == {"code": CODES[name][status], "message": "the message"}


@pytest.mark.parametrize(
    ("method", "more", "options", "status"),
    [
        ("GET", "/nowhere/at/all", {}, 404),
        ("GET", "/../../nothing", {}, 404),
        ("GET", "/", {}, 404),
        ("GET", "//", {}, 404),
        ("GET", f"/{UNKNOWN}", {}, 404),
        ("GET", f"/{UNKNOWN}/", {}, 404),
        ("PATCH", "", {}, 405),
        ("OPTIONS", "", {}, 405),
        ("BREW", "", {}, 405),
        ("POST", "", {"raw": b"{"}, 400),
        ("POST", "", {"raw": b""}, 400),
        ("POST", "", {"raw": b'{"a": NaN}'}, 400),
        ("POST", "", {"raw": b"[]"}, 400),
        ("POST", "", {"raw": b'"text"'}, 400),
        ("POST", "", {"raw": b"{}"}, 400),
        ("POST", "", {"raw": b"{}", "content_type": "text/plain"}, 415),
        ("POST", "", {"raw": b"{}", "Content_Encoding": "gzip"}, 415),
        ("POST", "", {"raw": b"{" + b" " * 300_000}, 413),
    ],
    ids=str,
)
def test_bad_requests_are_refused_in_it(
    door: OwnDoor, method: str, more: str, options: dict[str, Any], status: int
) -> None:
    if door.name == "workspace" and options.get("raw") in (b"[]", b'"text"', b"{}") and len(options) == 1:
        status = 422
    door.refusal(door.writer.send(method, f"{door.path}{more}", **options), status)


def test_slashes_are_neither_redirected_nor_ignored(door: OwnDoor) -> None:
    for path in (f"{door.path}/", f"/{door.path}", door.path.replace("/", "//")):
        for method in ("GET", "POST"):
            door.refusal(door.writer.send(method, f"http://testserver{path}", {}), 404)


def test_head_is_a_get_without_a_body(door: OwnDoor) -> None:
    shown, head = door.writer.get(door.path), door.writer.send("HEAD", door.path)
    assert (head.status_code, head.content) == (200, b"")
    assert head["Content-Length"] == shown["Content-Length"]


def test_strangers_and_readers_are_refused_in_it(door: OwnDoor) -> None:
    for method in ("GET", "POST"):
        refused = factories.Api(None).send(method, door.path)
        door.refusal(refused, 401)
        challenge = refused["WWW-Authenticate"]
        assert ("HTTP Basic" in refused.content.decode()) == challenge.startswith("Basic"), "it names every way"
    assert door.reader.get(door.path).status_code == 200
    body = {"job_type": "x", "workspace_id": int(door.path.split("/")[2])} if door.name == "workspace" else {}
    door.refusal(door.reader.post(door.path, body), 403)


def test_too_many_requests_are_refused_in_it(door: OwnDoor, settings: Any) -> None:
    settings.RATE_TOKEN = "2/minute"
    answers = [door.writer.get(door.path) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert int(answers[-1]["Retry-After"]) > 0
    door.refusal(answers[-1], 429)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_outages_and_faults_are_told_in_it(door: OwnDoor, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """The database goes away, and code of ours fails, behind every view alike."""
    for error, status in ((OperationalError("the server closed the connection"), 503), (ZeroDivisionError(), 500)):

        def fail(*_: Any, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(Resource, "check_permissions", fail)
            answer = door.writer.send(method, door.path)
        door.refusal(answer, status)
        assert ("Retry-After" in answer.headers) == (status == 503)


def test_a_lock_that_another_request_holds_is_told_as_such(
    door: OwnDoor, acme: factories.Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = connection.copy()

    def wait_for_it(*_: Any) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '20ms'")
            cursor.execute("SELECT pg_advisory_xact_lock(16)")

    try:
        other.cursor().execute("SELECT pg_advisory_lock(16)")
        monkeypatch.setattr(Resource, "check_permissions", wait_for_it)
        native = acme.get("/services/agent-jobs")
        foreign = [door.writer.send(method, door.path) for method in ("GET", "POST")]
    finally:
        other.close()
    assert (native.status_code, native.json()["code"]) == (503, "busy")
    for refused in (native, *foreign):
        assert "another request has been changing the same rows" in refused.content.decode()
        assert int(refused["Retry-After"]) > 0
    for refused in foreign:
        door.refusal(refused, 503)


def test_conflicts_are_told_in_it(acme: factories.Api) -> None:
    """By every dialect as its document, or what stands in for it, wants: docs/dialects.md."""
    job = {"name": "a", "schedule": "2999-01-01T00:00:00Z", "command": "true"}
    made = acme.post("/chadburn/api/v1/jobs", job).json()["data"]["id"]
    Schedule.objects.update(next_at=None)
    chadburn = acme.post(f"/chadburn/api/v1/jobs/{made}/pause")
    assert (chadburn.status_code, chadburn.json()["error"]["code"]) == (409, "conflict")


# --- Plain HTTP ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_where_https_is_wanted_plain_http_is_refused_and_not_redirected(
    door: OwnDoor, settings: Any, method: str
) -> None:
    settings.SECURE_SSL_REDIRECT = True
    for path in (door.path, f"{door.path}/unknown/address"):
        refused = Client().generic(method, path, headers=door.writer.headers)
        assert (refused.status_code, "Location" in refused.headers) == (403, False)
        if method != "HEAD":
            assert "https" in str(door.refusal(refused, 403))
    served = Client().generic("GET", door.path, headers=door.writer.headers, secure=True)
    assert served.status_code == 200
    assert Client().get("/console/").status_code == 301
