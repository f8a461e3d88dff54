"""Clients of Workspace's API, who sign in as people do."""

import json
from typing import Any

from django.test import Client

from agent_jobs.models import Membership, Org
from agent_jobs.tenants import orgs
from tests import rows

PASSWORD = "correct horse battery"


def person(username: str = "ann", org_id: str = "acme", role: str = "admin") -> Any:
    """A user of `create_user` in the organisation."""
    return orgs.create_user(rows.org(org_id), username=username, role=role, password=PASSWORD)[0]


def number(org_id: str = "acme") -> int:
    return Org.objects.get(pk=org_id).number


class Workspace:
    """`asked("GET", "/jobs/{id}")` asks below the workspace of an organisation; `ask` takes whole paths."""

    def __init__(self, username: str = "ann", org_id: str = "acme", role: str = "admin") -> None:
        self.user = person(username, org_id, role)
        self.org_id = org_id
        self.number = number(org_id)
        self.client = Client(raise_request_exception=False)
        self.token = ""
        tokens = self.ask("POST", "/auth/login", {"username": username, "password": PASSWORD})
        self.token, self.refresh_token = tokens["access_token"], tokens["refresh_token"]

    def answer(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        content = b"" if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", **headers} if self.token else headers
        return self.client.generic(method, path, content, content_type="application/json", headers=headers)

    def ask(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        response = self.answer(method, path, body)
        assert response.status_code == status, (response.status_code, response.content)
        return response.json()

    def asked(self, method: str, path: str = "", body: Any = None, status: int = 200) -> Any:
        return self.ask(method, f"/workspace/{self.number}/jobs{path}", body, status)

    def made(self, **fields: Any) -> str:
        body = {"job_type": "data_processing", "workspace_id": self.number, **fields}
        return str(self.asked("POST", "", body, 201)["job_id"])

    def moved(self, job_id: str, status: str, **fields: Any) -> Any:
        return self.asked("PATCH", f"/{job_id}", {"status": status, **fields})

    def refused(self, method: str, path: str, body: Any = None, status: int = 422) -> str:
        """The text of an error, checked for the document's shape."""
        told = self.ask(method, path, body, status)
        assert isinstance(told["detail"], str)
        assert told["detail"]
        assert set(told) == ({"detail", "errors"} if status == 422 else {"detail"})
        for problem in told.get("errors", ()):
            assert set(problem) == {"loc", "msg", "type"}
        return str(told["detail"])


def membership(username: str, org_id: str, role: str = "admin") -> None:
    user = Membership.objects.filter(user__username=username).get().user
    Membership.objects.create(org=rows.org(org_id), user=user, role=role)
