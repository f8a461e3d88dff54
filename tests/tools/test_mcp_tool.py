"""Tools of MCP servers: what is offered of what they list, and what a call of them does and tells."""

import gzip
import json
import re
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pytest
from mcp.server.mcpserver import MCPServer
from mcp_types import ResourceLink

from agent_jobs import tools
from agent_jobs.errors import PermanentError, RetryableError
from agent_jobs.sandbox import json_schema
from agent_jobs.tools import mcp_listing, mcp_tool, tool_secrets
from tests import rows
from tests.fakes.mcp import SESSION, Answer, FakeMcp, says, tool
from tests.sandbox.costing import MOST_SECONDS, spent_on
from tests.tools.official_server import listening, serving
from tests.waiting import PATIENCE

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
    monkeypatch.setattr(time, "monotonic", lambda: later)
    offer(crm(fake))
    assert len(fake.asked("tools/list")) == 4


NESTED = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)} | {"d30": {}}
REASONS = [
    (tool("\u200bfind"), "printable ASCII"),
    (tool("x" * 129), "printable ASCII"),
    (tool(""), "printable ASCII"),
    ({"name": "no_schema", "description": "x"}, "no inputSchema"),
    ({"name": "null_schema", "inputSchema": None}, "no inputSchema"),
    ({"name": "no_type", "inputSchema": {"properties": {}}}, 'is not "object"'),
    (tool("text", type="string"), 'is not "object"'),
    (tool("inside", properties={"a": {"type": "string"}, "required": ["a"]}), "'required' is not an object"),
    (tool("listed", properties=["a"]), "properties"),
    (tool("wide", properties={f"p{n}": {} for n in range(65)}), "more than 64 arguments"),
    (tool("huge", properties={"a": {"type": "string"}}, required=["a"] * 9_000), "another tool"),
    (5, "printable ASCII"),
]
# Rules that we cannot validate, each with what is offered of it.
ODD_SCHEMAS = {
    "reaching_out": ({"$ref": "http://169.254.169.254/"}, {}),
    "reaching_file": ({"$ref": "file:///etc/passwd"}, {}),
    "circle": ({"$ref": "#"}, {}),
    "dangling": ({"$ref": "#/$defs/nothing"}, {}),
    "wrong": ({"type": "no-such-type", "title": "A"}, {"title": "A"}),
    "zod_email": (
        {"type": "string", "format": "email", "pattern": r"^(?!\.)(?!.*\.\.)([A-Za-z]+)@x$"},
        {"type": "string", "format": "email"},
    ),
    "backref": ({"type": "string", "pattern": r"(a)\1"}, {"type": "string"}),
    "tuple07": (
        {"type": "array", "items": [{"type": "string"}, {"type": "number"}], "additionalItems": False},
        {"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}], "items": False},
    ),
    "exclusive04": (
        {"type": "number", "minimum": 0, "exclusiveMinimum": True},
        {"type": "number", "exclusiveMinimum": 0},
    ),
    "anchor": ({"type": "string", "$anchor": "here"}, {"type": "string"}),
    "id_inside": ({"type": "string", "$id": "https://example.com/a"}, {"type": "string"}),
    "required04": ({"type": "string", "required": True}, {"type": "string"}),
    "nulls": ({"type": "string", "enum": None, "pattern": None}, {"type": "string"}),
    "bomb": ({"$ref": "#/$defs/d0", "type": "string"}, {"type": "string"}),
    "deep": ({"allOf": [{"anyOf": [{}] * 60}] * 60, "description": "D"}, {"description": "D"}),
    "enums": ({"allOf": [{"not": {"$ref": "#/$defs/e"}}] * 100}, {}),
    "patterns": ({"pattern": r"\w{30000}"}, {}),
}
DEFINITIONS = {
    "$defs": {**NESTED, "e": {"enum": [*range(1_000)]}},
}


def left_out(stated, allowed=None):
    found = []
    offer(stated, allowed, leave_out=found.append)
    return found


@pytest.mark.parametrize(("bad", "reason"), REASONS, ids=lambda one: str(one)[:40])
def test_a_malformed_tool_is_left_out_with_its_reason_and_the_others_stay(fake, bad, reason):
    huge = [tool("huge")] if "another tool" in reason else []
    fake.tools = [tool("before"), *huge, bad, tool("after")]

    assert [name for name in names(crm(fake)) if name != "crm__huge"] == ["crm__before", "crm__after"]
    (told,) = left_out(crm(fake))  # from the cache, too
    assert told.server == "crm"
    assert told.tool == (bad["name"] if isinstance(bad, dict) else "")[:128]
    assert reason in told.reason


@pytest.mark.parametrize("odd", ODD_SCHEMAS)
def test_a_schema_that_we_cannot_validate_is_offered_without_the_odd_keyword(fake, odd):
    stated, kept = ODD_SCHEMAS[odd]
    definitions = DEFINITIONS if "$defs" in str(stated) else {}
    fake.tools = [tool("before"), tool(odd, properties={"a": stated}, **definitions), tool("after")]

    found = {one.name: one for one in offer(crm(fake))}

    assert list(found) == ["crm__before", f"crm__{odd}", "crm__after"]
    assert found[f"crm__{odd}"].parameters["properties"]["a"] == kept
    assert json_schema.check_schema(found[f"crm__{odd}"].parameters) == []
    assert left_out(crm(fake)) == []


def test_a_recursive_schema_loses_only_the_reference_that_leads_back(fake):
    node = {"type": "object", "properties": {"name": {"type": "string"}, "child": {"$ref": "#/$defs/node"}}}
    fake.tools = [tool("find", properties={"tree": {"$ref": "#/$defs/node"}}, **{"$defs": {"node": node}})]

    (found,) = offer(crm(fake))

    assert found.parameters["properties"]["tree"] == {"$ref": "#/$defs/node"}
    assert found.parameters["$defs"]["node"]["properties"] == {"name": {"type": "string"}, "child": {}}
    assert tools.argument_errors(found, {"tree": {"name": 5}})
    assert not tools.argument_errors(found, {"tree": {"child": {"name": "a"}}})


@pytest.mark.parametrize(
    ("stated", "offered"),
    [
        ("calendar.list", "crm__calendar_list"),
        ("has space", "crm__has_space"),
        ("../find", "crm_____find"),
        ("y" * 60, "crm__" + "y" * 50 + "_"),
    ],
)
def test_a_name_that_providers_refuse_is_offered_under_another_and_called_by_its_own(fake, stated, offered):
    fake.tools = [tool(stated), tool("calendar_lists")]
    found = {one.name: one for one in offer(crm(fake, requires_approval=[stated]))}
    (name,) = [one for one in found if one.startswith(offered) and one != "crm__calendar_lists"]

    assert found[name].requires_approval
    assert re.fullmatch("[A-Za-z0-9_-]{1,64}", name)
    tools.call("acme", found[name], {"id": "7"}, key="k")
    assert fake.asked("tools/call")[0]["name"] == stated
    assert names(crm(fake), allowed=[f"crm.{stated}"]) == [name]


def test_two_names_that_become_one_are_told_apart(fake):
    fake.tools = [tool("a.b"), tool("a_b"), tool("a b")]

    first, second, third = names(crm(fake))

    assert second == "crm__a_b"
    assert len({first, second, third}) == 3
    assert names(crm(fake)) == [first, second, third]


def test_arguments_with_odd_names_are_offered_under_others_and_sent_under_their_own(fake):
    odd = {"$top": {"type": "integer"}, "tags[]": {"type": "array"}, "2nd": {"type": "string"}, "_top": {}}
    fake.tools = [tool("find", properties=odd, required=["$top"], anyOf=[{"required": ["tags[]"]}])]
    (found,) = offer(crm(fake))
    ours = list(found.parameters["properties"])

    assert all(re.fullmatch("[a-zA-Z0-9_.-]{1,64}", name) for name in ours)
    assert (ours[1:], found.parameters["required"]) == (["tags__", "_2nd", "_top"], [ours[0]])
    assert "'$top'" in found.parameters["properties"][ours[0]]["description"]
    tools.call("acme", found, dict(zip(ours, [5, ["a"], "b", "c"], strict=True)), key="k")
    assert fake.asked("tools/call")[0]["arguments"] == {"$top": 5, "tags[]": ["a"], "2nd": "b", "_top": "c"}
    assert tools.call("acme", found, {ours[0]: "five"}, key="k").is_error


def test_an_allowed_tool_that_the_server_does_not_list_is_told(fake):
    (told,) = left_out(crm(fake, allowed=["find", "serch"]))

    assert (told.tool, told.reason) == ("serch", "the server does not list it")
    assert left_out(crm(fake, allowed=["find", "serch"]), allowed=["crm.find"]) == []


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        ([(["a"], ""), (["b"], None)], ["a", "b"]),
        ([(["a"], ""), (["a"], "")], ["a"]),
        ([(["a"], "x"), (["b"], "x"), (["c"], "x")], ["a", "b"]),
        ([(["a"], "x"), ([], "y"), (["b"], None)], ["a", "b"]),
        ([(["a"], 5)], ["a"]),
    ],
)
def test_only_a_missing_cursor_or_a_repetition_ends_the_listing(fake, pages, expected):
    fake.queue("tools/list", *[Answer({"tools": [*map(tool, page)], "nextCursor": more}) for page, more in pages])

    assert names(crm(fake)) == [f"crm__{name}" for name in expected]


