"""Tools of agents: what a declaration may be, and what one call of a tool does and tells."""

import base64
import gzip
import html
import json
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, quote_plus

import httpcore2
import pytest

from agent_jobs import tools
from agent_jobs.errors import PermanentError, RetryableError
from agent_jobs.models import ToolSecret
from agent_jobs.tools import tool_secrets
from infra import redaction
from tests import rows
from tests.fakes.webhook import FakeReceiver, Reply
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.django_db
ID = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
NOTE = {
    "type": "object",
    "properties": {"id": {"type": "string"}, "text": {"type": "string"}, "n": {"type": "integer"}},
    "required": ["id"],
    "additionalProperties": False,
}


@pytest.fixture
def server():
    with FakeReceiver() as fake:
        yield fake


@pytest.fixture
def acme():
    return rows.org("acme").pk


def declared(server=None, **fields):
    url = f"http://127.0.0.1:{server.port}" if server else "https://api.example.com"
    tool = {"type": "http", "name": "find", "description": "Finds.", "method": "GET", "url": f"{url}/things/{{id}}"}
    tool |= {"parameters": ID, **fields}
    return {name: value for name, value in tool.items() if value is not None}


def offer(tool, org_id="acme"):
    assert tools.check([tool]) == []
    (found,) = tools.offered(org_id, [tool], allowed=None)
    return found


def call(tool, **arguments):
    return tools.call("acme", offer(tool), arguments, key="step-1")


# --- Calls -----------------------------------------------------------------------------------------------------
def test_arguments_go_into_the_address_and_the_answer_comes_back_as_text(server, acme):
    server.replies = [Reply(200, {"Content-Type": "application/json", "Set-Cookie": "c=1"}, b'{"a": 1}')]

    answer = call(declared(server), id="a b/c?d#e%2e")

    assert answer == tools.ToolAnswer('HTTP 200\n\n{"a": 1}')
    assert server.received[0].path == "/things/a%20b%2Fc%3Fd%23e%252e"
    assert server.received[0].headers["idempotency-key"] == "step-1"


def test_what_is_not_in_the_address_is_sent_as_json(server, acme):
    call(declared(server, method="POST", parameters=NOTE), id="7", text="é", n=2)

    received = server.received[0]
    assert (received.path, received.body) == ("/things/7", rb'{"text": "\u00e9", "n": 2}')
    assert received.headers["content-type"] == "application/json"


def test_what_is_not_in_the_address_of_a_get_goes_into_its_query(server, acme):
    call(declared(server, parameters=NOTE), id="7", text="a&b=c", n=2)

    assert (server.received[0].path, server.received[0].body) == ("/things/7?text=a%26b%3Dc&n=2", b"")


def test_the_model_picks_one_of_several_methods(server, acme):
    tool = declared(server, method=None, methods=["GET", "DELETE"])
    assert offer(tool).parameters["properties"]["method"]["enum"] == ["GET", "DELETE"]

    assert "one of" in call(tool, id="7", method="POST").text
    assert server.received == []
    call(tool, id="7", method="DELETE")
    assert server.received[0].method == "DELETE"


@pytest.mark.parametrize("value", ["..", ".", ""])
def test_an_argument_does_not_lead_to_another_address(server, acme, value):
    answer = call(declared(server), id=value)

    assert answer.is_error
    assert answer.text.startswith("Not sent")
    assert server.received == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "arguments.id is required"),
        ({"id": 5}, "arguments.id"),
        ({"id": "1", "more": 1}, "arguments.more is not a known"),
        ({"id": "1", "n": float("nan")}, "not JSON"),
        ({"id": "1" * 200_000}, "too long"),
        ({"id": "1", "text": {"a": []}}, "arguments.text"),
    ],
)
def test_arguments_that_do_not_fit_are_told_to_the_model_and_nothing_is_sent(server, acme, arguments, told):
    tool = offer(declared(server, parameters=NOTE))

    assert told in tools.argument_errors(tool, arguments)
    assert tools.call("acme", tool, arguments, key="k").is_error
    assert server.received == []


