"""Where recurring jobs have their effects: a receiver of webhooks, and a server to which commands send their lines."""

from __future__ import annotations

import random
import socketserver
import threading
import time

from agent_jobs.runners.webhook_work import DEFAULT_PREFIX
from tests.chaos.recurring_ledgers import Arrival, Sign
from tests.fakes.loopback import LoopbackFake, LoopbackHandler

# A share of the requests is answered so. None: the connection is reset without an answer.
_ANSWERS: tuple[tuple[float, int | None], ...] = ((0.80, 200), (0.08, 500), (0.04, 503), (0.08, None))


class HookReceiver(LoopbackFake):
    """Notes each request before it answers. `/slow` answers late, so that jobs of a schedule would overlap."""

    def __init__(self, rng: random.Random, *, slow_seconds: float = 1.6) -> None:
        self.arrivals: list[Arrival] = []
        self._rng = rng
        self._lock = threading.Lock()
        self._slow_seconds = slow_seconds
        super().__init__()
        self.address = self._server.url
        self._server.start()

    def _handler(self) -> type[LoopbackHandler]:
        receiver = self

        class Handler(LoopbackHandler):
            def do_POST(self) -> None:
                self.read()
                status = receiver.note(self.headers[f"{DEFAULT_PREFIX}-Job-ID"], self.headers[_EXECUTION])
                if self.path == "/slow":
                    receiver._stop.wait(receiver._slow_seconds)
                self.close_connection = True
                if status is None:
                    self.reset()
                else:
                    self.send(status, b"ok", {"Content-Type": "text/plain", "Connection": "close"})

        return Handler

    def note(self, job_id: str, task_id: str) -> int | None:
        """Write a request down. Returns the status to answer with."""
        with self._lock:
            (status,) = self._rng.choices([it for _, it in _ANSWERS], [share for share, _ in _ANSWERS])
            self.arrivals.append(Arrival(job_id, task_id, time.time(), status))
        return status

    def close(self) -> None:
        self._stop.set()
        self._server.stop()


_EXECUTION = f"{DEFAULT_PREFIX}-Execution-ID"


class SignServer:
    """Takes the lines of running commands, each with the ids of job and task and its number.

    A command reaches it over TCP, so it needs no file that a sandbox would hide, and the time is the harness' own.
    """

    def __init__(self) -> None:
        self.signs: list[Sign] = []
        signs = self.signs

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                for line in self.rfile:
                    at = time.time()
                    job_id, task_id, number = line.decode().split()
                    signs.append(Sign(job_id, task_id, int(number), at))

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: object, client_address: object) -> None:
                """A command that is killed resets its connection."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="signs", daemon=True).start()

    def work(self, *, lines: int) -> dict[str, object]:
        """The work of a command that sends `lines` lines, four a second, and prints the id of its job."""
        script = (
            f"exec 3<>/dev/tcp/127.0.0.1/{self.port} || exit 9\n"
            f"for ((n = 0; n < {lines}; n++)); do\n"
            'echo "$AGENT_JOBS_JOB_ID $AGENT_JOBS_EXECUTION_ID $n" >&3 || exit 8\n'
            "sleep 0.25\n"
            "done\n"
            'echo -n "$AGENT_JOBS_JOB_ID"\n'
        )
        return {"argv": ["bash", "-c", script], "network": True}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
