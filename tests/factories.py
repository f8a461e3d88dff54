"""Small helpers to make organisations, tokens and clients. `acme` is ours and `rival` is the stranger."""

import json
from functools import partial
from typing import Any

from django.test import Client

from agent_jobs.models import Activity, Job, Org
from agent_jobs.tenants import app_tokens
from tests import open_answers, rows

PROMPT = "Hello {{ name }}"


def org(org_id: str = "acme") -> Org:
    return rows.org(org_id)


def token(org_id: str = "acme", *scopes: str, **options: Any) -> str:
    return app_tokens.issue(org(org_id), name="test", scopes=scopes or ("SERVICES:WRITE",), **options)[1]


class Api:
    """A client that speaks as one token: `Api(token).post("/services/agent-jobs", body)`."""

    def __init__(self, plain_token: str | None) -> None:
        self.client = Client(raise_request_exception=False)
        self.headers = {"Authorization": f"Bearer {plain_token}"} if plain_token else {}

    def get(self, path: str, query: dict[str, Any] | None = None, **headers: str) -> Any:
        """A request that waits is answered when its wait is over, as the web process does it."""
        return open_answers.answered(partial(self.client.get, path, query, headers=self._headers(headers)))

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.send("POST", path, body, **headers)

    def put(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.send("PUT", path, body, **headers)

    def patch(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.send("PATCH", path, body, **headers)

    def delete(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.send("DELETE", path, body, **headers)

    def send(self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str) -> Any:
        content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        kind = headers.pop("content_type", "application/json")
        sent: dict[str, Any] = {"content_type": kind, "headers": self._headers(headers)}
        return open_answers.answered(partial(self.client.generic, method, path, content, **sent))

    def _headers(self, headers: dict[str, str]) -> dict[str, str]:
        return self.headers | {name.replace("_", "-"): value for name, value in headers.items()}


def api(org_id: str = "acme", *scopes: str) -> Api:
    return Api(token(org_id, *scopes))


def job_request(org_id: str = "acme", **fields: Any) -> dict[str, Any]:
    """The smallest body of a POST that makes a job of `rows.job_type()` in a web chat."""
    body = {
        "target_channel": {"org_id": org_id, "platform": "web", "code": "lobby"},
        "job_type_id": "greet",
        "params": {"name": "Ann"},
    }
    return body | fields


def activity(job: Job, code: str = "job.created", note: str = "", **columns: Any) -> Activity:
    row = Activity(org_id=job.org_id, job=job, code=code, note=note, **columns)
    row.save(force_insert=True)
    row.refresh_from_db()
    return row


def fields_of(response: Any) -> list[str]:
    return [error["field"] for error in response.json()["errors"]]
