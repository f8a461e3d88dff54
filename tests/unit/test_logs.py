"""Log lines: one form for all, what they are about, and the net that no secret gets through."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from structlog.contextvars import bound_contextvars

from config import logs
from tests import factories, rows

TOKEN = "ajt_live_" + "aB3" * 12 + "xy"


@pytest.fixture
def lines() -> Iterator[Callable[..., list[Any]]]:
    """Everything that is logged, as JSON; `text()` gives it as it was written."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.formatter("json", ("the-pepper-of-all",)))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.removeHandler(handler)
    root.setLevel(level)


def text(kind: str, message: str, *arguments: Any, **options: Any) -> str:
    record = logging.LogRecord("a.b", logging.WARNING, "x.py", 1, message, arguments, options.pop("exc_info", None))
    record.__dict__.update(options)
    return logs.formatter(kind, ("the-pepper-of-all",)).format(record)


@pytest.mark.parametrize("kind", ["json", "console"])
@pytest.mark.parametrize(
    "secret",
    [
        TOKEN,
        "xoxb-1234567890-abcdefABCDEF",
        "xapp-1-A012-345-abcdef",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "sk-proj-abcdefghijklmnopqrst",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
        "the-pepper-of-all",
    ],
)
class TestTheNet:
    def test_takes_secrets_out_of_words_arguments_and_facts(self, kind: str, secret: str) -> None:
        for line in (
            text(kind, f"it was {secret}!"),
            text(kind, "it was %s", secret),
            text(kind, "it was", fact=secret),
            text(kind, "it was", fact={"deep": [secret]}),
        ):
            assert secret not in line
            assert logs.REDACTED in line

    def test_takes_them_out_of_tracebacks(self, kind: str, secret: str) -> None:
        try:
            raise ValueError(f"bad {secret}")
        except ValueError as error:
            line = text(kind, "broke", exc_info=(type(error), error, error.__traceback__))
        assert secret not in line
        assert "ValueError" in line


@pytest.mark.parametrize(
    ("said", "hidden"),
    [
        ("Authorization: Bearer abcdefgh", "abcdefgh"),
        ("authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("postgresql://agent:hunter22@db:5432/x", "hunter22"),
        ("redis://:hunter22@redis/0", "hunter22"),
    ],
)
def test_headers_and_addresses_lose_their_secrets(said: str, hidden: str) -> None:
    assert hidden not in text("json", said)


def test_a_fact_whose_name_speaks_of_a_secret_is_not_told() -> None:
    line = json.loads(text("json", "x", signing_secret="plain", api_key="plain", secretary="Ann", tokens=3))
    assert (line["signing_secret"], line["api_key"]) == (logs.REDACTED, logs.REDACTED)
    assert (line["secretary"], line["tokens"]) == ("Ann", 3)


def test_what_only_looks_like_a_secret_stays() -> None:
    said = "token ajt_live_AbC1 of task-12 in skills, https://example.com/a:b@c?x=1"
    assert json.loads(text("json", said))["event"] == said


def test_a_line_says_when_who_and_what_it_is_about() -> None:
    with bound_contextvars(job="j1", org="acme"):
        line = json.loads(text("json", "took %s", 3, ms=4))
    assert line.pop("timestamp").endswith("Z")
    assert line == {"job": "j1", "org": "acme", "ms": 4, "event": "took 3", "level": "warning", "logger": "a.b"}


def test_a_line_for_people_is_short() -> None:
    with bound_contextvars(job="j1"):
        assert text("console", "took %s", 3) == "WARNING a.b took 3 job=j1"


def test_a_message_of_several_lines_is_one_line_of_json() -> None:
    assert "\n" not in text("json", "one\ntwo\u2028three")


@pytest.mark.django_db
class TestTheAccessLine:
    def of(self, lines: Callable[[], list[Any]]) -> list[Any]:
        return [line for line in lines() if line["logger"] == "agent_jobs.access"]

    def test_tells_who_asked_for_what_and_how_it_went(self, lines: Any) -> None:
        plain = factories.token()
        job = rows.job()
        response = factories.Api(plain).get(f"/services/agent-jobs/{job.pk}?include=activities", x_request_id="r-1")
        assert response.status_code == 200
        (line,) = self.of(lines)
        assert line.pop("ms") > 0
        assert line.pop("timestamp")
        assert plain.startswith(f"ajt_live_{line['token'].removeprefix('ajt_live_')}")
        assert {name: line[name] for name in ("method", "route", "status", "org", "request_id")} == {
            "method": "GET",
            "route": "/services/agent-jobs/<str:job_id>",
            "status": 200,
            "org": "acme",
            "request_id": "r-1",
        }

    def test_holds_no_header_body_or_query(self, lines: Any) -> None:
        plain = factories.token()
        canary = factories.Api(plain)
        canary.post("/services/agent-jobs?delay=4711", factories.job_request(params={"canary": 1}), x_canary="canary")
        canary.get("/services/agent-jobs?tag=canary")
        written = json.dumps(lines())
        assert len(self.of(lines)) == 2
        assert not [word for word in ("canary", "4711", plain) if word in written]

    def test_who_is_not_known_is_not_named_as_the_one_before(self, lines: Any) -> None:
        factories.api().get("/services/agent-jobs")
        factories.Api(None).get("/services/agent-jobs")
        known, unknown = self.of(lines)
        assert known["org"] == "acme"
        assert unknown["status"] == 401
        assert "org" not in unknown
        assert "token" not in unknown

    def test_those_who_watch_are_not_told_of(self, client: Any) -> None:
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        logger = logging.getLogger("agent_jobs.access")
        logger.addHandler(handler)
        try:
            client.get("/health/live")
            client.get("/services/agent-jobs")
        finally:
            logger.removeHandler(handler)
        assert stream.getvalue().count("request") == 1