@pytest.mark.parametrize(
    ("reply", "text", "is_error"),
    [
        (Reply(204, body=b""), "HTTP 204", False),
        (Reply(404, {"Content-Type": "text/plain"}, b"gone"), "HTTP 404\n\ngone", True),
        (Reply(302, {"Location": "http://169.254.169.254/"}, b""), "HTTP 302\n(Redirects are not followed.)", True),
        (Reply(429, {"Retry-After": "soon"}, b""), "HTTP 429", True),
        (Reply(200, {"Content-Type": "image/png"}, b"\x89PNG"), "HTTP 200\n\n(4 bytes that are not text)", False),
        (Reply(200, {"Content-Encoding": "gzip"}, b"xx"), "HTTP 200\n\n(2 bytes that are not text)", False),
        (Reply(200, {"Content-Encoding": "br"}, b"xx"), "HTTP 200\n\n(2 bytes that are not text)", False),
        (Reply(200, {"Content-Encoding": "gzip"}, gzip.compress(b'{"a": 1}', mtime=0)), 'HTTP 200\n\n{"a": 1}', False),
        (Reply(200, {"Content-Encoding": "deflate"}, zlib.compress(b"Hi")), "HTTP 200\n\nHi", False),
        (
            Reply(200, {"Content-Encoding": "gzip"}, gzip.compress(b"Hello", mtime=0)[:-4]),
            "HTTP 200\n(The answer is incomplete or too long: this is its beginning.)\n\nHello",
            False,
        ),
        (
            Reply(200, {"Content-Type": "text/html; charset=iso-8859-1"}, "Prüfung für Ä".encode("latin-1")),
            "HTTP 200\n\nPrüfung für Ä",
            False,
        ),
        (
            Reply(200, {"Content-Type": 'text/html; Charset="Shift_JIS"'}, "日本語".encode("shift_jis")),
            "HTTP 200\n\n日本語",
            False,
        ),
        (
            Reply(200, {"Content-Type": "text/plain; charset=no-such"}, "Grüße".encode()),
            "HTTP 200\n\nGrüße",
            False,
        ),
        (Reply(200, {"Content-Type": "text/plain"}, b"\xef\xbb\xbfHi"), "HTTP 200\n\nHi", False),
        (Reply(200, {"Content-Type": "text/plain; charset=zip"}, b"Hi"), "HTTP 200\n\nHi", False),
        (Reply(200, {"Content-Type": "text/plain"}, b"a\x00b\xff"), "HTTP 200\n\na\ufffdb\ufffd", False),
        (Reply(500, {"Content-Type": "text/plain"}, b"oh"), "HTTP 500\n\noh", True),
    ],
    ids=str,
)
def test_what_the_model_is_told_of_an_answer(server, acme, reply, text, is_error):
    server.replies = [reply]

    assert call(declared(server), id="7") == tools.ToolAnswer(text, is_error)
    assert len(server.received) == 1


def test_a_long_answer_is_cut_with_a_note(server, acme):
    server.replies = [Reply(200, body=b"x" * 30_000), Reply(200, body=b"x" * 2_000_000)]
    answers = [call(declared(server), id="7") for _ in range(2)]

    assert answers[0].text.startswith("HTTP 200\n(These are the first 20,000 characters.)\n\nxxx")
    assert "too long: this is its beginning" in answers[1].text
    assert all(answer.text.count("x") < 20_010 for answer in answers)


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_asks_to_wait_surely_did_nothing(server, acme, status):
    server.replies = [Reply(status, {"Retry-After": "7"}), Reply(status, {"Retry-After": "99999999999"})]
    for seconds in (7, 3_600):
        with pytest.raises(RetryableError, match="find answered") as error:
            call(declared(server), id="7")
        assert (error.value.code, error.value.retry_after) == ("tool_busy", seconds)


