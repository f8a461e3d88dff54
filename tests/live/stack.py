"""The real thing for tests: `manage.py up` with its processes, driven over HTTP as a client would."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import redis

from tests.waiting import PATIENCE, wait_for

ROOT = Path(__file__).resolve().parents[2]
# What a deployment would not shorten, and a test cannot wait for.
QUICK = {
    "DJANGO_SETTINGS_MODULE": "tests.quick_settings",
    "TEST_DELIVERY_GRACE_SECONDS": "4",
    "TEST_LEASE_SECONDS": "10",
}


def run_manage(environment: Mapping[str, str], *arguments: str, stdin: str = "", may_fail: bool = False) -> str:
    """The output of a `manage.py` command. It must succeed unless it `may_fail`; then its errors come last."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    if done.returncode == 0:
        return done.stdout
    assert may_fail, done.stderr
    return done.stdout + done.stderr


class Stack:
    """`manage.py up --no-demo` on a data folder of its own. The organisation is `acme`."""

    def __init__(self, data_dir: Path, **environment: str) -> None:
        self.data_dir = data_dir
        clean = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
        clean = {name: value for name, value in clean.items() if not name.startswith(("AGENT_JOBS_", "PYTEST"))}
        self.environment = {**clean, **QUICK, **environment, "AGENT_JOBS_DATA_DIR": str(data_dir)}
        self.log = data_dir.with_suffix(".log")
        with self.log.open("wb") as log:
            self.supervisor = subprocess.Popen(
                [sys.executable, "manage.py", "up", "--port", "0", "--data-dir", str(data_dir), "--no-demo"],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.token = ""

    def wait_ready(self) -> None:
        def is_ready() -> bool:
            assert self.supervisor.poll() is None, self.log.read_text()[-3000:]
            record = self.record()
            if not record.get("pid"):
                return False
            try:
                with urllib.request.urlopen(f"{record['web_url']}/health/ready", timeout=20) as answer:
                    return bool(answer.status == 200)
            except (urllib.error.URLError, OSError):
                return False

        try:
            wait_for(is_ready, what="the stack is ready")
        except AssertionError:
            raise AssertionError(self.log.read_text()[-3000:]) from None
        self.manage("create_org", "acme", "--name", "Acme")
        self.token = self.manage("create_token", "--org", "acme", "--scope", "SERVICES:WRITE", "--name", "live").strip()

    def record(self) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads((self.data_dir / "stack.json").read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return record

    @property
    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.record()["environment"]["REDIS_URL"])

    def stop(self) -> None:
        self.supervisor.send_signal(signal.SIGTERM)
        self.supervisor.wait(PATIENCE)

    def manage(self, *arguments: str, stdin: str = "", **environment: str) -> str:
        return run_manage({**self.environment, **environment}, *arguments, stdin=stdin)

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
        request = urllib.request.Request(
            f"{self.record()['web_url']}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json", **headers},
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def ok(self, method: str, path: str, body: Any = None, **headers: str) -> dict[str, Any]:
        status, answer = self.request(method, path, body, **headers)
        assert status < 300, (status, answer)
        return answer

    def post_job(self, job_type_id: str, *, query: str = "", channel: dict[str, Any], **fields: Any) -> str:
        answer = self.ok(
            "POST",
            f"/services/agent-jobs{query}",
            {"job_type_id": job_type_id, "target_channel": {"org_id": "acme", **channel}, **fields},
        )
        return str(answer["data"]["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        data: dict[str, Any] = self.ok("GET", f"/services/agent-jobs/{job_id}")["data"]
        return data

    def wait_status(self, job_id: str, *statuses: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["job_status"] in statuses else None

        try:
            return wait_for(look, what=f"{job_id} is {statuses}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {self.job(job_id)}") from None

    @contextmanager
    def paused(self, word: str) -> Iterator[None]:
        """Processes that stand still, none of them in the middle of a transaction: its locks would hold others up."""

        def pause() -> bool:
            self._signal(word, signal.SIGSTOP)
            if not self._is_in_transaction():
                return True
            self._signal(word, signal.SIGCONT)
            return False

        wait_for(pause, what="a moment between their transactions")
        try:
            yield
        finally:
            self._signal(word, signal.SIGCONT)

    def _signal(self, word: str, number: int) -> None:
        for pid in self.pids(word):
            os.kill(pid, number)

    def _is_in_transaction(self) -> bool:
        open_now = "SELECT FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() LIMIT 1"
        return self.sql(open_now) > 0

    def sql(self, statement: LiteralString) -> int:
        """How many rows the statement found or changed."""
        with psycopg.connect(self.record()["environment"]["DATABASE_URL"], autocommit=True) as connection:
            return connection.execute(statement).rowcount

    def pids(self, word: str) -> list[int]:
        """Processes of this stack whose command line has `word` in it."""
        pids = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                environment = (entry / "environ").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if word in command and f"AGENT_JOBS_DATA_DIR={self.data_dir}" in environment:
                pids.append(int(entry.name))
        return pids
