"""The programs of the four upstreams, as far as they look at answers: they send, test and decode what those do.

Each is thin on purpose. What it asserts is what makes the real program fail, crash or show nonsense.
"""

import base64
import json
import math
from functools import partial
from typing import Any

from django.test import Client

from tests import open_answers
from tests.dialects.go_json import ANY, BOOL, FLOAT, ID, INT, OPTIONAL_INT, OPTIONAL_TIME, TEXT, TIME, Map, decode

EXECUTR_JOB = {
    "id": ID,
    "type": TEXT,
    "binary_url": TEXT,
    "binary_sha256": TEXT,
    "arguments": [TEXT],
    "env_variables": Map(TEXT),
    "priority": TEXT,
    "status": TEXT,
    "executor_id": TEXT,
    "stdout": TEXT,
    "stderr": TEXT,
    "exit_code": OPTIONAL_INT,
    "error_message": TEXT,
    "created_at": TIME,
    "started_at": OPTIONAL_TIME,
    "completed_at": OPTIONAL_TIME,
    "last_heartbeat": OPTIONAL_TIME,
}


class GoProgram:
    """Go's client: HTTP Basic from its address, a Content-Type also without a body, never an Accept header."""

    def __init__(self, token: str, mount: str, user: str = "") -> None:
        self.mount = mount
        self.basic = base64.b64encode(f"{user}:{token}".encode()).decode()

    def send(self, method: str, path: str, body: Any = None) -> Any:
        content = b"" if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Basic {self.basic}", "User-Agent": "Go-http-client/1.1"}
        ask = partial(Client(raise_request_exception=False).generic, method, f"{self.mount}{path}", content)
        answer = open_answers.answered(partial(ask, content_type="application/json", headers=headers))
        assert not 300 <= answer.status_code < 400, "Go follows a redirect with a GET"
        return answer


# --- Executr ---------------------------------------------------------------------------------------------------
class ExecutrRefused(Exception):
    pass


class ExecutrProgram(GoProgram):
    """Executr's client: each call accepts the statuses of upstream's server only."""

    def _call(self, method: str, path: str, body: Any = None, *, takes: tuple[int, ...], shape: Any = None) -> Any:
        answer = self.send(method, path, body)
        if answer.status_code not in takes:
            told = decode(json.loads(answer.content), {"error": TEXT, "context": Map(ANY)})
            assert told["error"], "an error without a text is shown as nothing"
            raise ExecutrRefused(f"{answer.status_code} {told['error']}")
        if answer.status_code == 204:
            assert answer.content == b""
            return None
        return decode(json.loads(answer.content), shape)

    def health(self) -> Any:
        return self._call("GET", "/health", takes=(200,), shape={"status": TEXT, "database": TEXT})

    def submit(self, **fields: Any) -> Any:
        """Leaves out what is empty or 0."""
        return self._call("POST", "/jobs", fields, takes=(201,), shape=EXECUTR_JOB)["id"]

    def job(self, job_id: Any) -> Any:
        return self._call("GET", f"/jobs/{job_id}", takes=(200,), shape=EXECUTR_JOB)

    def jobs(self, query: str = "") -> Any:
        return self._call("GET", f"/jobs{query}", takes=(200,), shape=[EXECUTR_JOB])

    def cancel(self, job_id: Any) -> None:
        self._call("DELETE", f"/jobs/{job_id}", takes=(204,))

    def claim(self, executor_id: str) -> Any:
        """A job; None if there is none. A job without an id would be taken for the zero UUID."""
        body = {"executor_id": executor_id, "executor_ip": "unknown"}
        job = self._call("POST", "/jobs/claim", body, takes=(200, 204), shape=EXECUTR_JOB)
        assert job is None or job["id"].int
        return job

    def heartbeat(self, job_id: Any, executor_id: str) -> None:
        self._call("PUT", f"/jobs/{job_id}/heartbeat", {"executor_id": executor_id}, takes=(204,))

    def complete(self, job_id: Any, executor_id: str, stdout: str) -> None:
        body = {"executor_id": executor_id, "stdout": stdout, "stderr": "", "exit_code": 0}
        self._call("PUT", f"/jobs/{job_id}/complete", body, takes=(204,))

    def fail(self, job_id: Any, executor_id: str, **fields: Any) -> None:
        """Leaves out an exit code of 0, and outputs that are empty."""
        body = {"executor_id": executor_id, "error_message": "job failed", **fields}
        self._call("PUT", f"/jobs/{job_id}/fail", body, takes=(204,))