def test_a_server_that_is_not_there_surely_did_nothing(acme):
    with pytest.raises(RetryableError, match="find was not reached") as error:
        call(declared(url="http://127.0.0.1:9/{id}"), id="7")
    assert error.value.code == "tool_unreachable"


@pytest.mark.parametrize("reply", [Reply(is_dropped=True), Reply(hang=60), Reply(drip=0.2)], ids=str)
def test_no_answer_leaves_the_outcome_unknown_and_says_so(server, acme, reply):
    server.replies = [reply, reply]
    began = time.monotonic()
    posted = call(declared(server, method="POST", timeout_seconds=1), id="7")
    got = call(declared(server, timeout_seconds=1), id="7")

    assert posted.is_error
    assert "unknown" in posted.text
    assert (got.text, got.is_error) == ("No answer came.", True)
    assert time.monotonic() - began < 30


def test_a_call_in_flight_can_be_given_up_from_another_thread(server, acme):
    server.replies = [Reply(hang=60)]
    tool = offer(declared(server, method="POST", timeout_seconds=60))
    started, handed = threading.Event(), []

    def on_start(give_up):
        handed.append(give_up)
        started.set()

    with ThreadPoolExecutor() as pool:
        calling = pool.submit(tools.call, "acme", tool, {"id": "7"}, key="k", on_start=on_start)
        assert started.wait(PATIENCE)
        wait_for(lambda: server.received, what="it is asked")
        began = time.monotonic()
        handed[0]()
        answer = calling.result()

    assert time.monotonic() - began < 30
    assert "unknown" in answer.text


def test_what_is_given_up_before_it_is_sent_is_not_sent(server, acme):
    with pytest.raises(RetryableError):
        tools.call("acme", offer(declared(server)), {"id": "7"}, key="k", on_start=lambda give_up: give_up())
    assert server.received == []


# --- Addresses that the model chooses --------------------------------------------------------------------------
def chooser(*hosts, **fields):
    return {
        "type": "http",
        "name": "fetch",
        "description": "Fetches.",
        "methods": ["GET", "POST"],
        "allowed_hosts": list(hosts),
        **fields,
    }


def test_the_model_chooses_the_address_on_an_allowed_host(server, acme):
    tool = chooser("127.0.0.1")
    answer = call(tool, url=f"http://127.0.0.1:{server.port}/a?b=c", method="POST", body={"d": 1})

    assert answer.text.startswith("HTTP 200")
    assert (server.received[0].path, server.received[0].body) == ("/a?b=c", b'{"d": 1}')


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/",
        "https://evil.com/",
        "https://api.example.com.evil.com/",
        "https://evil.com/api.example.com",
        "https://evil.com?api.example.com",
        "https://notapi.example.com.evil/",
        "https://api.example.com@evil.com/",
        "https://evil.com@api.example.com/",
        "https://api.example.com:pw@evil.com/",
        "https://api.example.com./",
        "https://evil.com\\@api.example.com/",
        "https://evil.com\\.api.example.com/",
        "https://api.example.com\r\n.evil.com/",
        "https://api.example.com\t/",
        "https://api.example.com/#@evil.com",
        "https://аpi.example.com/",
        "https://api。example.com/",
        "https://api%2eexample.com/",
        "https://.files.example.com/",
        "https://files.example.com/",
        "https://xfiles.example.com/",
        "https://files.example.com.evil.com/",
        "https://a.files.example.com.:443/",
        "//api.example.com/",
        "ftp://api.example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::ffff:169.254.169.254]/",
        "https://2852039166/",
        "https://localhost/",
        "",
        "https://",
    ],
)
def test_no_trick_leads_to_another_host(acme, monkeypatch, url):
    monkeypatch.setattr("infra.egress.addresses.look_up", _no_network)
    answer = call(chooser("api.example.com", "*.files.example.com"), url=url, method="GET")

    assert answer.is_error
    assert answer.text.startswith("Not sent: ")


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/x",
        "https://API.Example.COM/x",
        "https://api.example.com:8443/",
        "https://a.files.example.com/",
        "https://a.b.files.example.com/",
    ],
)
def test_an_allowed_host_is_let_through_however_it_is_written(acme, monkeypatch, url):
    monkeypatch.setattr("infra.egress.addresses.look_up", _no_network)
    with pytest.raises(AssertionError, match="would look up"):
        call(chooser("api.example.com", "*.files.example.com"), url=url, method="GET")


