"""The frame of fakes that speak HTTP: a server on loopback with a thread of its own, and the base of its handlers."""

import socket
import struct
import threading
from abc import ABC, abstractmethod
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class LoopbackHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # as servers do; else each answer waits 40 ms for an acknowledgement

    def read(self) -> bytes:
        """The body. A client that is killed before its end has asked nothing."""
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionResetError("the client went away in the middle of its body")
        return body

    def small_headers(self) -> dict[str, str]:
        """The headers by names in small letters."""
        return {name.lower(): value for name, value in self.headers.items()}

    def send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Send an answer; JSON, unless `headers` say otherwise."""
        usual = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        self.send_open(status, body, usual | (headers or {}))

    def send_open(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """Send an answer with these headers only: more may follow the body."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def reset(self) -> None:
        """Close the connection with a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        pass


class LoopbackServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, handler: type[BaseHTTPRequestHandler], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is nothing to tell of: tests kill them."""


class LoopbackFake(ABC):
    """Serves within a `with` block. `_handler` makes the class of its handlers."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._server = LoopbackServer(self._handler())

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._server.stop()

    @abstractmethod
    def _handler(self) -> type[BaseHTTPRequestHandler]: ...
