"""The real service under test, in processes that can be killed and behind links that can be harmed.

PostgreSQL, Redis, 2 webs, 3 workers and 2 beats as children of the harness, each the leader of its own process group,
with a log of its own; the tests' Slack in the harness itself. Between them stand proxies: `links` has `postgres` and
`redis` (all processes'), `slack-worker1` … (each worker's way to Slack) and `web1` … (the clients' way to each web).

    with Rig(home) as rig:
        rig.supervisor.kill("worker1")           # started again a moment later, as by any supervisor
        rig.links["postgres"].set(is_black_hole=True)
        with rig.database() as connection: ...   # past the proxies
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import psycopg
import redis

from config import embedded
from config.devstack import NOT_AS_ROOT
from tests.chaos.client import Client
from tests.chaos.proxy import Proxy
from tests.chaos.supervisor import Supervisor
from tests.fakes.slack import FakeSlack
from tests.live.stack import QUICK, ROOT, run_manage
from tests.waiting import PATIENCE, wait_for

ORG = "acme"
TEAM = "T0CHAOS"
_SIGNING_SECRET = "chaos-signing-secret"


class Rig:
    """`environment` is all processes'; its DJANGO_SETTINGS_MODULE may be one that registers runners of a test.

    With `disk_megabytes` the data folder of PostgreSQL is a file system of that size, mounted at `disk` (needs root).
    """

    def __init__(
        self,
        home: Path,
        *,
        seed: int = 0,
        webs: int = 2,
        workers: int = 3,
        beats: int = 2,
        environment: Mapping[str, str] | None = None,
        disk_megabytes: int = 0,
    ) -> None:
        self.home = home
        self.seed = seed
        self.webs = [f"web{number + 1}" for number in range(webs)]
        self.workers = [f"worker{number + 1}" for number in range(workers)]
        self.beats = [f"beat{number + 1}" for number in range(beats)]
        self.logs = home / "logs"
        self.logs.mkdir()
        self.slack = FakeSlack(team_id=TEAM, signing_secret=_SIGNING_SECRET, seed=seed)
        self.slack.event_seconds = 10.0
        self.links: dict[str, Proxy] = {}
        self.tokens: dict[str, str] = {}
        self._postgres_port = embedded.free_port()
        self.postgres = embedded.Postgres(home, tcp_port=self._postgres_port)
        self.redis_server = embedded.Redis(home)
        self._web_ports = {name: embedded.free_port() for name in self.webs}
        self.disk = home / "disk"
        self._disk_megabytes = disk_megabytes
        self.environment = {
            **_clean(os.environ),
            **QUICK,
            **(environment or {}),
            "AGENT_JOBS_DATA_DIR": str(home),
            "AGENT_JOBS_SECRET_KEY": secrets.token_urlsafe(48),
            "AGENT_JOBS_TOKEN_PEPPER": secrets.token_urlsafe(48),
            "AGENT_JOBS_SEALING_KEYS": f"k1:{base64.b64encode(secrets.token_bytes(32)).decode()}",
            "AGENT_JOBS_ALLOW_PRIVATE_ADDRESSES": "1",
            "AGENT_JOBS_WEB_PROCESSES": "1",
            "PYTHONUNBUFFERED": "1",
        }
        self.supervisor = Supervisor()

    # --- Life --------------------------------------------------------------------------------------------------
    def __enter__(self) -> Rig:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _start(self) -> None:
        self.slack.__enter__()
        for name, server in (("postgres", self.postgres), ("redis", self.redis_server)):
            server.prepare()
            if name == "postgres":
                with (self.postgres.files / "postgresql.auto.conf").open("a") as settings:
                    settings.write("track_commit_timestamp = on\n")  # for `recurring_rows`
                if self._disk_megabytes:
                    self._move_to_small_disk()
            self.supervisor.add(name, lambda name=name, server=server: server.spawn(self._log(name)))
        wait_for(self.postgres.is_ready, what="PostgreSQL answers")
        wait_for(self.redis_server.is_ready, what="Redis answers")
        with psycopg.connect(self.postgres.url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE agent_jobs")
        slack_port = urlsplit(self.slack.address).port
        redis_port = urlsplit(self.redis_server.url()).port
        assert slack_port is not None
        assert redis_port is not None
        targets = {"postgres": self._postgres_port, "redis": redis_port, **self._web_ports}
        targets |= {f"slack-{name}": slack_port for name in self.workers}
        for number, (name, port) in enumerate(targets.items()):
            self.links[name] = Proxy(("127.0.0.1", port), seed=self.seed + number)
        self.manage("migrate", "--no-input", "--verbosity", "0")
        self.add_org(ORG, name="Acme")
        for name in (*self.webs, *self.workers, *self.beats):
            self.supervisor.add(name, lambda name=name: self.spawn(name))
        self.wait_ready()

    def _stop(self) -> None:
        self.supervisor.close([("redis", signal.SIGTERM), ("postgres", signal.SIGINT)])
        for proxy in self.links.values():
            proxy.stop()
        self.slack.__exit__(None, None, None)
        if self.disk.is_mount():
            subprocess.run(["umount", str(self.disk)], check=True)

    def _move_to_small_disk(self) -> None:
        self.disk.mkdir(mode=0o711)
        size = f"size={self._disk_megabytes}m,mode=711"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(self.disk)], check=True)
        files = self.postgres.files
        subprocess.run(["cp", "-a", str(files), str(self.disk)], check=True)
        # The disk is small, and the logs of many changes would fill it.
        with (self.disk / files.name / "postgresql.auto.conf").open("a") as settings:
            settings.write("max_wal_size = '64MB'\nmin_wal_size = '32MB'\n")
        shutil.rmtree(files)
        files.symlink_to(self.disk / files.name)

    def wait_ready(self, *, seconds: float = PATIENCE) -> None:
        """Until every web says that the service does work."""
        client = Client([self._web_ports[name] for name in self.webs], "")
        try:
            for _ in self.webs:
                wait_for(
                    lambda: client.request("GET", "/health/ready").status == 200, seconds=seconds, what="it is ready"
                )
        except AssertionError:
            raise AssertionError(f"{client.request('GET', '/health/ready').body}; see {self.logs}") from None

    def mend(self) -> None:
        """No fault any more: links healed, what is stopped goes on, what is held down is started, Slack is kind."""
        for link in self.links.values():
            link.heal()
        for name in self.supervisor.names():
            self.supervisor.send(name, signal.SIGCONT)
            self.supervisor.release(name)
        self.slack.rates = {}
        self.slack.before_answer = None
        self.slack.history_lag = self.slack.history_interval = 0.0

    @property
    def web_ports(self) -> list[int]:
        """Addresses of the web processes themselves, without the proxies."""
        return list(self._web_ports.values())

    def answers(self, web: str) -> bool:
        """Whether this web itself answers, whatever it says."""
        return Client([self._web_ports[web]], "").request("GET", "/health/live").status is not None

    # --- Doors -------------------------------------------------------------------------------------------------
    def client(self, org: str = ORG, **options: Any) -> Client:
        return Client([self.links[name].port for name in self.webs], self.tokens[org], **options)

    def admin(self, org: str = ORG) -> Client:
        """A client with an ADMIN token."""
        token = self.manage("create_token", "--org", org, "--scope", "SERVICES:ADMIN", "--name", "chaos-admin").strip()
        return Client([self.links[name].port for name in self.webs], token)

    def database(self, **options: Any) -> psycopg.Connection[Any]:
        """A connection of the harness's own, past the proxies."""
        return psycopg.connect(self.postgres.url("agent_jobs"), autocommit=True, **options)

    def redis(self) -> redis.Redis:
        """A client of the harness's own, past the proxies."""
        return redis.Redis.from_url(self.redis_server.url(), socket_timeout=5)

    def manage(self, *arguments: str, stdin: str = "", may_fail: bool = False, **environment: str) -> str:
        return run_manage({**self._direct(), **environment}, *arguments, stdin=stdin, may_fail=may_fail)

    def add_org(self, org: str, *, name: str = "", team: str = TEAM) -> None:
        """An organisation with a WRITE token in `tokens`, speaking in the tests' Slack."""
        self.manage("create_org", org, "--name", name or org.title())
        scope = ("--scope", "SERVICES:WRITE", "--name", "chaos")
        self.tokens[org] = self.manage("create_token", "--org", org, *scope).strip()
        options = ("--team", team, "--bot-token-stdin", "--signing-secret-env", "CHAOS_SECRET")
        self.manage("install_slack", "--org", org, *options, stdin=self.slack.bot_token, CHAOS_SECRET=_SIGNING_SECRET)

    # --- Processes ---------------------------------------------------------------------------------------------
    def spawn(self, name: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start one of ours under its name, with what else its environment shall have (faketime, say).

        For `supervisor.add` and `supervisor.replace`, which call it in their own thread.
        """
        with self._log(name) as log:
            return subprocess.Popen(
                [sys.executable, "-W", NOT_AS_ROOT, *self._command(name)],
                cwd=ROOT,
                env={**self.environment, **self._addresses(name), "PGAPPNAME": name, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=embedded.tied_to_parent(signal.SIGKILL),
            )

    def _command(self, name: str) -> list[str]:
        if name in self.webs:
            return ["-m", "config.serve", "--port", str(self._web_ports[name])]
        celery = ["-m", "celery", "--app", "config.celery", "--quiet"]
        if name in self.workers:
            threads = self.environment.get("AGENT_JOBS_WORKER_THREADS", "32")
            options = ["--pool", "threads", "--concurrency", threads, "--loglevel", "WARNING"]
            return [*celery, "worker", *options, "--without-gossip", "--without-mingle", "--hostname", f"{name}@%h"]
        schedule = ["--schedule", str(self.home / f"{name}-schedule"), "--pidfile", ""]
        return [*celery, "beat", *schedule, "--loglevel", "WARNING"]

    def _direct(self) -> dict[str, str]:
        """The environment of a command: it goes past the proxies."""
        urls = {"DATABASE_URL": self.postgres.url("agent_jobs"), "REDIS_URL": self.redis_server.url()}
        return {**self.environment, **urls}

    def _addresses(self, name: str) -> dict[str, str]:
        """The addresses of the other processes, through the proxies."""
        kept = urlsplit(self.redis_server.url())
        through = f"{kept.netloc.rpartition(':')[0]}:{self.links['redis'].port}"
        # Without these libpq asks for encryption first, which is one round trip more than a socket of its own takes.
        plain = "sslmode=disable&gssencmode=disable"
        addresses = {
            "DATABASE_URL": f"postgresql://postgres@127.0.0.1:{self.links['postgres'].port}/agent_jobs?{plain}",
            "REDIS_URL": kept._replace(netloc=through).geturl(),
        }
        if name in self.workers:
            addresses["TEST_SLACK_API_URL"] = f"http://127.0.0.1:{self.links[f'slack-{name}'].port}/from/{name}/api/"
            addresses["AGENT_JOBS_DATABASE_POOL"] = "16"
        return addresses

    def _log(self, name: str) -> Any:
        return (self.logs / f"{name}.log").open("ab")


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name not in ("DATABASE_URL", "REDIS_URL") and not name.startswith(("AGENT_JOBS_", "PYTEST"))
    }
