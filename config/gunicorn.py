"""How gunicorn serves the web process, in `manage.py up` and in the image alike."""

import ctypes
import json
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from gunicorn import util
from gunicorn.http import wsgi
from gunicorn.workers.gthread import ThreadWorker
from uuid_utils import uuid7

from config import garbage, settings
from config.embedded import tied_to_parent


def take_no_more(listener: Any) -> None:
    """From now on the kernel accepts nobody for this listening socket; who stands in the queue already stays there.

    Without it, who came between the last look into the queue and its closing would be cut off. Only Linux has this: a
    filter that lets no packet through. Whoever knocks meanwhile tries again a second later, and is refused.
    """
    if sys.platform == "linux":
        nothing = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))  # BPF_RET | BPF_K: pass no byte
        program = struct.pack("@HP", 1, ctypes.addressof(nothing))
        so_attach_filter = 26
        getattr(listener, "sock", listener).setsockopt(socket.SOL_SOCKET, so_attach_filter, program)


def write_refusal(client: Any, status: int, reason: str, details: str) -> None:
    """What gunicorn cannot read never reaches Django; its refusal has our form all the same, and quotes nothing."""
    request_id = str(uuid7())
    meta = {"request_id": request_id}
    message = f"the request cannot be read: {reason}" if status < 500 else "something went wrong here"
    code = "bad_request" if status < 500 else "internal_error"
    body = json.dumps({"code": code, "message": message, "errors": [], "meta": meta})
    head = (
        f"HTTP/1.1 {status} {reason}",
        "Connection: close",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"X-Request-ID: {request_id}",
    )
    util.write_nonblock(client, "\r\n".join((*head, "", body)).encode("latin1"))


class GracefulWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Hands connections over whose answers stay open, so that they hold no thread (`agent_jobs.api.hub`).

    At its stop takes what the kernel has accepted for it, closes its door at once, and lets nobody stand in a
    long-poll. gunicorn keeps the door open until the last request is answered; who comes in meanwhile is cut off."""

    def load_wsgi(self) -> None:
        super().load_wsgi()
        from agent_jobs.api.hub import handing_over

        self.wsgi: Any = handing_over(self.wsgi)

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Forget a connection that was handed over: its socket is empty, and gunicorn would stumble over it."""
        if conn.sock.fileno() == -1:
            self.nr_conns -= 1
        else:
            super().finish_request(conn, fs)

    def run(self) -> None:
        super().run()
        from agent_jobs.api.hub import hub

        hub.join(5)

    def set_accept_enabled(self, enabled: bool) -> None:
        super().set_accept_enabled(enabled)
        if self.alive or enabled:
            return
        from agent_jobs.api.hub import hub  # where Django has been set up

        hub.stop()
        for listener in self.sockets:
            take_no_more(listener)
            known = -1
            while known != self.nr_conns:
                known = self.nr_conns
                self.accept(listener)
            listener.close()


wsgi_app = "config.wsgi:application"
worker_class = GracefulWorker
workers = int(os.environ.get("AGENT_JOBS_WEB_PROCESSES") or 2)
# A long-poll pins its thread for up to 30 s, and the service lets half of the threads do so.
threads = int(os.environ.get("AGENT_JOBS_WEB_THREADS") or 16)
timeout = 60  # without a sign of life from the process itself, not the length of a request
graceful_timeout = 10  # less than the time after which the supervisor kills
keepalive = 5
backlog = 512
# A list's address may name a hundred filters; a header carries one token. Larger ones are answered 400 here.
limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = 8190
# The sign of life is a file; in memory, a slow disk cannot make a healthy process look dead.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - gunicorn makes it by mkstemp
# Who may say by X-Forwarded-Proto that the client came over TLS.
forwarded_allow_ips = os.environ.get("AGENT_JOBS_TRUSTED_PROXIES") or ""
util.write_error = write_refusal
wsgi.SERVER = "agent-jobs"  # what serves us is nobody's business
control_socket_disable = True  # it would be made in the home folder, once for all checkouts
errorlog = "-"
loglevel = "warning"
logconfig_dict = settings.LOGGING  # one form for every line, also for those of the master


garbage.look_rarely()


def post_worker_init(worker: Any) -> None:
    garbage.leave_what_is_loaded()


def post_fork(server: Any, worker: Any) -> None:
    """End the serving processes with their master, also where that one is killed with -9."""
    if sys.platform == "linux" and (tie := tied_to_parent(signal.SIGKILL, parent=worker.ppid)) is not None:
        tie()
