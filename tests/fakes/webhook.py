"""A receiver of webhooks and of tools' calls for tests: keeps what it was sent, answers what it was told to."""

from __future__ import annotations

import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Received:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """`is_dropped`: the connection is reset instead. `drip`: a byte of the head each so many seconds, for ever.
    `is_endless`: after the body, more of it for ever, each so many seconds (`pause`).
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"ok"
    is_dropped: bool = False
    drip: float = 0.0
    hang: float = 0.0
    is_endless: bool = False
    pause: float = 0.0


class FakeReceiver:
    def __init__(self) -> None:
        self.received: list[Received] = []
        self.replies: list[Reply] = []
        self.stopping = threading.Event()
        self._server = _Server(("127.0.0.1", 0), self)

    def __enter__(self) -> FakeReceiver:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/in"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], receiver: FakeReceiver) -> None:
        self.receiver = receiver
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        receiver = self.server.receiver
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        receiver.received.append(
            Received(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        )
        reply = receiver.replies.pop(0) if receiver.replies else Reply()
        if reply.hang:
            receiver.stopping.wait(reply.hang)
        if reply.is_dropped:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        if reply.drip:
            for byte in b"HTTP/1.0 200 OK\r\n" + b"X-Slow: yes\r\n" * 1_000:
                self.wfile.write(bytes([byte]))
                if receiver.stopping.wait(reply.drip):
                    return
        self.send_response(reply.status)
        length = {} if reply.is_endless else {"Content-Length": str(len(reply.body))}
        for name, value in {**length, **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)
        while reply.is_endless and not receiver.stopping.wait(reply.pause):
            self.wfile.write(b"x" * (16 if reply.pause else 65_536))

    do_GET = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        pass