def _no_network(*args, **kwargs):
    raise AssertionError("would look up")


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "10.1.2.3", "::ffff:127.0.0.1", "fd00:ec2::254"])
def test_a_name_that_leads_inside_is_refused(acme, settings, monkeypatch, address):
    settings.ALLOW_PRIVATE_ADDRESSES = False
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **kwargs: [(2, 1, 6, "", (address, 443))])

    for tool, arguments in (
        (declared(), {"id": "7"}),
        (chooser("api.example.com"), {"url": "https://api.example.com/", "method": "GET"}),
    ):
        answer = call(tool, **arguments)
        assert (answer.text, answer.is_error) == ("Not sent: the address points into a private network.", True)


def test_a_name_is_looked_up_once_and_leads_where_it_was_judged_to_lead(acme, settings, monkeypatch):
    settings.ALLOW_PRIVATE_ADDRESSES = False
    answers, tried = ["93.184.216.34", "127.0.0.1"], []

    async def connect(backend, host, *args, **kwargs):
        tried.append(host)
        raise httpcore2.ConnectError("no network in tests")

    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **kwargs: [(2, 1, 6, "", (answers.pop(0), 443))])
    monkeypatch.setattr(httpcore2.AnyIOBackend, "connect_tcp", connect)
    with pytest.raises(RetryableError):
        call(declared(), id="7")

    assert (tried, answers) == (["93.184.216.34"], ["127.0.0.1"])


# --- Secrets ---------------------------------------------------------------------------------------------------
SECRET = 'k3y/with"odd+chars='


def test_a_secret_reaches_the_server_and_nobody_else(server, acme, caplog):
    caplog.set_level("DEBUG")
    tool_secrets.store("acme", "crm", SECRET, hosts=["127.0.0.1"], actor=rows.TESTER)
    tool = declared(server, headers={"Authorization": "Bearer {secret:crm}", "X-Two": "{secret:crm}/{secret:crm}"})
    encoded = "azN5L3dpdGgib2RkK2NoYXJzPQ"
    echoed = [f"Bearer {SECRET}", '{"a": "k3y/with\\"odd+chars="}', '"k3y\\/with\\"odd+chars="', f"{encoded}=="]
    echoed += ["?q=k3y%2Fwith%22odd%2Bchars%3D"]
    server.replies = [Reply(200, {"Content-Type": "text/plain"}, "\n".join(echoed).encode())]

    answer = call(tool, id="7")

    received = server.received[0].headers
    assert received["authorization"] == f"Bearer {SECRET}"
    assert received["x-two"] == f"{SECRET}/{SECRET}"
    assert answer.text.count("******") == 5
    told = answer.text + repr(offer(tool)) + caplog.text + str([record.__dict__ for record in caplog.records])
    assert "odd" not in told
    assert encoded not in told