def test_an_old_server_that_refuses_its_empty_cursor_has_listed_all(fake):
    fake.queue(
        "tools/list",
        Answer({"tools": [tool("find")], "nextCursor": ""}),
        Answer(error={"code": -32602, "message": "bad cursor"}),
    )

    assert names(crm(fake)) == ["crm__find"]


def test_an_optional_server_that_is_away_is_left_out_and_the_other_tools_stay(fake):
    away = {**crm(fake), "name": "away", "url": "http://127.0.0.1:9/mcp", "optional": True}
    assert tools.check([away, crm(fake)]) == []
    told = []

    found = tools.offered("acme", [away, crm(fake)], allowed=None, leave_out=told.append)

    assert [one.name for one in found] == ["crm__find", "crm__delete"]
    assert [(one.server, one.tool) for one in told] == [("away", "")]
    assert "was not reached" in told[0].reason
    (error,) = tools.check([{**away, "optional": "yes"}])
    assert error.field == "tools.0.optional"


def test_a_schema_may_name_an_older_dialect(fake):
    fake.tools = [tool("find", **{"$schema": "http://json-schema.org/draft-07/schema#"})]

    assert "$schema" not in offer(crm(fake))[0].parameters


def test_ten_thousand_tools_are_read_to_a_bound(fake):
    fake.tools = [tool(f"t{n}") for n in range(10_000)]
    fake.page = 500
    assert len(names(crm(fake))) == mcp_listing.MAX_TOOLS == 127
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

    assert 20 < len(spent.answer) < mcp_listing.MAX_TOOLS
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
        (Answer({"tools": "find"}), "tool_server_invalid", True),
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
    if answer.status == 307:
        assert "redirects to http://169.254.169.254/" in error.value.message
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
        (Answer(error={"code": -32000, "message": "no such table"}), "error -32000: no such table", True),
        (Answer(error={"code": -32001, "message": "busy"}, sse=True), "error -32001: busy", True),
        (Answer(status=401, body=b""), "refused the call: HTTP 401", True),
        (Answer(status=404, body=b""), "refused the call: HTTP 404", True),
        (Answer(status=500, body=b""), "unknown", True),
        (Answer(status=202, body=b""), "unknown", True),
        (Answer(status=307, body=b"", headers={"Location": "http://169.254.169.254/"}), "redirects", True),
        (Answer(body=b"garbage"), "unknown", True),
        (Answer(body=b"x" * 2_000_000), "its answer is longer than 1,048,576 bytes. Whether", True),
        (Answer({"content": 5}), "5", False),
        (Answer({"content": None, "structuredContent": {"a": 1}, "isError": None}), '{"a": 1}', False),
        (Answer({"structuredContent": [1, 2]}), "[1, 2]", False),
        (
            Answer({"content": [{"type": "text", "text": "2 items."}], "structuredContent": {"projects": ["x"]}}),
            '2 items.\n{"projects": ["x"]}',
            False,
        ),
        (Answer({"content": [{"type": "text", "text": " "}], "structuredContent": {"open": 3}}), '{"open": 3}', False),
        (
            Answer(
                {
                    "content": [
                        {"type": "text", "text": "Found:"},
                        {"type": "resource_link", "uri": "reports://q3", "name": "q3", "mimeType": "application/pdf"},
                    ]
                }
            ),
            "Found:\n(link: reports://q3, q3, application/pdf)",
            False,
        ),
        (
            Answer({"content": [{"type": "text", "text": "Hi"}, {"type": "chart", "points": [1]}]}),
            'Hi\n(chart) {"type": "chart", "points": [1]}',
            False,
        ),
        (
            Answer({"content": [{"type": "resource", "resource": {"uri": "a://b", "blob": "AAAA"}}]}),
            "(resource a://b, not shown)",
            False,
        ),
        (Answer(body=b'{"jsonrpc":"2.0","id":ID,"result":null}'), "(The answer is empty.)", False),
        (Answer(cut=True), "unknown", True),
        (Answer(hold=True), "no whole answer came within 3 seconds. Whether", True),
    ],
    ids=str,
)
def test_what_the_model_is_told_of_a_call(fake, answer, text, is_error):
    fake.queue("tools/call", answer)
    told = call(fake, timeout_seconds=3 if answer.hold else 30)

    assert text in told.text
    assert told.is_error == is_error
    assert len(fake.asked("tools/call")) == 1