# --- Chronos ---------------------------------------------------------------------------------------------------
class ChronosRefused(Exception):
    pass


class Chronosctl(GoProgram):
    """Chronos' command line. It ignores the status, and takes parts of the answer for granted."""

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        told = json.loads(self.send(method, path, body).content)
        assert isinstance(told, dict), "failed to decode response"
        if told.get("success") is not True:
            error = told.get("error")
            raise ChronosRefused(f"{error['code']}: {error['message']}" if error else "request failed")
        return told.get("data")

    @staticmethod
    def _rows(data: Any, name: str) -> list[dict[str, Any]]:
        assert isinstance(data[name], list), "a null list crashes it"
        for row in data[name]:
            assert isinstance(row["id"], str), "a number crashes it"
        return list(data[name])

    def jobs(self) -> list[str]:
        """The lines of `job list`."""
        lines = []
        for job in self._rows(self._call("GET", "/jobs"), "jobs"):
            assert isinstance(job["enabled"], bool)
            assert job.get("next_run") is None or isinstance(job["next_run"], str)
            lines.append(f"{job['id'][:8]} {_text(job['name'])} {_text(job['schedule'])} {job['enabled']}")
        return lines

    def job(self, job_id: str) -> str:
        job = self._call("GET", f"/jobs/{job_id}")
        return " ".join(_text(job[key]) for key in ("id", "name", "description", "schedule", "timezone"))

    def create(self, file: Any) -> str:
        made = self._call("POST", "/jobs", file)
        assert _text(made["name"])
        return _text(made["id"])

    def trigger(self, job_id: str) -> tuple[str, str]:
        ran = self._call("POST", f"/jobs/{job_id}/trigger")
        return _text(ran["id"]), _text(ran["status"])

    def act(self, method: str, path: str) -> None:
        """delete, enable, disable: looks at `success` alone, so an empty body fails."""
        self._call(method, path)

    def executions(self, job_id: str) -> list[str]:
        lines = []
        for one in self._rows(self._call("GET", f"/jobs/{job_id}/executions?limit=20"), "executions"):
            decode(one, {"started_at": TIME})
            assert isinstance(one["started_at"], str)
            seconds = one["duration"] / 1e9 if isinstance(one.get("duration"), int) else "-"
            lines.append(f"{one['id'][:8]} {_text(one['status'])} {_number(one['attempts'])} {seconds}")
        return lines

    def cluster(self) -> str:
        status = self._call("GET", "/cluster/status")
        assert isinstance(status["is_leader"], bool)
        return f"{_number(status['jobs_total'])} {_number(status['running'])}"


def _text(value: Any) -> str:
    assert isinstance(value, str), "anything else is shown as %!s(…)"
    return value


def _number(value: Any) -> int:
    assert type(value) is int, "anything else is shown as garbage"
    return int(value)


CHRONOS_JOB = {
    "id": TEXT,
    "name": TEXT,
    "description": TEXT,
    "schedule": TEXT,
    "timezone": TEXT,
    "webhook": {
        "url": TEXT,
        "method": TEXT,
        "headers": Map(TEXT),
        "body": TEXT,
        "auth": {"type": TEXT},
        "success_codes": [INT],
    },
    "retry_policy": {"max_attempts": INT, "initial_interval": TEXT, "max_interval": TEXT, "multiplier": FLOAT},
    "timeout": TEXT,
    "concurrency": TEXT,
    "tags": Map(TEXT),
    "enabled": BOOL,
    "created_at": TIME,
    "updated_at": TIME,
    "next_run": OPTIONAL_TIME,
    "version": INT,
}
CHRONOS_EXECUTION = {
    "id": TEXT,
    "job_id": TEXT,
    "job_name": TEXT,
    "scheduled_time": TIME,
    "started_at": TIME,
    "completed_at": OPTIONAL_TIME,
    "status": TEXT,
    "attempts": INT,
    "status_code": OPTIONAL_INT,
    "response": TEXT,
    "error": TEXT,
    "duration": INT,
    "node_id": TEXT,
}