@pytest.mark.parametrize("ahead", ["", "Bearer ", "user:", "a", "\u00e9"])
@pytest.mark.parametrize("behind", ["", "!", "!!", "\n"])
@pytest.mark.parametrize(
    "write",
    [
        lambda text: text,
        str.upper,
        lambda text: text.encode().hex(),
        lambda text: text.encode().hex().upper(),
        quote,
        quote_plus,
        lambda text: quote(text, safe="").lower(),
        html.escape,
        json.dumps,
        lambda text: base64.b64encode(text.encode()).decode(),
        lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
        lambda text: f"x{base64.b64encode(text.encode()).decode()}",
    ],
    ids=["plain", "upper", "hex", "HEX", "quote", "plus", "percent", "html", "json", "base64", "urlsafe", "stuck"],
)
def test_a_secret_is_blotted_in_whatever_form_a_server_repeats_it(write, ahead, behind):
    written = write(f"{ahead}{SECRET}{behind}")
    other = write(f"{ahead}{'0' * len(SECRET)}{behind}")
    told = redaction.Blotter([SECRET]).blotted(f"it is {written}, not {other}")

    assert told.count("******") == 1
    assert other in told
    shown = told.partition("******")[0].removeprefix("it is ") + told.partition("******")[2].partition(", not ")[0]
    assert len(shown) <= len(write(f"{ahead}{behind}")) + 4  # what stood around it


def test_blotting_a_large_answer_takes_no_time_whatever_the_secret(acme):
    blotter = redaction.Blotter(["A" * 3_999 + "B", *(f"{n:02}" + "A" * 3_998 for n in range(19))])
    began = time.process_time()
    assert blotter.blotted("A" * 1_000_000) == "A" * 1_000_000
    assert time.process_time() - began < 1


def test_a_model_cannot_name_a_secret(server, acme):
    tool_secrets.store("acme", "crm", SECRET, hosts=["127.0.0.1"], actor=rows.TESTER)
    call(declared(server, method="POST", parameters=NOTE), id="{secret:crm}", text="{secret:crm}")

    assert SECRET not in str(server.received)
    assert server.received[0].body == b'{"text": "{secret:crm}"}'


def test_another_organisations_secret_is_not_there(server, acme):
    rows.org("rival")
    tool_secrets.store("rival", "crm", SECRET, hosts=["127.0.0.1"], actor=rows.TESTER)
    with pytest.raises(PermanentError, match="find needs the secret 'crm'") as error:
        call(declared(server, headers={"X": "{secret:crm}"}), id="7")

    assert error.value.code == "tool_secret_missing"
    assert server.received == []


@pytest.mark.parametrize(
    ("hosts", "url", "is_sent"),
    [
        (["127.0.0.1"], "http://127.0.0.1:{port}/{{id}}", True),
        (["example.com", "127.0.0.1"], "http://127.0.0.1:{port}/{{id}}", True),
        (["crm.example.com"], "http://127.0.0.1:{port}/{{id}}", False),
        (["crm.example.com"], "http://127.0.0.1:{port}/crm.example.com/{{id}}", False),
        (["localhost"], "http://127.0.0.1:{port}/{{id}}", False),
        ([], "http://127.0.0.1:{port}/{{id}}", False),
    ],
)
def test_a_secret_is_sent_to_its_hosts_alone(server, acme, hosts, url, is_sent):
    store("crm", hosts)
    tool = declared(url=url.format(port=server.port), headers={"X-Leak": "{secret:crm}"})
    if is_sent:
        call(tool, id="crm.example.com")
        assert server.received[0].headers["x-leak"] == SECRET
        return
    with pytest.raises(PermanentError, match=r"would send the secret 'crm' to 127\.0\.0\.1") as error:
        call(tool, id="@crm.example.com")

    assert error.value.code == "tool_secret_refused"
    assert server.received == []


def test_an_address_that_the_model_chose_gets_no_secret_of_another_host(server, acme):
    store("crm", ["crm.example.com"])
    tool = chooser("127.0.0.1", "crm.example.com", headers={"X-Leak": "{secret:crm}"})
    with pytest.raises(PermanentError, match=r"to 127\.0\.0\.1, which is not one of its hosts: crm\.example\.com"):
        call(tool, url=f"http://127.0.0.1:{server.port}/", method="GET")

    assert server.received == []


