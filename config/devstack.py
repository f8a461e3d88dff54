"""`manage.py up`: PostgreSQL, Redis, web, two workers and beat in one terminal, started, watched and stopped together.

Here: the order of starting and stopping, restarts, the printed lines, the data folder and its `stack.json`. The
servers themselves are `config.embedded`, the demo is `config.demo`. No Django is loaded in this process, so that it
stays small and has one thread: Linux ends a child (`tied_to_parent`) with the very thread that started it.

On macOS, which has no such tie, a kill -9 of this process leaves the others running until the next `up` on the same
data folder: that one finds them by `processes.json`, PostgreSQL's pid file and Redis' record, and stops them first.
"""

import argparse
import base64
import contextlib
import errno
import fcntl
import json
import os
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from config import embedded
from config.embedded import CannotStart, processes

ROOT = Path(__file__).resolve().parent.parent
QUEUES = "agents,messages,deliveries,inbound,duties"
WORKERS = ("worker1", "worker2")
# Fifteen lines of Celery's, about dangers that pickled messages have; ours are JSON.
NOT_AS_ROOT = "ignore:You're running the worker with superuser privileges"
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
STEADY_SECONDS = 30.0  # a process that ran for so long starts again at once when it ends
START_SECONDS = 60.0
# What Redis says at every start, and nobody here can use: it is given nothing to save.
NOISE = ("Memory overcommit must be enabled", "Reading config from stdin")
COLOURS = {"postgres": 34, "redis": 31, "web": 32, "worker1": 36, "worker2": 96, "beat": 35, "up": 33}


def main(arguments: list[str]) -> int:
    options = _parse(arguments)
    data_dir = Path(options.data_dir).resolve()
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with _only_one(data_dir):
            return _Stack(data_dir, port=options.port, with_demo=not options.no_demo).run()
    except CannotStart as error:
        print(f"manage.py up: {error}", file=sys.stderr)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EROFS, errno.EEXIST, errno.ENOTDIR):
            raise
        print(f"manage.py up: {error.filename or data_dir}: {os.strerror(error.errno)}", file=sys.stderr)
    return 1


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="manage.py up",
        description="Run the whole service in this terminal: PostgreSQL, Redis, web, two workers and beat. "
        "DATABASE_URL and REDIS_URL, where set, are used instead of servers of its own.",
        epilog="Lines without a prefix are the demo's, and for you. Ctrl-C stops everything.",
    )
    parser.add_argument("--port", type=_port, default=8000, help="of the web process, 8000; 0 takes a free one")
    parser.add_argument(
        "--data-dir",
        default=os.environ.get("AGENT_JOBS_DATA_DIR") or ROOT / ".dev",
        help="where databases and secrets are kept; AGENT_JOBS_DATA_DIR, else .dev beside manage.py",
    )
    parser.add_argument("--no-demo", action="store_true", help="make no organisation and no job")
    return parser.parse_args(arguments)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


