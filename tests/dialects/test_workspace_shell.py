"""The shell blocks of Workspace's document, run by bash with curl and jq against the real service.

Only what a reader has to fill in is filled in: the base address, the login, and the ids of jobs that exist.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent_jobs.models import Org
from tests import rows
from tests.dialects.workspace_clients import PASSWORD, Workspace
from tests.waiting import PATIENCE
from tests.web_processes import WebProcess

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="needs curl and jq: apt install them"),
]
DOCUMENT = (Path(__file__).parent / "documents" / "workspace.md").read_text()
# Blocks that only list addresses, words or headers are no programs. The names are ours, in the document's order.
NAMES = (
    *("login", "token", "list", "filters", "create", "job", "status", "result", "update", "cancel", "retry", "legacy"),
    *("pipeline", "dashboard", "batch", "check", "errors", "isolation"),
)
_BLOCKS = re.findall(r"```bash\n(.*?)```", DOCUMENT, re.DOTALL)
PROGRAMS = dict(
    zip(NAMES, (text for text in _BLOCKS if re.search(r"^(curl|for|if|export|resp)", text, re.MULTILINE)), strict=True)
)


class Shell:
    """Runs blocks of the document in a folder of its own, signed in."""

    def __init__(self, address: str, folder: Path) -> None:
        self.address, self.folder = address, folder
        Org.objects.filter(pk=rows.org("acme").pk).update(number=1)  # the document's workspace
        self.ann = Workspace()
        self.environment = {**os.environ, "TOKEN": ""}
        (login,) = self.run("login")
        self.environment["TOKEN"] = login["access_token"]

    def text(self, block: str, before: str = "", **names: str) -> str:
        """The output of a block. `names` are put in the places of the document's."""
        program = PROGRAMS[block].partition("# Response will include")[0].replace("http://localhost:8000", self.address)
        program = program.replace("your_username", "ann").replace("your_password", PASSWORD)
        for name, value in names.items():
            program = program.replace(name, value)
        done = subprocess.run(
            ["bash", "-c", f"{before}\n{program}"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, block: str, **names: str) -> list[Any]:
        """The JSON documents that a block prints, one behind the other."""
        rest, found = self.text(block, **names).strip(), []
        while rest:
            value, end = json.JSONDecoder().raw_decode(rest)
            found.append(value)
            rest = rest[end:].strip()
        return found

    def job(self, *statuses: str) -> str:
        """A new job that was moved through these statuses."""
        job_id = self.ann.made(job_type="data_analysis")
        for status in statuses:
            self.ann.moved(job_id, status, result={"at": status})
        return job_id


@pytest.fixture
def shell(web_process: WebProcess, tmp_path: Path) -> Shell:
    return Shell(web_process.address, tmp_path)


def test_the_token_is_exported(shell: Shell) -> None:
    assert shell.text("token") == ""


def test_lists_and_filters(shell: Shell) -> None:
    job_id = shell.job("running")
    (listed,) = shell.run("list")
    assert job_id in [job["job_id"] for job in listed["data"]]
    filtered = shell.run("filters")
    assert [set(page) for page in filtered] == [{"data", "pagination"}] * 4
    assert {job["status"] for job in filtered[0]["data"]} == {"running"}
    assert filtered[1]["pagination"]["limit"] == 10
    assert [set(page) for page in shell.run("legacy")] == [{"data", "pagination"}] * 2


def test_a_job_is_created(shell: Shell) -> None:
    (made,) = shell.run("create")
    assert (made["status"], made["scheduled_at"]) == ("pending", "2024-01-15T15:00:00Z")


def test_one_job_is_shown_changed_and_acted_on(shell: Shell) -> None:
    job_id = shell.job()

    def run(block: str) -> Any:
        (shown,) = shell.run(block, job_abc123=job_id)
        assert shown["job_id"] == job_id
        return shown

    assert run("update")["result"]["rows_processed"] == 25000
    assert run("job")["status"] == "running"
    assert run("status")["progress_percent"] == 50
    assert run("result")["result"]["intermediate_data"] == "temp_results.json"
    assert run("cancel")["status"] == "cancelled"
    assert run("retry")["status"] == "pending"


def test_the_pipeline(shell: Shell) -> None:
    job_id = shell.job("running", "success")
    made, status, result = shell.run("pipeline", job_xyz789=job_id)
    assert (made["estimated_duration"], status["status"], result["result"]) == (1800, "success", {"at": "success"})


def test_the_dashboard(shell: Shell) -> None:
    job_id = shell.job("running")
    running, recent, urgent, canceled = shell.run("dashboard", job_abc123=job_id)
    assert job_id in [job["job_id"] for job in running["data"]]
    assert recent["pagination"]["limit"] == 10
    assert {job["priority"] for job in urgent["data"]} <= {"high", "urgent"}
    assert (canceled["job_id"], canceled["status"]) == (job_id, "cancelled")


def test_the_batch(shell: Shell) -> None:
    failed = shell.job("running", "failed")
    told = shell.run("batch")
    assert [job["job_type"] for job in told[:5]] == ["batch_analysis"] * 5
    assert told[5]["pagination"]["total"] == 5
    assert failed in [job["job_id"] for job in told[6:]]
    assert shell.ann.asked("GET", f"/{failed}")["status"] == "pending"


def test_the_status_code_is_checked(shell: Shell) -> None:
    assert shell.text("check").startswith("Success\n")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "Token expired, please login again"),
        (403, "No access to this workspace"),
        (404, "Job or workspace not found"),
        (422, "Invalid request data, check job parameters"),
    ],
)
def test_common_errors_are_told(shell: Shell, status: int, said: str) -> None:
    paths = {401: "1/jobs", 403: "999/jobs", 404: "1/jobs/none", 422: "1/jobs?page=0"}
    token = "wrong" if status == 401 else "$TOKEN"
    ask = f'response=$(curl -w "%{{http_code}}" -s -o response.json "{shell.address}/workspace/{paths[status]}"'
    lines = shell.text("errors", f'{ask} -H "Authorization: Bearer {token}")').splitlines()
    assert lines[0] == said
    if status == 422:
        assert isinstance(json.loads(lines[1]), str)


def test_jobs_are_isolated_by_workspace(shell: Shell) -> None:
    job_id = shell.job()
    shown, refused = shell.run("isolation", job_abc123=job_id)
    assert shown["job_id"] == job_id
    assert refused == {"detail": "Job not found in specified workspace"}