def test_a_redirect_to_another_host_carries_no_secret_there(server, acme):
    store("crm", ["127.0.0.1"])
    server.replies = [Reply(307, {"Location": f"http://localhost:{server.port}/stolen"}, b"")]
    call(declared(server, headers={"X-Key": "{secret:crm}"}), id="7")

    assert [received.path for received in server.received] == ["/things/7"]


@pytest.mark.parametrize(
    ("hosts", "tool", "refused"),
    [
        (["api.example.com"], declared(), ""),
        (["*.example.com"], declared(), ""),
        (["API.example.com".lower()], declared(url="https://API.Example.COM:8443/{id}"), ""),
        (["example.com"], declared(), "api.example.com"),
        (["*.api.example.com"], declared(), "api.example.com"),
        (["api.example.com"], declared(url="https://evil.example/{id}?h=api.example.com"), "evil.example"),
        (
            ["api.example.com"],
            declared(url="https://api.example.com.evil.example/{id}"),
            "api.example.com.evil.example",
        ),
        (["api.example.com"], declared(url="https://notapi.example.com/{id}"), "notapi.example.com"),
        (["example.com"], chooser("example.com"), ""),
        (["*.example.com"], chooser("*.example.com", "*.a.example.com", "b.example.com"), ""),
        (["*.example.com"], chooser("*.example.com", "example.com"), "example.com"),
        (["a.example.com"], chooser("a.example.com", "*.example.com"), "*.example.com"),
        (["mcp.example.com"], {"type": "mcp", "name": "crm", "url": "https://mcp.example.com/mcp"}, ""),
        (["crm.example.com"], {"type": "mcp", "name": "crm", "url": "https://mcp.example.com/mcp"}, "mcp.example.com"),
        ([], declared(), "no hosts are stated"),
    ],
)
def test_a_declaration_that_sends_a_secret_to_a_host_that_it_is_not_for_is_refused(acme, hosts, tool, refused):
    store("crm", hosts)
    rows.org("rival")
    tool = tool | {"headers": {"X": "Bearer {secret:crm}"}}
    assert tools.check([tool]) == []
    found = tool_secrets.complaints("acme", [{"type": "send_message"}, tool])

    assert [error.field for error in found] == (["tools.1.headers"] if refused else [])
    assert all(refused in error.message and "'crm'" in error.message for error in found)
    assert tool_secrets.complaints("rival", [tool]) == []  # whose secret of this name is not stored yet


def store(name, hosts):
    tool_secrets.store("acme", name, SECRET, hosts=hosts or ["none.example"], actor=rows.TESTER)
    ToolSecret.objects.update(hosts=hosts)  # none: a row from before there were any


def test_a_secret_under_a_lost_key_is_told_without_it(server, acme, settings):
    tool_secrets.store("acme", "crm", SECRET, hosts=["127.0.0.1"], actor=rows.TESTER)
    settings.SEALING_KEYS = "other:" + "A" * 43 + "="
    with pytest.raises(PermanentError) as error:
        call(declared(server, headers={"X": "{secret:crm}"}), id="7")

    assert error.value.code == "tool_secret_unreadable"
    assert server.received == []


# --- What is offered -------------------------------------------------------------------------------------------
def test_a_profile_allows_some_of_what_a_type_declares(acme):
    declarations = [declared(), {"type": "send_message"}, {"type": "ask_approval", "approvers": ["U1"]}]

    def names(allowed):
        return [tool.name for tool in tools.offered("acme", declarations, allowed=allowed)]

    assert names(None) == ["find", "send_message", "ask_approval"]
    assert names([]) == []
    assert names(["ask_approval", "find", "other"]) == ["find", "ask_approval"]


def test_a_declaration_says_who_approves_for_how_long_and_what_silence_means(acme):
    tool = offer(declared(requires_approval=True, approvers=["U1", "token:ops"], approval_minutes=5, on_timeout="fail"))

    assert tool.requires_approval
    assert (tool.approvers, tool.approval_minutes, tool.on_timeout) == (("U1", "token:ops"), 5, "fail")


