"""What only a real server does: gunicorn drops chunked bodies, and joins two Authorization headers with a comma."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from django.db import connection

from agent_jobs.models import Job
from tests import factories, rows
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server():
    """The port of a gunicorn on the test's own database."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = connection.settings_dict
    user = quote(place["USER"]) + (f":{quote(place['PASSWORD'])}" if place["PASSWORD"] else "")
    host = quote(place["HOST"], safe="")
    url = f"postgres://{user}@{host}:{place['PORT']}/{place['NAME']}"
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--config", "config/gunicorn.py", "-b", f"127.0.0.1:{port}"],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": url, "AGENT_JOBS_WEB_PROCESSES": "1"},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: listens(process, port), what="it listens")
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE)


def listens(process, port):
    assert process.poll() is None
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def send(port, head, body=b""):
    """(status, JSON body) of one raw request."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(head.replace("\n", "\r\n").encode() + b"Host: localhost\r\nConnection: close\r\n\r\n" + body)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    top, _, content = answer.partition(b"\r\n\r\n")
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


UNREADABLE = {
    "no request line": ("hello\n", 400),
    "a method that is none": ("G\x01T /health/live HTTP/1.1\n", 400),
    "a version that is none": ("GET /health/live HTTP/9.9\n", 400),
    "a header without a colon": ("GET /health/live HTTP/1.1\nAuthorization Bearer canary\n", 400),
    "an address that is too long": (f"GET /{'x' * 9000} HTTP/1.1\n", 414),
    "a header that is too long": (f"GET /health/live HTTP/1.1\nX-Long: {'x' * 9000}\n", 431),
    "too many headers": ("GET /health/live HTTP/1.1\n" + "X-More: 1\n" * 200, 431),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_the_server_itself_refuses_looks_like_every_refusal(server, name):
    head, expected = UNREADABLE[name]

    status, answer = send(server, head)

    assert status == expected
    assert set(answer) == {"code", "message", "errors", "meta"}
    assert answer["code"] == "bad_request"
    assert answer["meta"]["request_id"]
    assert "canary" not in json.dumps(answer)