@pytest.mark.parametrize(
    "text",
    ['{"count": 1}', '{\n  "count": 1\n}'],
)
def test_structured_content_that_the_text_repeats_is_told_once(fake, text):
    fake.queue("tools/call", Answer({"content": [{"type": "text", "text": text}], "structuredContent": {"count": 1}}))

    assert call(fake).text == text


GZIPPED_EVENTS = {"Content-Type": "text/event-stream", "Content-Encoding": "gzip"}
ANSWER = b'{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":"Gr\xc3\xbc\xc3\x9fe"}]}}'


@pytest.mark.parametrize("method", ["tools/list", "tools/call"])
@pytest.mark.parametrize(
    ("pack", "headers"),
    [
        (gzip.compress, {"Content-Encoding": "gzip"}),
        (gzip.compress, {"Content-Encoding": "x-gzip"}),
        (zlib.compress, {"Content-Encoding": "deflate"}),
        (lambda body: b"\xef\xbb\xbf" + body, {}),
        (lambda body: body, {"Content-Type": "text/plain; charset=utf-8"}),
        (lambda body: body.decode().encode("latin-1"), {"Content-Type": "application/json; charset=iso-8859-1"}),
        (lambda body: b"[" + body + b"]", {}),
        (lambda body: b"data: " + body, {"Content-Type": "text/event-stream"}),
        (lambda body: gzip.compress(b"data: " + body + b"\r\n\r\n"), GZIPPED_EVENTS),
    ],
)
def test_an_answer_may_be_packed_or_written_in_an_unusual_way(fake, method, pack, headers):
    listing = json.dumps({"jsonrpc": "2.0", "id": 0, "result": {"tools": [tool("find", "Grüße")]}}, ensure_ascii=False)
    body = listing.encode().replace(b'"id": 0', b'"id":ID') if method == "tools/list" else ANSWER
    fake.queue(method, Answer(body=body, pack=pack, headers=headers))
    told = call(fake)

    assert told.text == ("Grüße" if method == "tools/call" else 'find {"id": "7"}')
    assert not told.is_error


