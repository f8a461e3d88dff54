"""Tests that need a real web process: bodies in chunks, heads that cannot be read, clients that are slow."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from agent_jobs.models import Job
from config import serve
from tests import factories, rows
from tests.waiting import PATIENCE

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def server(web_process):
    return web_process.port


@pytest.fixture(scope="module", autouse=True)
def half_a_head(web_process):
    """A connection that sends half a head and waits beside the other tests: seconds until it is closed."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(seconds_until_closed, web_process.port, HALF["half a head"])


def seconds_until_closed(port, begin):
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(begin)
        began = time.monotonic()
        assert client.recv(1) == b""
        return time.monotonic() - began


def exchange(port, head, body=b"", *, host="localhost"):
    """The answer to one raw request."""
    rest = f"Host: {host}\r\nConnection: close\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(head.replace("\n", "\r\n").encode() + rest + body)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    return answer


def send(port, head, body=b""):
    """(status, JSON body) of one raw request."""
    top, _, content = exchange(port, head, body).partition(b"\r\n\r\n")
    return int(top.split()[1]), json.loads(content)


def test_what_the_server_does_to_a_request_is_not_held_against_its_sender(server):
    rows.job_type()
    token = factories.token()
    auth = f"Authorization: Bearer {token}\n"
    body = json.dumps(factories.job_request()).encode()
    post = "POST /services/agent-jobs HTTP/1.1\nContent-Type: application/json\n"

    chunked = send(server, f"{post}{auth}Transfer-Encoding: chunked\n", b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
    assert (chunked[0], chunked[1]["code"]) == (411, "length_required")
    twice = send(server, f"GET /services/agent-jobs HTTP/1.1\n{auth}{auth}")
    assert (twice[0], twice[1]["code"]) == (401, "unauthenticated")
    assert send(server, f"{post}{auth}Content-Length: {len(body)}\n", body)[0] == 201
    # By its length alone: of a body that nobody reads, a part may meet a closed connection.
    assert send(server, f"{post}{auth}Content-Length: 300000\n", b" " * 1_000)[0] == 413
    assert send(server, f"{post}{auth}")[0] == 400
    assert send(server, f"TRACE /services/agent-jobs HTTP/1.1\n{auth}")[0] == 405
    assert send(server, f"GET /services/agent-jobs?limit=%FF HTTP/1.1\n{auth}")[0] == 400
    assert send(server, "GET /nowhere HTTP/1.1\n")[0] == 404
    assert Job.objects.count() == 1


TOO_LONG = {
    "an address": (f"GET /{'x' * 9000} HTTP/1.1\n", 414),
    "a header": (f"GET /health/live HTTP/1.1\nX-Long: {'x' * 9000}canary\n", 431),
    "a head of 100 KB": ("GET /health/live HTTP/1.1\n" + f"X-More: {'x' * 8000}\n" * 13, 431),
}
UNREADABLE = {
    "no request line": ("hello\n", 400),
    "a method that is none": ("G\x01T /health/live HTTP/1.1\n", 400),
    "a version that is none": ("GET /health/live HTTP/9.9\n", 400),
    "a header without a colon": ("GET /health/live HTTP/1.1\nAuthorization Bearer canary\n", 400),
    "two lengths": ("POST /services/agent-jobs HTTP/1.1\nContent-Length: 5\nContent-Length: 6\n", 400),
    "too many headers": ("GET /health/live HTTP/1.1\n" + "X-More: 1\n" * 200, 431),
}


@pytest.mark.parametrize("name", TOO_LONG)
def test_what_is_too_long_is_refused_as_everything_else(server, name):
    head, expected = TOO_LONG[name]

    status, answer = send(server, head)

    assert status == expected
    assert set(answer) == {"code", "message", "errors", "meta"}
    assert answer["code"] == "bad_request"
    assert answer["meta"]["request_id"]
    assert "canary" not in json.dumps(answer)


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_http_is_refused_without_a_body(server, name):
    head, expected = UNREADABLE[name]

    answer = exchange(server, head)

    assert int(answer.split()[1]) == expected
    assert answer.endswith(b"\r\n\r\n")
    assert b"canary" not in answer


HALF = {
    "nothing": b"",
    "half a head": b"GET /health/live HTTP/1.1\r\nHost: loc",
    "half a body": b"POST /services/agent-jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
}


@pytest.mark.parametrize("name", HALF)
def test_clients_that_are_half_there_stop_nobody(server, name):
    """Each of a hundred holds a connection, and none of them a thread."""
    with ExitStack() as stack:
        for _ in range(100):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server), PATIENCE))
            client.sendall(HALF[name])
        began = time.monotonic()
        for _ in range(6):
            assert send(server, "GET /health/live HTTP/1.1\n")[0] == 200
        assert time.monotonic() - began < serve.HEAD_SECONDS


def test_the_server_names_no_product(server):
    head = exchange(server, "GET /health/live HTTP/1.1\n").partition(b"\r\n\r\n")[0].lower()

    assert b"server: agent-jobs\r\n" in head
    assert b"granian" not in head


@pytest.mark.parametrize(
    ("path", "status"),
    [("/services/agent-jobs", 400), ("/metrics", 400), ("/docs", 400), ("/admin/", 400), ("/health/live", 200)],
)
def test_only_named_hosts_are_served_but_for_the_health(server, path, status):
    answer = exchange(server, f"GET {path} HTTP/1.1\n", host="evil.example")

    assert int(answer.split()[1]) == status
    if status == 400:
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "unknown_host"
    assert b"evil" not in answer


def test_a_head_that_does_not_come_is_waited_for_so_long_and_no_longer(half_a_head):
    assert half_a_head.result(PATIENCE) > serve.HEAD_SECONDS - 1