@contextlib.contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    """Hold the folder for as long as this process lives; the kernel lets go of it even after a kill -9."""
    lock = os.open(data_dir / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stack = _read_json(data_dir / "stack.json")
        raise CannotStart(
            f"it runs already on {data_dir} (process {stack.get('pid')}, {stack.get('web_url')}): "
            "stop that one, or give another --data-dir and --port"
        ) from None
    try:
        yield
    finally:
        os.close(lock)


@dataclass
class _Process:
    """One of our processes: how it is started and what became of it."""

    name: str
    start: Callable[[], "subprocess.Popen[bytes]"]
    stop_signal: signal.Signals = signal.SIGTERM
    is_kept: bool = True  # started again when it ends
    running: "subprocess.Popen[bytes] | None" = None
    exit_code: int | None = None
    started_at: float = 0.0
    pause: float = FIRST_PAUSE
    restart_at: float | None = None
    unfinished_line: bytes = field(default=b"", repr=False)


class _Stopped(Exception):
    """Somebody asked us to stop."""


class _Stack:
    def __init__(self, data_dir: Path, *, port: int, with_demo: bool) -> None:
        self._data_dir = data_dir
        self._with_demo = with_demo
        self._port = _claim_port(port)
        self._url = f"http://127.0.0.1:{self._port}"
        self._processes: dict[str, _Process] = {}
        self._selector = selectors.DefaultSelector()
        self._stop_requests = 0
        self._is_stopping = False
        self._has_colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def run(self) -> int:
        self._catch_signals()
        _stop_leftovers(self._data_dir)
        began = time.monotonic()
        try:
            environment = self._start_servers()
            self._run_once("migrate", "manage.py", "migrate", "--no-input", "--verbosity", "0", environment=environment)
            self._start_service(environment)
            if self._with_demo:
                self._add(
                    _Process(
                        "demo", self._python("demo", "-m", "config.demo", self._url, env=environment), is_kept=False
                    )
                )
            self._until(self._is_ready, "the service did not become ready")
            self._say(f"ready after {time.monotonic() - began:.1f} s: {self._url} (Ctrl-C stops everything)")
            while True:
                self._turn()
        except _Stopped:
            return 0
        except CannotStart as error:
            self._say(str(error))
            return 1
        finally:
            self._stop()

    # --- Starting ---
    def _start_servers(self) -> dict[str, str]:
        """Start what the environment does not name, write stack.json, and return what our processes shall see."""
        database_url, redis_url = os.environ.get("DATABASE_URL"), os.environ.get("REDIS_URL")
        postgres = redis = None
        if not redis_url:
            redis = embedded.Redis(self._data_dir)
            redis.prepare()
            redis_url = redis.url()
            self._add(_Process("redis", _spawner(redis), redis.stop_signal))
        if not database_url:
            postgres = embedded.Postgres(self._data_dir)
            if not postgres.files.exists():
                self._say(f"making a database in {postgres.files}")
            postgres.prepare()
            database_url = postgres.url("agent_jobs")
            self._add(_Process("postgres", _spawner(postgres), postgres.stop_signal))
        if redis is not None:
            self._until(redis.is_ready, "Redis did not start", needs="redis")
        if postgres is not None:
            self._until(postgres.is_ready, "PostgreSQL did not start", needs="postgres")
            _make_database(postgres)
        environment = {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            **_kept_secrets(_read_json(self._data_dir / "stack.json").get("environment", {})),
        }
        self._write_stack(environment, pid=os.getpid())
        # Nobody but this machine reaches the web process.
        return environment | {"AGENT_JOBS_METRICS_OPEN": os.environ.get("AGENT_JOBS_METRICS_OPEN") or "1"}

    def _write_stack(self, environment: dict[str, str], *, pid: int | None) -> None:
        stack = {"environment": environment, "web_url": self._url, "pid": pid}
        embedded.write_private(self._data_dir / "stack.json", json.dumps(stack, indent=2))

    def _start_service(self, environment: dict[str, str]) -> None:
        web = ("-m", "gunicorn", "--config", "config/gunicorn.py", "--bind", f"127.0.0.1:{self._port}")
        self._add(_Process("web", self._python("web", *web, env=environment)))
        celery = ("-m", "celery", "--quiet", "--app", "config.celery")
        pooled = environment | {
            "AGENT_JOBS_DATABASE_POOL": os.environ.get("AGENT_JOBS_DATABASE_POOL") or "16",
            # Less than the time after which a process that does not end is killed.
            "AGENT_JOBS_STOP_GRACE_SECONDS": os.environ.get("AGENT_JOBS_STOP_GRACE_SECONDS") or "8",
        }
        for name in WORKERS:
            threads = os.environ.get("AGENT_JOBS_WORKER_THREADS") or "16"
            options = ("--pool", "threads", "--concurrency", threads, "--queues", QUEUES, "--loglevel", "WARNING")
            quiet = ("--without-gossip", "--without-mingle", "--hostname", f"{name}@%h")
            self._add(_Process(name, self._python(name, *celery, "worker", *options, *quiet, env=pooled)))
        beat = ("beat", "--schedule", str(self._data_dir / "beat-schedule"), "--pidfile", "", "--loglevel", "WARNING")
        self._add(_Process("beat", self._python("beat", *celery, *beat, env=environment)))

    def _python(self, name: str, *arguments: str, env: dict[str, str]) -> Callable[[], "subprocess.Popen[bytes]"]:
        """Starts Python with the stack's environment. The -X option does nothing but mark the process as ours."""

        def start() -> "subprocess.Popen[bytes]":
            return subprocess.Popen(
                [sys.executable, "-X", _mark(self._data_dir), "-W", NOT_AS_ROOT, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=os.environ
                | env
                | {
                    "AGENT_JOBS_DATA_DIR": str(self._data_dir),
                    "AGENT_JOBS_PROCESS": name,
                    "DJANGO_SETTINGS_MODULE": "config.settings",
                    "PYTHONUNBUFFERED": "1",
                },
                start_new_session=True,  # a Ctrl-C reaches this process alone, which then stops them in order
                preexec_fn=embedded.tied_to_parent(signal.SIGKILL),
            )

        return start

    def _run_once(self, name: str, *arguments: str, environment: dict[str, str]) -> None:
        process = self._add(_Process(name, self._python(name, *arguments, env=environment), is_kept=False))
        self._until(lambda: process.exit_code is not None, f"`{' '.join(arguments)}` did not end")
        if process.exit_code:
            raise CannotStart(f"`{' '.join(arguments)}` failed with exit code {process.exit_code}; see above")

    def _is_ready(self) -> bool:
        self._turn(seconds=0.2)  # asked twenty times a second, the web process would have little else to do
        return _answers_ok(f"{self._url}/health/ready")

    # --- Running ---
    def _until(self, condition: Callable[[], bool], complaint: str, *, needs: str | None = None) -> None:
        """Turn until the condition holds; CannotStart after a minute, or once the process it needs has ended."""
        give_up_at = time.monotonic() + START_SECONDS
        while not condition():
            if needs is not None and self._processes[needs].running is None:
                raise CannotStart(f"{complaint}; see the lines of {needs} above")
            if time.monotonic() > give_up_at:
                raise CannotStart(f"{complaint} within {START_SECONDS:g} s; see above")
            self._turn(seconds=0.05)

    def _add(self, process: _Process) -> _Process:
        self._processes[process.name] = process
        self._launch(process)
        return process

    def _launch(self, process: _Process) -> None:
        process.restart_at = None
        process.exit_code = None
        process.started_at = time.monotonic()
        try:
            process.running = process.start()
        except OSError as error:
            raise CannotStart(f"{process.name} cannot be started: {error}") from None
        assert process.running.stdout is not None
        os.set_blocking(process.running.stdout.fileno(), False)
        self._selector.register(process.running.stdout, selectors.EVENT_READ, process)
        pids = {name: each.running.pid for name, each in self._processes.items() if each.running}
        embedded.write_private(self._data_dir / "processes.json", json.dumps(pids))

    def _turn(self, seconds: float = 0.25) -> None:
        """Print what the processes said, notice which ended, start again which are due. Raises _Stopped once."""
        for key, _ in self._selector.select(seconds):
            if isinstance(key.data, _Process):
                self._print_output(key.data, key.fileobj)  # type: ignore[arg-type]  # registered as a pipe above
            else:
                key.data()
        for process in list(self._processes.values()):
            if process.running is not None and process.running.poll() is not None:
                self._note_end(process)
            if process.restart_at is not None and time.monotonic() >= process.restart_at and not self._is_stopping:
                self._launch(process)
        if self._stop_requests and not self._is_stopping:
            raise _Stopped

    def _note_end(self, process: _Process) -> None:
        assert process.running is not None
        pipe = process.running.stdout
        assert pipe is not None
        self._print_output(process, pipe)
        with contextlib.suppress(KeyError):  # a pipe that was read to its end has gone already
            self._selector.unregister(pipe)
        pipe.close()
        process.exit_code, process.running = process.running.returncode, None
        if self._is_stopping:
            return
        ending = f"signal {-process.exit_code}" if process.exit_code < 0 else f"exit code {process.exit_code}"
        if process.is_kept:
            if time.monotonic() - process.started_at > STEADY_SECONDS:
                process.pause = FIRST_PAUSE
            process.restart_at = time.monotonic() + process.pause
            self._say(f"{process.name} ended ({ending}); starting it again in {process.pause:g} s")
            process.pause = min(process.pause * 2, LONGEST_PAUSE)
        elif process.name == "demo" and process.exit_code:
            self._say(f"the demo did not come to its end ({ending}; see above); the service goes on")

    # --- Stopping ---
    def _stop(self) -> None:
        """Those that ring first, then those that work, then those that answer, then what they stand on."""
        self._is_stopping = True
        for names in (("demo", "migrate", "beat"), WORKERS, ("web",), ("redis",), ("postgres",)):
            group = [self._processes[name] for name in names if name in self._processes]
            requests = self._stop_requests
            for process in group:
                if process.running is not None:
                    self._say(f"stopping {process.name}")
                    # To the process alone: Celery and gunicorn see to their own.
                    process.running.send_signal(process.stop_signal)
            give_up_at = time.monotonic() + processes.STOP_SECONDS
            while any(process.running for process in group):
                # Asked a second time, we wait no longer; but a killed PostgreSQL would have to recover.
                is_impatient = self._stop_requests > max(requests, 1) and names != ("postgres",)
                if time.monotonic() > give_up_at or is_impatient:
                    for process in group:
                        if process.running is not None:
                            self._say(f"{process.name} is killed")
                            with contextlib.suppress(ProcessLookupError):
                                os.killpg(process.running.pid, signal.SIGKILL)
                    give_up_at = float("inf")
                self._turn(seconds=0.05)
        with contextlib.suppress(FileNotFoundError):
            (self._data_dir / "processes.json").unlink()
        environment = _read_json(self._data_dir / "stack.json").get("environment")
        if environment:
            self._write_stack(environment, pid=None)
        self._say("stopped")

    def _catch_signals(self) -> None:
        """Set handlers outright: a shell's `&` starts us with SIGINT ignored, and Python then sets none of its own."""
        reading, writing = socket.socketpair()
        reading.setblocking(False)
        writing.setblocking(False)
        signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        self._wakeup = (reading, writing)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._request_stop)
        self._selector.register(reading, selectors.EVENT_READ, lambda: reading.recv(4096))

    def _request_stop(self, *_: object) -> None:
        self._stop_requests += 1

    # --- Printing ---
    def _print_output(self, process: _Process, pipe: IO[bytes]) -> None:
        chunk = b""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(pipe.fileno(), 65536):
                chunk += piece
            with contextlib.suppress(KeyError):  # at the second end of the same pipe, from _note_end
                self._selector.unregister(pipe)
        *lines, process.unfinished_line = (process.unfinished_line + chunk).split(b"\n")
        if len(process.unfinished_line) > 65536:
            lines.append(process.unfinished_line)
            process.unfinished_line = b""
        for line in lines:
            text = line.decode(errors="replace").rstrip("\r")
            if not any(noise in text for noise in NOISE):
                self._print(process.name, text)

    def _say(self, text: str) -> None:
        self._print("up", text)

    def _print(self, name: str, text: str) -> None:
        if name != "demo":
            prefix = f"{name:<8} | "
            text = f"\x1b[{COLOURS.get(name, 37)}m{prefix}\x1b[0m{text}" if self._has_colours else prefix + text
        try:
            print(text, flush=True)
        except OSError:
            # The terminal or the pipe is gone. What is printed is lost from now on; what runs is not.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _spawner(server: embedded.Postgres | embedded.Redis) -> Callable[[], "subprocess.Popen[bytes]"]:
    return lambda: server.spawn(subprocess.PIPE)


def _claim_port(port: int) -> int:
    """The port itself, a free one for 0. Raises CannotStart where somebody listens already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError as error:
            raise CannotStart(
                f"port {port} cannot be used ({os.strerror(error.errno or 0)}): give another --port"
            ) from None
        claimed: int = probe.getsockname()[1]
        return claimed


def _make_database(postgres: embedded.Postgres) -> None:
    import psycopg  # here, so that `up --help` and errors before this point need no driver

    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'agent_jobs'").fetchone():
            connection.execute("CREATE DATABASE agent_jobs")


def _kept_secrets(former: dict[str, str]) -> dict[str, str]:
    """The secrets of this data folder: stated ones first, else the former ones, else new ones."""
    fresh = {
        "AGENT_JOBS_SECRET_KEY": secrets.token_urlsafe(48),
        "AGENT_JOBS_TOKEN_PEPPER": secrets.token_urlsafe(48),
        "AGENT_JOBS_SEALING_KEYS": f"k1:{base64.b64encode(secrets.token_bytes(32)).decode()}",
        # Webhook channels of a developer point at his own machine.
        "AGENT_JOBS_ALLOW_PRIVATE_ADDRESSES": "1",
    }
    return {name: os.environ.get(name) or former.get(name) or value for name, value in fresh.items()}


def _stop_leftovers(data_dir: Path) -> None:
    """End Python processes of a former start whose supervisor was killed (only macOS has any)."""
    for name, pid in _read_json(data_dir / "processes.json").items():
        if isinstance(pid, int) and _mark(data_dir) in processes.command_line(pid):
            print(f"{'up':<8} | stopping {name} (process {pid}), left by a former start", flush=True)
            processes.stop_stranger(pid, signal.SIGTERM)


def _mark(data_dir: Path) -> str:
    return f"agent_jobs_stack={data_dir}"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _answers_ok(url: str) -> bool:
    # A proxy that the environment names is not for this machine itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as answer:
            status: int = answer.status
            return status == 200
    except (OSError, urllib.error.URLError, ValueError):
        return False
