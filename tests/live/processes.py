"""Single processes of the service, on a database of their own: for tests that stop, kill or restore one of them.

`manage.py up` watches over its processes and starts them anew, which such tests cannot use. PostgreSQL and Redis are
the run's own; Celery's application may be one of the tests', with a model or runner that only they know.
"""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import redis

from config import embedded
from config.embedded import postgres_server
from tests.live.stack import ROOT, run_manage
from tests.waiting import PATIENCE, wait_for

QUICK = {
    "DJANGO_SETTINGS_MODULE": "tests.quick_settings",
    "TEST_LEASE_SECONDS": "20",
    "TEST_DELIVERY_GRACE_SECONDS": "3",
}


class Service:
    """The organisation is `acme`. Everything that was started ends with the `with` block.

    With `dump`, a file of pg_dump's, the database is that one, and `token` has to be set.
    """

    def __init__(
        self, folder: Path, app: str = "config.celery", *, dump: Path | None = None, **environment: str
    ) -> None:
        self.folder, self.app, self.dump = folder, app, dump
        self.database = f"live_{uuid4().hex[:12]}"
        self.server_url = os.environ["DATABASE_URL"]
        worker = os.environ.get("PYTEST_XDIST_WORKER", "gw7").removeprefix("gw")
        self.redis_url = embedded.redis_url_with_number(os.environ["REDIS_URL"], 8 + int(worker) % 8)
        self.environment = {
            **os.environ,
            **QUICK,
            "DATABASE_URL": self.url_of(self.database),
            "REDIS_URL": self.redis_url,
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        self.processes: list[subprocess.Popen[bytes]] = []
        self.port = embedded.free_port()
        self.token = ""

    def url_of(self, database: str) -> str:
        return urlunsplit(urlsplit(self.server_url)._replace(path=f"/{database}"))

    def __enter__(self) -> "Service":
        self.sql(f"CREATE DATABASE {self.database}", database="postgres")
        redis.Redis.from_url(self.redis_url).flushdb()
        if self.dump is not None:
            postgres_tool("pg_restore", "--no-owner", "--exit-on-error", "-d", self.url_of(self.database), self.dump)
            return self
        self.manage("migrate", "--no-input", "--verbosity", "0")
        self.manage("create_org", "acme", "--name", "Acme")
        self.token = self.manage("create_token", "--org", "acme", "--scope", "SERVICES:WRITE", "--name", "t").strip()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE)
        self.sql(f"DROP DATABASE {self.database} WITH (FORCE)", database="postgres")

    def sql(self, statement: str, *parameters: Any, database: str = "") -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url_of(database or self.database), autocommit=True) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def manage(self, *arguments: str, stdin: str = "", **environment: str) -> str:
        return run_manage({**self.environment, **environment}, *arguments, stdin=stdin)

    def spawn(self, name: str, *arguments: str, **environment: str) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env={**self.environment, "PGAPPNAME": name, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=embedded.tied_to_parent(signal.SIGKILL),
            )
        self.processes.append(process)
        return process

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def web(self, name: str = "web", **environment: str) -> "subprocess.Popen[bytes]":
        """Returns when it answers."""
        process = self.spawn(name, "-m", "config.serve", "--port", str(self.port), **environment)
        wait_for(lambda: self.answers(process, name), what="web answers")
        return process

    def worker(self, name: str = "worker", *, queues: str = "", **environment: str) -> "subprocess.Popen[bytes]":
        """Returns when it is registered. `queues`: only these, separated by commas."""
        options: tuple[str, ...] = ("--pool", "threads", "--concurrency", "32", "--loglevel", "WARNING")
        options += ("--queues", queues) if queues else ()
        quiet = ("--without-gossip", "--without-mingle", "--hostname", f"{name}@%h")
        pooled = {"AGENT_JOBS_DATABASE_POOL": "16", **environment}
        process = self.spawn(name, "-m", "celery", "--quiet", "-A", self.app, "worker", *options, *quiet, **pooled)

        def is_registered() -> bool:
            assert process.poll() is None, self.log(name)[-3000:]
            found = self.sql("SELECT 1 FROM agent_jobs_workerprocess WHERE name LIKE %s", f"{name}@%:{process.pid}")
            return bool(found)

        wait_for(is_registered, what=f"{name} is registered")
        return process

    def beat(self, name: str = "beat", **environment: str) -> "subprocess.Popen[bytes]":
        options = ("--schedule", str(self.folder / f"{name}-schedule"), "--pidfile", "", "--loglevel", "WARNING")
        return self.spawn(name, "-m", "celery", "--quiet", "-A", self.app, "beat", *options, **environment)

    def answers(self, process: "subprocess.Popen[bytes]", name: str) -> bool:
        assert process.poll() is None, self.log(name)[-3000:]
        try:
            return self.request("GET", "/health/live")[0] == 200
        except OSError:
            return False

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        timeout: float = PATIENCE,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/json",
                **(headers or {}),
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def text(self, path: str, *, port: int = 0, headers: Mapping[str, str]) -> str:
        request = urllib.request.Request(f"http://127.0.0.1:{port or self.port}{path}", headers=dict(headers))
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    def ok(self, method: str, path: str, body: Any = None, **options: Any) -> dict[str, Any]:
        status, answer = self.request(method, path, body, **options)
        assert status < 300, (status, answer)
        return answer

    def make_type(self, type_id: str, runner: str, prompt: str, **config: Any) -> None:
        body = {"id": type_id, "name": type_id, "runner": runner, "default_config": {"start_prompt": prompt, **config}}
        self.ok("POST", "/services/organizations/acme/agent-jobs-type", body)

    def post_job(self, type_id: str, *, channel: Mapping[str, Any] | None = None, **fields: Any) -> str:
        target = {"org_id": "acme", **(channel or {"platform": "web", "type": "channel", "code": "lobby"})}
        body = {"job_type_id": type_id, "target_channel": target, **fields}
        return str(self.ok("POST", "/services/agent-jobs", body)["data"]["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        names = "status, waiting_for, attempt, crash_count, lease_until, worker_id, result, error_code"
        (row,) = self.sql(f"SELECT {names} FROM agent_jobs_job WHERE id = %s", job_id)
        return dict(zip(names.split(", "), row, strict=True))

    def wait_job(self, job_id: str, **columns: Any) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if columns.items() <= job.items() else None

        return wait_for(look, what=f"{job_id} has {columns}")  # type: ignore[no-any-return]


def postgres_tool(name: str, *arguments: str | Path) -> None:
    """Runs one of PostgreSQL's own programs, of the version of its server."""
    done = subprocess.run(
        [postgres_server.binaries() / name, *arguments], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr


def stop(process: "subprocess.Popen[bytes]", *, seconds: float = PATIENCE) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(seconds)


def next_year() -> str:
    return (datetime.now(UTC) + timedelta(days=365)).isoformat()
