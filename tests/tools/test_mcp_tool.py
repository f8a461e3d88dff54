"""Tools of MCP servers: what is offered of what they list, and what a call of them does and tells."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest
import uvicorn
from mcp.server.mcpserver import MCPServer

from agent_jobs import tools
from agent_jobs.errors import PermanentError, RetryableError
from agent_jobs.tools import mcp_tool, tool_secrets
from tests import rows
from tests.fakes.mcp import SESSION, Answer, FakeMcp, says, tool
from tests.sandbox.costing import MOST_SECONDS, spent_on
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.django_db
SECRET = 'k3y/with"odd+chars='


@pytest.fixture(autouse=True)
def nothing_is_remembered():
    mcp_tool.forget()


@pytest.fixture
def fake():
    with FakeMcp() as server:
        yield server


@pytest.fixture(autouse=True)
def acme():
    return rows.org("acme").pk


def crm(fake, **fields):
    return {"type": "mcp", "name": "crm", "url": fake.url, "timeout_seconds": 5, **fields}


def offer(stated, allowed=None, **options):
    assert tools.check([stated]) == []
    return tools.offered("acme", [stated], allowed=allowed, **options)


def names(stated, allowed=None):
    return [found.name for found in offer(stated, allowed)]


def call(fake, name="crm__find", arguments=None, on_start=None, **fields):
    by_name = {found.name: found for found in offer(crm(fake, **fields))}
    given = {"id": "7"} if arguments is None else arguments
    return tools.call("acme", by_name[name], given, key="step-1", on_start=on_start)


# --- What is offered -------------------------------------------------------------------------------------------
def test_a_servers_tools_are_offered_under_its_name(fake):
    found = offer(crm(fake, requires_approval=["delete"], approvers=["U1"], is_idempotent=True))

    assert [(one.name, one.kind, one.requires_approval) for one in found] == [
        ("crm__find", "mcp", False),
        ("crm__delete", "mcp", True),
    ]
    assert (found[0].description, found[0].approvers, found[0].is_idempotent) == ("Does.", ("U1",), True)
    assert found[0].parameters == {"type": "object", "properties": {"id": {"type": "string"}}}


def test_the_type_and_the_profile_say_which_of_them(fake):
    assert names(crm(fake, allowed=["delete"])) == ["crm__delete"]
    assert names(crm(fake), allowed=["crm"]) == ["crm__find", "crm__delete"]
    assert names(crm(fake), allowed=["crm.find"]) == ["crm__find"]
    assert names(crm(fake), allowed=["crm__delete", "find"]) == ["crm__delete"]


def test_a_server_of_which_nothing_is_allowed_is_not_asked(fake):
    assert names(crm(fake), allowed=["other", "find"]) == []
    assert fake.requests == []


def test_a_server_is_asked_once_a_minute_by_each_organisation_and_declaration(fake, monkeypatch):
    for _ in range(3):
        offer(crm(fake))
    assert len(fake.asked("tools/list")) == 1

    rows.org("rival")
    tools.offered("rival", [crm(fake)], allowed=None)
    offer(crm(fake, allowed=["find"]))
    assert len(fake.asked("tools/list")) == 3

    later = time.monotonic() + mcp_tool.LISTED_SECONDS
    monkeypatch.setattr(mcp_tool.time, "monotonic", lambda: later)
    offer(crm(fake))
    assert len(fake.asked("tools/list")) == 4


NESTED = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)} | {"d30": {}}
BAD_TOOLS = [
    tool("has space"),
    tool("has.dot"),
    tool("x" * 65),
    tool("crm_" + "x" * 58),  # too long with its server's name
    tool("\u200bfind"),
    tool("../find"),
    tool("reaching_out", properties={"a": {"$ref": "http://169.254.169.254/"}}),
    tool("reaching_file", properties={"a": {"$ref": "file:///etc/passwd"}}),
    tool("bomb", properties={"a": {"$ref": "#/$defs/d0"}}, **{"$defs": NESTED}),
    tool("circle", properties={"a": {"$ref": "#"}}),
    tool("wrong", properties={"a": {"type": "no-such-type"}}),
    tool("wide", properties={f"p{n}": {} for n in range(65)}),
    tool("long", title="x" * 30_000),
    tool("odd", properties={"a b": {}}),
    tool("deep", properties={"a": {"allOf": [{"anyOf": [{}] * 60}] * 60}}),
    tool(
        "enums",
        properties={"a": {"allOf": [{"not": {"$ref": "#/$defs/e"}}] * 100}},
        **{"$defs": {"e": {"enum": [*range(1_000)]}}},
    ),
    tool("patterns", properties={"a": {"pattern": r"\w{30000}"}}),
]


@pytest.mark.parametrize("bad", BAD_TOOLS, ids=lambda bad: bad["name"][:20])
def test_a_tool_that_does_not_hold_is_left_out_and_the_others_stay(fake, bad):
    fake.tools = [tool("before"), bad, tool("after")]

    assert names(crm(fake)) == ["crm__before", "crm__after"]


def test_a_schema_may_name_an_older_dialect(fake):
    fake.tools = [tool("find", **{"$schema": "http://json-schema.org/draft-07/schema#"})]

    assert "$schema" not in offer(crm(fake))[0].parameters


def test_ten_thousand_tools_are_read_to_a_bound(fake):
    fake.tools = [tool(f"t{n}") for n in range(10_000)]
    fake.page = 500
    assert len(names(crm(fake))) == mcp_tool.MAX_TOOLS == 128
    assert len(fake.asked("tools/list")) == mcp_tool.MAX_PAGES == 10

    assert names(crm(fake, allowed=["t4999", "t5000"])) == ["crm__t4999"]

    fake.page = 10_000
    with pytest.raises(RetryableError, match="server crm") as error:
        offer(crm(fake, timeout_seconds=60))
    assert error.value.code == "tool_server_invalid"


def test_what_a_listing_costs_is_bounded(fake):
    branches = {"anyOf": [{"const": number} for number in range(600)]}
    fake.tools = [tool(f"t{n}", title=str(n), properties={"a": branches}) for n in range(300)]
    fake.page = 30

    spent = spent_on(lambda: names(crm(fake)))

    assert 20 < len(spent.answer) < mcp_tool.MAX_TOOLS
    assert spent.here < 1


def test_arguments_that_take_too_long_to_validate_are_told_to_the_model_and_not_sent(fake):
    fake.tools = [tool("find", properties={"a": {"items": {"items": {"not": {"enum": [[n] for n in range(1_500)]}}}}})]
    (found,) = offer(crm(fake))
    arguments = {"a": [[[-n - 1] for n in range(5_000)]] * 2}

    spent = spent_on(lambda: tools.call("acme", found, arguments, key="step-1"))

    assert spent.answer.is_error
    assert "too much time" in spent.answer.text
    assert fake.asked("tools/call") == []
    assert spent.here < 0.25
    assert spent.in_children < MOST_SECONDS


def test_names_that_collide_are_offered_once(fake):
    fake.tools = [tool("find", "The first."), tool("find", "The second."), tool("Find")]
    found = offer(crm(fake))

    assert [(one.name, one.description) for one in found] == [("crm__find", "The first."), ("crm__Find", "Does.")]
    assert len(tools.offered("acme", [crm(fake), crm(fake)], allowed=None)) == 2


def test_a_description_is_bounded_text(fake):
    fake.tools = [tool("find", "a\x00b\n\n" + "x" * 5_000), {"name": "bare", "inputSchema": {"type": "object"}}]
    found = offer(crm(fake))

    assert found[0].description.startswith("a\ufffdb xxx")
    assert (len(found[0].description), found[1].description) == (1_000, "bare")


# --- Servers that are not to be had ----------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["initialize", "tools/list"])
@pytest.mark.parametrize(
    ("answer", "code", "is_retryable"),
    [
        (Answer(status=401, body=b"{}"), "tool_server_refused", False),
        (Answer(status=403, body=b"no", headers={"Content-Type": "text/html"}), "tool_server_refused", False),
        (Answer(status=307, body=b"", headers={"Location": "http://169.254.169.254/"}), "tool_server_refused", False),
        (Answer(status=500, body=b"oh"), "tool_server_unavailable", True),
        (Answer(status=503, body=b"", headers={"Retry-After": "7"}), "tool_server_unavailable", True),
        (Answer(body=b"garbage"), "tool_server_invalid", True),
        (Answer(body=b'{"jsonrpc": "2.0", "id": 1, "result": {"tools": 5}}'), "tool_server_invalid", True),
        (Answer({"tools": [tool("find"), tool("list", type="array")]}), "tool_server_invalid", True),
        (Answer(body=b"<html>", headers={"Content-Type": "text/html"}), "tool_server_invalid", True),
        (Answer(body=b"x" * 2_000_000), "tool_server_invalid", True),
        (Answer(error={"code": -32603, "message": "oh"}), "tool_server_invalid", True),
        (Answer(hold=True), "tool_server_", True),
        (Answer(cut=True), "tool_server_", True),
    ],
    ids=str,
)
def test_a_server_that_is_not_to_be_had_is_told_by_name_and_whether_it_may_be_later(
    fake, method, answer, code, is_retryable
):
    fake.queue(method, *[answer] * 5)
    with pytest.raises(RetryableError if is_retryable else PermanentError, match="tool server crm") as error:
        # The body with an id of its own answers no request of ours, so the client waits for another one.
        offer(crm(fake, timeout_seconds=2 if answer.hold or b'"id": 1' in (answer.body or b"") else 30))

    assert error.value.code.startswith(code)
    assert "169.254" not in error.value.message
    if answer.headers.get("Retry-After"):
        assert error.value.retry_after == 7


def test_a_server_that_is_not_there_may_be_later(fake):
    with pytest.raises(RetryableError, match="crm was not reached") as error:
        offer(crm(fake, url="http://127.0.0.1:9/mcp"))
    assert error.value.code == "tool_server_unreachable"


def test_a_server_with_a_private_address_is_refused(fake, settings, monkeypatch):
    settings.ALLOW_PRIVATE_ADDRESSES = False
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **kwargs: [(2, 1, 6, "", ("169.254.169.254", 443))])
    with pytest.raises(PermanentError, match="private network") as error:
        offer(crm(fake, url="https://mcp.example.com/"))
    assert error.value.code == "tool_server_refused"


def test_a_listing_in_flight_can_be_given_up(fake):
    fake.queue("tools/list", Answer(hold=True))
    handed = []
    with ThreadPoolExecutor() as pool:
        listing = pool.submit(
            tools.offered, "acme", [crm(fake, timeout_seconds=60)], allowed=None, on_start=handed.append
        )
        assert fake.holding.acquire(timeout=PATIENCE)
        began = time.monotonic()
        handed[0]()
        with pytest.raises(RetryableError):
            listing.result()
    assert fake.hung_up.wait(30)
    assert time.monotonic() - began < 30


# --- Calls -----------------------------------------------------------------------------------------------------
def test_a_call_reaches_the_server_and_its_text_comes_back(fake):
    assert call(fake) == tools.ToolAnswer('find {"id": "7"}')

    (params,) = fake.asked("tools/call")
    assert params["name"] == "find"
    assert params["_meta"]["idempotency-key"] == "step-1"
    (headers,) = [headers for method, _, headers in fake.requests if method == "tools/call"]
    assert (headers["mcp-session-id"], headers["mcp-protocol-version"]) == (SESSION, "2025-06-18")
    method, _, headers = fake.requests[-1]
    assert (method, headers["mcp-session-id"]) == ("DELETE", SESSION)


def test_an_answer_may_come_as_a_stream_that_stays_open(fake):
    fake.queue("tools/call", says("streamed", sse=True, open=True))
    began = time.monotonic()

    assert call(fake, timeout_seconds=60).text == "streamed"
    assert time.monotonic() - began < 30


def test_a_server_that_keeps_quiet_holds_nobody_for_longer_than_was_declared(fake):
    (find, _) = offer(crm(fake, timeout_seconds=30))
    find = replace(find, settings={**find.settings, "timeout_seconds": 2})
    fake.queue("tools/call", Answer(hold=True))
    fake.queue("DELETE", Answer(hold=True))
    began = time.monotonic()
    tools.call("acme", find, {"id": "7"}, key="k")

    assert fake.hung_up.wait(30)
    assert time.monotonic() - began < 30


def test_a_server_that_does_not_part_spoils_no_answer(fake):
    offer(crm(fake))
    fake.queue("DELETE", Answer(hold=True))
    assert call(fake).text == 'find {"id": "7"}'


def test_arguments_that_do_not_fit_are_not_sent(fake):
    fake.tools = [tool("find", required=["id"])]
    answer = call(fake, arguments={"id": 5})

    assert answer.is_error
    assert "arguments.id" in answer.text
    assert fake.asked("tools/call") == []


@pytest.mark.parametrize(
    ("answer", "text", "is_error"),
    [
        (
            Answer({"content": [{"type": "text", "text": "no"}], "isError": True}),
            "The tool reports an error:\nno",
            True,
        ),
        (Answer({"content": []}), "(The answer is empty.)", False),
        (Answer({"content": [], "structuredContent": {"a": 1}}), '{"a": 1}', False),
        (
            Answer({"content": [{"type": "image", "data": "AAAA", "mimeType": "image/png"}]}),
            "(image, not shown)",
            False,
        ),
        (says("a\x00b"), "a\ufffdb", False),
        (Answer(error={"code": -32602, "message": "no such id"}), "error -32602: no such id", True),
        (Answer(status=401, body=b""), "refused the call: HTTP 401", True),
        (Answer(status=404, body=b""), "refused the call: HTTP 404", True),
        (Answer(status=500, body=b""), "unknown", True),
        (Answer(status=202, body=b""), "unknown", True),
        (Answer(status=307, body=b"", headers={"Location": "http://169.254.169.254/"}), "redirects", True),
        (Answer(body=b"garbage"), "unknown", True),
        (Answer(body=b"x" * 2_000_000), "unknown", True),
        (Answer({"content": 5}), "unknown", True),
        (Answer(cut=True), "unknown", True),
        (Answer(hold=True), "unknown", True),
    ],
    ids=str,
)
def test_what_the_model_is_told_of_a_call(fake, answer, text, is_error):
    fake.queue("tools/call", answer)
    told = call(fake, timeout_seconds=3 if answer.hold else 30)

    assert text in told.text
    assert told.is_error == is_error
    assert "169.254" not in told.text
    assert len(fake.asked("tools/call")) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_asks_to_wait_surely_did_nothing(fake, status):
    fake.queue("tools/call", Answer(status=status, body=b"", headers={"Retry-After": "7"}))
    with pytest.raises(RetryableError, match="crm__find") as error:
        call(fake)
    assert (error.value.code, error.value.retry_after) == ("tool_busy", 7)


def test_a_server_that_went_away_since_it_was_asked_surely_did_nothing(fake):
    (find, _) = offer(crm(fake))
    fake.queue("initialize", Answer(status=500, body=b""))
    with pytest.raises(RetryableError):
        tools.call("acme", find, {"id": "7"}, key="k")
    assert fake.asked("tools/call") == []


def test_a_long_answer_is_cut_with_a_note(fake):
    fake.queue("tools/call", says("x" * 30_000))
    answer = call(fake)

    assert answer.text.startswith("(These are the first 20,000 characters.)")
    assert answer.text.count("x") < 20_010


def test_a_call_in_flight_can_be_given_up_from_another_thread(fake):
    fake.queue("tools/call", Answer(hold=True))
    handed, started = [], threading.Event()

    def on_start(give_up):
        handed.append(give_up)
        started.set()

    (find, _) = offer(crm(fake, timeout_seconds=60))
    with ThreadPoolExecutor() as pool:
        calling = pool.submit(tools.call, "acme", find, {"id": "7"}, key="k", on_start=on_start)
        assert started.wait(PATIENCE)
        assert fake.holding.acquire(timeout=PATIENCE)
        began = time.monotonic()
        handed[0]()
        answer = calling.result()

    assert fake.hung_up.wait(30)
    assert time.monotonic() - began < 30
    assert "given up" in answer.text
    assert "unknown" in answer.text


# --- The SDK's own server --------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{}, {"stateless_http": True}, {"json_response": True}], ids=str)
def test_the_official_server_is_understood(options):
    """With sessions, without, and with answers that are no streams; in either generation of the protocol."""
    official = MCPServer("official")

    @official.tool()
    def add(a: int, b: int) -> int:
        """Adds two numbers."""
        return a + b

    @official.tool()
    def fail() -> str:
        """Fails."""
        raise ValueError("as asked")

    with _serving(official.streamable_http_app(**options)) as url:
        stated = {"type": "mcp", "name": "sums", "url": f"{url}/mcp"}
        for mode in ("auto", "legacy"):
            mcp_tool.forget()
            add_tool, fail_tool = offer({**stated, "timeout_seconds": 60} if mode == "auto" else stated)
            assert (add_tool.name, add_tool.description) == ("sums__add", "Adds two numbers.")
            add_tool = replace(add_tool, settings={**add_tool.settings, "mode": mode})
            assert tools.call("acme", add_tool, {"a": 2, "b": 3}, key="k").text == "5"
            assert tools.call("acme", fail_tool, {}, key="k").is_error


@contextmanager
def _serving(app):
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started, what="the server has started")
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)


# --- Secrets ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("approval", [["wether"], ["weather", "wether"], ["Weather"]], ids=str)
def test_a_tool_that_requires_approval_and_is_not_listed_ends_the_turn(fake, approval):
    fake.tools = [tool("weather")]
    for _ in range(2):  # nor from memory
        with pytest.raises(RetryableError, match=r"crm does not list '[Ww]ea?ther', which requires approval") as error:
            offer(crm(fake, requires_approval=approval))
        assert error.value.code == "tool_server_invalid"


def test_a_secret_reaches_the_server_and_nobody_else(fake, caplog):
    caplog.set_level("DEBUG")
    tool_secrets.store("acme", "crm", SECRET, hosts=["127.0.0.1"], actor=rows.TESTER)
    fake.tools = [tool("find", f"Your key is {SECRET}")]
    stated = crm(fake, headers={"Authorization": "Bearer {secret:crm}"})
    (find,) = offer(stated)
    told = [find.description, repr(find)]
    for answer in (
        says(f"Bearer {SECRET}"),
        Answer({"content": [], "structuredContent": {"a": SECRET}}),
        Answer(error={"code": -32000, "message": f"bad key {SECRET}"}),
        Answer(body=f"<{SECRET}".encode()),
        Answer(status=400, body=SECRET.encode()),
    ):
        fake.queue("tools/call", answer)
        told.append(tools.call("acme", find, {"id": "7"}, key="k").text)

    assert {headers["authorization"] for _, _, headers in fake.requests} == {f"Bearer {SECRET}"}
    told.append(caplog.text + str([record.__dict__ for record in caplog.records]))
    assert [text for text in told if "odd" in text] == []
    assert told[2] == "Bearer ******"


def test_a_secret_is_sent_to_its_hosts_alone(fake):
    tool_secrets.store("acme", "crm", SECRET, hosts=["127.0.0.1"], actor=rows.TESTER)
    stated = crm(fake, headers={"X-Leak": "{secret:crm}"})
    (find,) = [tool for tool in offer(stated) if tool.name == "crm__find"]
    before = len(fake.requests)
    tool_secrets.store("acme", "crm", SECRET, hosts=["crm.example.com"], actor=rows.TESTER)
    mcp_tool.forget()
    for ask in (lambda: offer(stated), lambda: tools.call("acme", find, {"id": "7"}, key="k")):
        with pytest.raises(PermanentError, match=r"would send the secret 'crm' to 127\.0\.0\.1") as error:
            ask()
        assert error.value.code == "tool_secret_refused"

    assert len(fake.requests) == before


@pytest.mark.parametrize("method", ["initialize", "tools/list", "tools/call"])
def test_a_server_that_sends_on_to_another_host_gets_no_secret_there(fake, method):
    tool_secrets.store("acme", "crm", SECRET, hosts=["127.0.0.1"], actor=rows.TESTER)
    with FakeMcp() as other:
        away = Answer(status=307, headers={"Location": other.url.replace("127.0.0.1", "localhost")}, body=b"")
        fake.queue(method, away, away)
        with suppress(RetryableError, PermanentError):
            (find, *_) = offer(crm(fake, headers={"X-Leak": "{secret:crm}"}))
            tools.call("acme", find, {"id": "7"}, key="k")

    assert other.requests == []
    assert fake.requests


def test_a_secret_that_is_missing_is_told_before_anything_is_sent(fake):
    with pytest.raises(PermanentError, match="crm needs the secret 'crm'"):
        offer(crm(fake, headers={"X-Key": "{secret:crm}"}))
    assert fake.requests == []
