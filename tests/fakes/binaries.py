"""A server of binaries on loopback: scripts by name, and the answers of a server that means harm."""

import hashlib
import threading
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

TEN_GIGABYTES = 10 * 1024**3


class BinaryServer:
    """`add` a script and get its address and hash. `/redirect`, `/huge`, `/endless` and `/broken` are always there."""

    def __init__(self) -> None:
        self.scripts: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def add(self, name: str, content: bytes) -> dict[str, str]:
        """The part of a work that names this binary."""
        self.scripts[f"/{name}"] = content
        return {"binary_url": f"{self.url}/{name}", "binary_sha256": hashlib.sha256(content).hexdigest()}

    def shell(self, name: str, lines: str) -> dict[str, str]:
        return self.add(name, f"#!/bin/sh\n{lines}\n".encode())

    def __enter__(self) -> "BinaryServer":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.asked[self.path] += 1
                with suppress(OSError):  # the client has had enough
                    getattr(self, f"_{self.path[1:]}", self._script)()

            def _script(self) -> None:
                content = fake.scripts.get(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def _redirect(self) -> None:
                self.send_response(302)
                self.send_header("Location", f"{fake.url}/elsewhere")
                self.end_headers()

            def _huge(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(TEN_GIGABYTES))
                self.end_headers()
                self.wfile.write(b"x" * 65536)

            def _endless(self) -> None:
                self.send_response(200)
                self.end_headers()
                while True:
                    self.wfile.write(b"x" * 65536)

            def _broken(self) -> None:
                self.send_response(503)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