# --- What a declaration may be ---------------------------------------------------------------------------------
DEEP = {"$ref": "#/$defs/d0"} | {
    "$defs": {
        **{f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]} for n in range(30)},
        "d30": {},
    }
}
MCP = {"type": "mcp", "name": "crm", "url": "https://mcp.example.com/mcp"}
REFUSED = [
    ({"type": "http"}, ["description", "name", "url"]),
    ({"type": "shell", "name": "x"}, ["type"]),
    ({"type": ["http"]}, ["type"]),
    ({}, ["type"]),
    ("http", [""]),
    (declared(name="has space"), ["name"]),
    (declared(name="a__b"), ["name"]),
    (declared(name="a_"), ["name"]),
    (declared(name="x" * 65), ["name"]),
    (declared(name="respond"), ["name"]),
    (declared(name="send_message"), ["name"]),
    (declared(name=5), ["name"]),
    (declared(name=[]), ["name"]),
    (declared(description="x" * 1_001), ["description"]),
    (declared(method="TRACE"), ["method"]),
    (declared(method=["GET"]), ["method"]),
    (declared(methods=["GET"]), ["methods"]),
    (declared(method=None, methods=["GET", {}]), ["methods"]),
    (declared(url="http://user:pw@api.example.com/{id}"), ["url"]),
    (declared(url="https://{id}.example.com/"), ["url"]),
    (declared(url="https://example.com:{id}/"), ["url"]),
    (declared(url="{id}://example.com/"), ["url"]),
    (declared(url="https://example.com/../{id}"), ["url"]),
    (declared(url="https://example.com/{id"), ["url"]),
    (declared(url="https://example.com/{other}"), ["url"]),
    (declared(url="https://example.com/{secret:crm}"), ["url"]),
    (declared(url="https://example.com/{id}#x"), ["url"]),
    (declared(url=5), ["url"]),
    (declared(url=None), ["url"]),
    (declared(allowed_hosts=["example.com"]), ["url"]),
    (declared(parameters=[]), ["parameters"]),
    (declared(parameters={"type": "string"}), ["parameters"]),
    (declared(parameters={"type": "object", "$ref": "https://evil.com/x"}), ["parameters"]),
    (declared(parameters={"type": "object", "properties": {"a": DEEP}}), ["parameters"]),
    (declared(parameters={"type": "object", **DEEP}), ["parameters"]),
    (declared(parameters={"type": "object", "properties": {"a b": {}}}), ["parameters.properties.a b"]),
    (declared(headers={"Host": "evil.com"}), ["headers"]),
    (declared(headers={"Content-Length": "0"}), ["headers"]),
    (declared(headers={"X": "a\r\nY: b"}), ["headers"]),
    (declared(headers={"X Y": "a"}), ["headers"]),
    (declared(headers={"X": "{secret:}"}), ["headers"]),
    (declared(headers={"Authorization": "Bearer literal-credential"}), ["headers"]),
    (declared(headers={"X": "basic YTpi"}), ["headers"]),
    (declared(headers={"X-Api-Key": "literal"}), ["headers"]),
    (declared(headers={"Cookie": "session=1"}), ["headers"]),
    (declared(headers={"x-goog-api-key": "literal"}), ["headers"]),
    (declared(headers={"X-Auth-Token": "literal"}), ["headers"]),
    ({**MCP, "headers": {"Api-Key": "literal"}}, ["headers"]),
    (declared(headers={"X": "a", "x": "b"}), ["headers"]),
    (declared(timeout_seconds=61), ["timeout_seconds"]),
    (declared(timeout_seconds=0), ["timeout_seconds"]),
    (declared(timeout_seconds=float("nan")), ["timeout_seconds"]),
    (declared(timeout_seconds=True), ["timeout_seconds"]),
    (declared(requires_approval="yes"), ["requires_approval"]),
    (declared(approvers="U1"), ["approvers"]),
    (declared(on_timeout="maybe"), ["on_timeout"]),
    (declared(approval_minutes=10_081), ["approval_minutes"]),
    (declared(surprise=1), ["surprise"]),
    (declared(body="form"), ["body"]),
    (chooser("*.com"), ["allowed_hosts"]),
    (chooser("*"), ["allowed_hosts"]),
    (chooser("Example.com"), ["allowed_hosts"]),
    (chooser("example.com."), ["allowed_hosts"]),
    (chooser("example.com:443"), ["allowed_hosts"]),
    (chooser("a.*.com"), ["allowed_hosts"]),
    (chooser("exämple.com"), ["allowed_hosts"]),
    (chooser(), ["allowed_hosts"]),
    (chooser("example.com", parameters=ID), ["parameters"]),
    ({**MCP, "url": "http://localhost@evil.com/"}, ["url"]),
    ({**MCP, "name": "x" * 25}, ["name"]),
    ({**MCP, "name": "a__b"}, ["name"]),
    ({**MCP, "name": "a_"}, ["name"]),
    ({**MCP, "allowed": "all"}, ["allowed"]),
    ({**MCP, "allowed": []}, ["allowed"]),
    ({**MCP, "requires_approval": "all"}, ["requires_approval"]),
    ({**MCP, "allowed": ["weather"], "requires_approval": ["wether"]}, ["requires_approval"]),
    ({**MCP, "parameters": ID}, ["parameters"]),
    ({"type": "mcp"}, ["name", "url"]),
    ({"type": "send_message", "name": "x"}, ["name"]),
    ({"type": "send_message", "requires_approval": ["x"]}, ["requires_approval"]),
    ({"type": "ask_approval", "approvers": []}, ["approvers"]),
]


