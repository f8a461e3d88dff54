"""Executr's API over real connections: bodies that end early, large reports, and a client like Go's."""

import base64
import http.client
import json
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests import factories
from tests.web_processes import WebProcess

pytestmark = pytest.mark.django_db(transaction=True)
BASE = "/executr/api/v1"
JOB = {
    "type": "render",
    "binary_url": "https://example.com/binary",
    "binary_sha256": "ab" * 32,
    "priority": "background",
}


class GoClient:
    """Sends what Go's client sends: HTTP Basic, a Content-Type also without a body, and no Accept header."""

    def __init__(self, web: WebProcess) -> None:
        self.web = web
        self.place = urlsplit(web.address)
        self.token = factories.token("acme", "SERVICES:ADMIN")

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self.place.hostname or "", self.place.port or 0, timeout=30)
        content = b"" if body is None else json.dumps(body).encode()
        connection.putrequest(method, BASE + path, skip_accept_encoding=True)
        for name, value in self.headers(len(content)).items():
            connection.putheader(name, value)
        connection.endheaders(content)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text) if text else None

    def headers(self, length: int) -> dict[str, str]:
        basic = base64.b64encode(f"any:{self.token}".encode()).decode()
        return {"Authorization": f"Basic {basic}", "Content-Type": "application/json", "Content-Length": str(length)}

    def claimed(self) -> str:
        assert self.ask("POST", "/jobs", JOB)[0] == 201
        status, job = self.ask("POST", "/jobs/claim", {"executor_id": "e1", "executor_ip": "unknown"})
        assert status == 200
        return str(job["id"])


@pytest.fixture
def go(web_process: WebProcess) -> GoClient:
    return GoClient(web_process)


def test_a_body_that_ends_early_changes_nothing(go: GoClient) -> None:
    job_id = go.claimed()
    content = json.dumps({"executor_id": "e1", "stdout": "x" * 1_000}).encode()
    lines = [f"{name}: {value}" for name, value in go.headers(len(content)).items()]
    head = "\r\n".join([f"PUT {BASE}/jobs/{job_id}/complete HTTP/1.1", f"Host: {go.place.netloc}", *lines, "", ""])
    for sent in (content[:-5], b""):
        with socket.create_connection((go.place.hostname, go.place.port), timeout=30) as connection:
            connection.sendall(head.encode() + sent)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1_000)
    assert go.ask("GET", f"/jobs/{job_id}")[1]["status"] == "running"
    assert "Traceback" not in go.web.log.read_text()


def test_a_large_report_is_taken_and_answered_with_204(go: GoClient) -> None:
    job_id = go.claimed()
    body = {"executor_id": "e1", "stdout": "\u0000é" * 1_000_000, "stderr": "x" * 2_000_000, "exit_code": 0}
    assert go.ask("PUT", f"/jobs/{job_id}/heartbeat", {"executor_id": "e1"}) == (204, None)
    assert go.ask("PUT", f"/jobs/{job_id}/complete", body) == (204, None)
    status, shown = go.ask("GET", f"/jobs/{job_id}")
    assert (status, shown["status"], shown["exit_code"]) == (200, "completed", 0)
    assert len(shown["stdout"].encode()) <= 1_048_576


def test_a_body_beyond_the_most_is_refused_before_it_is_sent(go: GoClient) -> None:
    connection = http.client.HTTPConnection(go.place.hostname or "", go.place.port or 0, timeout=30)
    connection.putrequest("PUT", f"{BASE}/jobs/x/complete")
    for name, value in go.headers(16 * 1024 * 1024 + 1).items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, set(json.loads(answer.read()))) == (413, {"error", "context"})
    connection.close()