class ChronosPage:
    """Chronos' web client: axios, at the page's own origin."""

    # The form that edits a job sends these keys only.
    FORM = ("name", "description", "schedule", "timezone", "retry_policy", "timeout", "concurrency", "enabled")

    def __init__(self, token: str, mount: str) -> None:
        self.headers = {"Authorization": f"Bearer {token}", "Accept": "application/json, text/plain, */*"}
        self.mount = mount

    def call(self, method: str, path: str, body: Any = None, *, needs_data: bool = True) -> Any:
        content = b"" if body is None else json.dumps(body).encode()
        ask = partial(Client(raise_request_exception=False).generic, method, f"{self.mount}{path}", content)
        answer = open_answers.answered(partial(ask, content_type="application/json", headers=self.headers))
        assert 200 <= answer.status_code < 300, (answer.status_code, answer.content)
        told = answer.json()
        assert told["success"] is True
        assert told["data"] or not needs_data
        return told["data"]

    def job(self, job_id: str) -> Any:
        shown = self.call("GET", f"/jobs/{job_id}")
        decode(shown, CHRONOS_JOB)
        assert shown["webhook"]["url"], "the page reads it unguarded"
        assert shown["timeout"]
        assert all(isinstance(shown["retry_policy"][key], str) for key in ("initial_interval", "max_interval"))
        return shown

    def edit(self, job_id: str, **changes: Any) -> Any:
        """Reads the job, and puts back what the form knows of it."""
        shown = self.job(job_id)
        webhook = {key: shown["webhook"].get(key) for key in ("url", "method", "headers", "body")}
        form = {key: shown[key] for key in self.FORM}
        return self.call("PUT", f"/jobs/{job_id}", {**form, "webhook": webhook, **changes})

    def executions(self, job_id: str) -> Any:
        found = self.call("GET", f"/jobs/{job_id}/executions")["executions"]
        for one in found:
            decode(one, CHRONOS_EXECUTION)
            assert one["started_at"], "the page formats it as a date"
            assert math.isfinite(one.get("duration", 0) / 1e9)
        return found


# --- Chadburn --------------------------------------------------------------------------------------------------
CHADBURN_LISTED = {
    "id": TEXT,
    "name": TEXT,
    "schedule": TEXT,
    "command": TEXT,
    "status": TEXT,
    "tags": [TEXT],
    "created_at": TIME,
    "updated_at": TIME,
}
CHADBURN_JOB = {
    **CHADBURN_LISTED,
    "timeout": INT,
    "retries": INT,
    "retry_delay": INT,
    "environment": Map(TEXT),
    "working_directory": TEXT,
    "next_run": OPTIONAL_TIME,
}
CHADBURN_EXECUTION = {
    "id": TEXT,
    "job_id": TEXT,
    "status": TEXT,
    "started_at": TIME,
    "finished_at": OPTIONAL_TIME,
    "duration": OPTIONAL_INT,
    "exit_code": OPTIONAL_INT,
    "output": TEXT,
    "error": TEXT,
    "retry_count": INT,
}


class ChadburnPage:
    """The Python client of Chadburn's page: `requests` with X-API-Key, 201 for a create and 200 for all else."""

    def __init__(self, token: str, mount: str) -> None:
        self.mount = mount
        self.headers = {"X-API-Key": token, "Accept": "*/*", "User-Agent": "python-requests/2.31"}

    def call(self, method: str, path: str, body: Any = None, *, shape: Any = None) -> Any:
        """The `data` of the answer, decoded."""
        sent: dict[str, Any] = {"headers": self.headers}
        if body is not None:
            sent |= {"data": json.dumps(body).encode(), "content_type": "application/json"}
        else:
            sent |= {"content_type": ""}
        answer: Any = Client(raise_request_exception=False).generic(method, f"{self.mount}{path}", **sent)
        expected = 201 if (method, path) == ("POST", "/jobs") else 200
        assert answer.status_code == expected, (answer.status_code, answer.content)
        told = answer.json()
        if isinstance(told["data"], list):
            decode(told["pagination"], {"total": INT, "limit": INT, "offset": INT})
        decode(told["data"], shape or {"message": TEXT})
        return told["data"]
