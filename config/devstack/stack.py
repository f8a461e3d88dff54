"""The processes of the development stack: how each starts, and the order of starting and stopping."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from config import embedded
from config.devstack.data_folder import DataFolder
from config.devstack.process_output import Printer
from config.devstack.supervisor import Process, Stopped, Supervisor
from config.embedded import CannotStart
from infra import commands

ROOT = Path(__file__).resolve().parents[2]
WORKERS = ("worker1", "worker2")
# First those that send work, then workers, then the web process, then the servers that all need.
STOP_ORDER = (("demo", "migrate", "beat"), WORKERS, ("web",), ("redis",), ("postgres",))
# Celery prints fifteen lines about the dangers of pickled messages; ours are JSON.
NOT_AS_ROOT = "ignore:You're running the worker with superuser privileges"


class Stack:
    def __init__(self, folder: DataFolder, *, port: int, with_demo: bool) -> None:
        self._folder = folder
        self._with_demo = with_demo
        self._port = port
        self._url = f"http://127.0.0.1:{port}"
        self._printer = Printer()
        self._supervisor = Supervisor(self._printer, note_pids=folder.note_processes)

    def run(self) -> int:
        self._supervisor.catch_signals()
        self._folder.stop_leftovers(self._printer.say)
        began = time.monotonic()
        self._printer.say(f"starting, with the data in {self._folder.path}")
        try:
            environment = self._start_servers()
            self._migrate(environment)
            self._start_service(environment)
            if self._with_demo:
                demo = self._python("demo", "-m", "config.demo", self._url, env=environment)
                self._supervisor.add(Process("demo", demo, is_kept=False))
            self._supervisor.wait_until(self._is_ready, "the service did not become ready")
            self._printer.say(f"ready after {time.monotonic() - began:.1f} s: {self._url} (Ctrl-C stops everything)")
            while True:
                self._supervisor.turn()
        except Stopped:
            return 0
        except CannotStart as error:
            self._printer.say(str(error))
            return 1
        finally:
            self._stop()

    def _start_servers(self) -> dict[str, str]:
        """Start servers that the environment does not name, write stack.json, and return our processes' environment."""
        database_url, redis_url = os.environ.get("DATABASE_URL"), os.environ.get("REDIS_URL")
        postgres = redis = None
        if not redis_url:
            redis = embedded.Redis(self._folder.path)
            redis.prepare()
            redis_url = redis.url()
            self._supervisor.add(Process("redis", _spawner(redis), redis.stop_signal))
        if not database_url:
            postgres = embedded.Postgres(self._folder.path)
            if not postgres.files.exists():
                self._printer.say(f"making a database in {postgres.files}")
            postgres.prepare()
            database_url = postgres.url("agent_jobs")
            # A killed PostgreSQL would have to recover at the next start.
            self._supervisor.add(Process("postgres", _spawner(postgres), postgres.stop_signal, is_hurried=False))
        if redis is not None:
            self._supervisor.wait_until(redis.is_ready, "Redis did not start", needs="redis")
        if postgres is not None:
            self._supervisor.wait_until(postgres.is_ready, "PostgreSQL did not start", needs="postgres")
            _make_database(postgres)
        environment = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, **self._folder.secrets()}
        self._folder.note_stack(environment, web_url=self._url, pid=os.getpid())
        # Only this machine reaches the web process.
        return environment | {
            "AGENT_JOBS_METRICS_TOKEN": os.environ.get("AGENT_JOBS_METRICS_TOKEN") or "metrics",
            "COMMAND_RUNNER": os.environ.get("COMMAND_RUNNER") or self._command_mode(),
        }

    def _command_mode(self) -> str:
        able = commands.probe(commands.Mode.SANDBOX)
        how = "in a sandbox" if able.ok else f"not at all: {able.reason}"
        self._printer.say(f"commands of jobs run {how}")
        return "sandbox" if able.ok else "off"

    def _migrate(self, environment: dict[str, str]) -> None:
        start = self._python("migrate", "manage.py", "migrate", "--no-input", "--verbosity", "0", env=environment)
        process = self._supervisor.add(Process("migrate", start, is_kept=False))
        self._supervisor.wait_until(lambda: process.exit_code is not None, "`manage.py migrate` did not end")
        if process.exit_code:
            raise CannotStart(f"`manage.py migrate` failed with exit code {process.exit_code}; see above")

    def _start_service(self, environment: dict[str, str]) -> None:
        web = ("-m", "config.serve", "--port", str(self._port))
        self._supervisor.add(Process("web", self._python("web", *web, env=environment)))
        celery = ("-m", "celery", "--app", "config.celery", "--quiet")
        pooled = environment | {
            "AGENT_JOBS_DATABASE_POOL": os.environ.get("AGENT_JOBS_DATABASE_POOL") or "16",
            # Less than the time after which the supervisor kills a process.
            "AGENT_JOBS_STOP_GRACE_SECONDS": os.environ.get("AGENT_JOBS_STOP_GRACE_SECONDS") or "8",
        }
        for name in WORKERS:
            threads = os.environ.get("AGENT_JOBS_WORKER_THREADS") or "32"
            options = ("--pool", "threads", "--concurrency", threads, "--loglevel", "WARNING")
            quiet = ("--without-gossip", "--without-mingle", "--hostname", f"{name}@%h")
            worker = self._python(name, *celery, "worker", *options, *quiet, env=pooled)
            self._supervisor.add(Process(name, worker))
        schedule = str(self._folder.path / "beat-schedule")
        beat = ("beat", "--schedule", schedule, "--pidfile", "", "--loglevel", "WARNING")
        self._supervisor.add(Process("beat", self._python("beat", *celery, *beat, env=environment)))

    def _python(self, name: str, *arguments: str, env: dict[str, str]) -> Callable[[], "subprocess.Popen[bytes]"]:
        """Start Python with the stack's environment."""

        def start() -> "subprocess.Popen[bytes]":
            return subprocess.Popen(
                [sys.executable, "-X", self._folder.mark, "-W", NOT_AS_ROOT, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=os.environ
                | env
                | {
                    "AGENT_JOBS_DATA_DIR": str(self._folder.path),
                    "PGAPPNAME": name,
                    "DJANGO_SETTINGS_MODULE": os.environ.get("DJANGO_SETTINGS_MODULE", "config.settings"),
                    "PYTHONUNBUFFERED": "1",
                },
                start_new_session=True,  # a Ctrl-C reaches this process alone, which then stops them in order
                preexec_fn=embedded.tied_to_parent(signal.SIGKILL),
            )

        return start

    def _is_ready(self) -> bool:
        self._supervisor.turn(seconds=0.2)  # asking twenty times a second would keep the web process busy
        return _answers_ok(f"{self._url}/health/ready")

    def _stop(self) -> None:
        self._supervisor.stop(STOP_ORDER)
        self._folder.forget_processes()
        if environment := self._folder.environment():
            self._folder.note_stack(environment, web_url=self._url, pid=None)
        self._printer.say("stopped")


def _spawner(server: embedded.Postgres | embedded.Redis) -> Callable[[], "subprocess.Popen[bytes]"]:
    return lambda: server.spawn(subprocess.PIPE)


def _make_database(postgres: embedded.Postgres) -> None:
    import psycopg  # here, so that `up --help` and earlier errors need no driver

    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'agent_jobs'").fetchone():
            connection.execute("CREATE DATABASE agent_jobs")


def _answers_ok(url: str) -> bool:
    # A proxy in the environment does not apply to this machine itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as answer:
            status: int = answer.status
            return status == 200
    except (OSError, urllib.error.URLError, ValueError):
        return False