@pytest.mark.parametrize(("tool", "fields"), REFUSED, ids=str)
def test_a_declaration_that_does_not_hold_is_refused_by_its_field(tool, fields):
    found = sorted({error.field.removeprefix("tools.0").removeprefix(".") for error in tools.check([tool])})
    assert found == fields


@pytest.mark.parametrize(
    "tool",
    [
        declared(),
        declared(method="POST", parameters=NOTE, headers={"Authorization": "Bearer {secret:crm}"}, is_idempotent=True),
        declared(url="https://api.example.com/things", parameters=None),
        declared(url="https://api.example.com/{id}?q={id}"),
        chooser("api.example.com", "*.example.org", "127.0.0.1"),
        MCP,
        {**MCP, "requires_approval": ["delete"]},
        {**MCP, "allowed": ["find", "delete"], "requires_approval": ["delete"], "headers": {"X-Key": "{secret:crm}"}},
        {**MCP, "allowed": None, "requires_approval": True, "timeout_seconds": 60},
        {"type": "send_message", "requires_approval": True},
        {"type": "ask_approval", "approval_minutes": 10_080, "on_timeout": "approve"},
    ],
    ids=str,
)
def test_a_declaration_that_holds_is_taken(tool):
    assert tools.check([tool]) == []


def test_tools_together_have_bounds_and_names_of_their_own():
    assert tools.check({"type": "http"})[0].code == "invalid"
    assert tools.check([{"type": "send_message"}] * 33)[0].code == "too_many"
    assert tools.check([declared(parameters={"type": "object", "title": "x" * 70_000})])[0].code == "too_large"
    assert [error.field for error in tools.check([declared(), declared()])] == ["tools.1.name"]
    assert [error.field for error in tools.check([{"type": "send_message"}] * 2)] == ["tools.1.name"]


def test_a_small_answer_that_unpacks_to_a_large_one_is_read_to_the_bound(server, acme):
    server.replies = [Reply(200, {"Content-Encoding": "gzip"}, gzip.compress(b"x" * 50_000_000, mtime=0))]

    answer = call(declared(server), id="7")

    assert "incomplete or too long" in answer.text
    assert 20_000 <= len(answer.text) < 20_200
