"""The files of `up` in its data folder, beside the databases.

`stack.json`      the addresses and secrets, read by other commands and the tests, and the process that runs the stack
`processes.json`  the process ids, while it runs
`up.lock`         locked while it runs
"""

import base64
import contextlib
import fcntl
import json
import os
import secrets
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from config.embedded import CannotStart, child_processes, write_private


class DataFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        # A Python option without effect, which marks a process as ours.
        self.mark = f"agent_jobs_stack={path}"
        self._stack = path / "stack.json"
        self._processes = path / "processes.json"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Lock the folder while this process lives; the kernel releases it even after a kill -9."""
        lock = os.open(self.path / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stack = _read_json(self._stack)
            raise CannotStart(
                f"the service runs already on {self.path} (process {stack.get('pid')}, {stack.get('web_url')}): "
                "stop that one, or give another --data-dir and --port"
            ) from None
        try:
            yield
        finally:
            os.close(lock)

    def environment(self) -> dict[str, str]:
        """The environment of the previous start; empty if there was none."""
        kept: dict[str, str] = _read_json(self._stack).get("environment", {})
        return kept

    def secrets(self) -> dict[str, str]:
        """The secrets of this data folder: from the environment, else of the previous start, else new ones."""
        former = self.environment()
        fresh = {
            "AGENT_JOBS_SECRET_KEY": secrets.token_urlsafe(48),
            "AGENT_JOBS_TOKEN_PEPPER": secrets.token_urlsafe(48),
            "AGENT_JOBS_SEALING_KEYS": f"k1:{base64.b64encode(secrets.token_bytes(32)).decode()}",
            # A developer's webhook channels point at their own machine.
            "AGENT_JOBS_ALLOW_PRIVATE_ADDRESSES": "1",
        }
        return {name: os.environ.get(name) or former.get(name) or value for name, value in fresh.items()}

    def note_stack(self, environment: Mapping[str, str], *, web_url: str, pid: int | None) -> None:
        stack = {"environment": environment, "web_url": web_url, "pid": pid}
        write_private(self._stack, json.dumps(stack, indent=2))

    def note_processes(self, pids: Mapping[str, int]) -> None:
        write_private(self._processes, json.dumps(pids))

    def forget_processes(self) -> None:
        self._processes.unlink(missing_ok=True)

    def stop_leftovers(self, say: Callable[[str], None]) -> None:
        """Stop Python processes of a previous start whose supervisor was killed (only macOS leaves any)."""
        for name, pid in _read_json(self._processes).items():
            if isinstance(pid, int) and self.mark in child_processes.command_line(pid):
                say(f"stopping {name} (process {pid}), left by a former start")
                child_processes.stop_stranger(pid, signal.SIGTERM)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