@pytest.mark.parametrize("method", ["tools/list", "tools/call"])
def test_a_small_answer_that_unpacks_to_a_large_one_is_refused_by_its_size(fake, method):
    fake.queue(method, Answer(body=gzip.compress(bytes(20_000_000)), headers={"Content-Encoding": "gzip"}))

    if method == "tools/call":
        assert "longer than 1,048,576 bytes" in call(fake).text
    else:
        with pytest.raises(RetryableError, match="server crm is longer than 1,048,576 bytes"):
            call(fake)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"the database is locked", "the database is locked"),
        (b'{"jsonrpc":"2.0","error":{"code":-1,"message":"no quota"}}', "no quota"),
        (b'{"message": "no quota"}', "no quota"),
    ],
)
@pytest.mark.parametrize("line", [b"\n", b"\r\n", b"\r"])
def test_an_error_event_is_told_in_the_servers_own_words(fake, data, words, line):
    body = line.join([b": hello", b"", b"event: error", b"data: " + data, b"", b""])
    fake.queue("tools/call", Answer(body=body, headers={"Content-Type": "text/event-stream"}, open=True))

    assert call(fake, timeout_seconds=5).text == f"The server answered with an error: {words}"


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

    @official.tool()
    def count() -> dict[str, int]:
        """Counts."""
        return {"open": 3}

    @official.tool()
    def point() -> ResourceLink:
        """Points to a report."""
        return ResourceLink(type="resource_link", uri="reports://q3", name="q3")

    bound, url = listening()
    with serving(official.streamable_http_app(**options), bound):
        stated = {"type": "mcp", "name": "sums", "url": f"{url}/mcp"}
        for mode in ("auto", "legacy"):
            mcp_tool.forget()
            add_tool, fail_tool, count_tool, point_tool = offer(
                {**stated, "timeout_seconds": 60} if mode == "auto" else stated
            )
            assert (add_tool.name, add_tool.description) == ("sums__add", "Adds two numbers.")
            add_tool = replace(add_tool, settings={**add_tool.settings, "mode": mode})
            assert tools.call("acme", add_tool, {"a": 2, "b": 3}, key="k").text == "5"
            assert tools.call("acme", fail_tool, {}, key="k").is_error
            assert json.loads(tools.call("acme", count_tool, {}, key="k").text) == {"open": 3}
            assert "(link: reports://q3, q3)" in tools.call("acme", point_tool, {}, key="k").text


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
