"""A server of binaries on loopback: scripts by name, and the answers of a server that means harm."""

import hashlib
from collections import Counter
from contextlib import suppress

from tests.fakes.loopback import LoopbackFake, LoopbackHandler

TEN_GIGABYTES = 10 * 1024**3


class BinaryServer(LoopbackFake):
    """`add` a script and get its address and hash. `/redirect`, `/huge`, `/endless` and `/broken` are always there."""

    def __init__(self) -> None:
        self.scripts: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        super().__init__()
        self.url = self._server.url

    def add(self, name: str, content: bytes) -> dict[str, str]:
        """The part of a work that names this binary."""
        self.scripts[f"/{name}"] = content
        return {"binary_url": f"{self.url}/{name}", "binary_sha256": hashlib.sha256(content).hexdigest()}

    def shell(self, name: str, lines: str) -> dict[str, str]:
        return self.add(name, f"#!/bin/sh\n{lines}\n".encode())

    def _handler(self) -> type[LoopbackHandler]:
        fake = self

        class Handler(LoopbackHandler):
            protocol_version = "HTTP/1.0"

            def do_GET(self) -> None:
                fake.asked[self.path] += 1
                with suppress(OSError):  # the client has had enough
                    getattr(self, f"_{self.path[1:]}", self._script)()

            def _script(self) -> None:
                content = fake.scripts.get(self.path)
                self.send(404 if content is None else 200, content or b"")

            def _redirect(self) -> None:
                self.send(302, headers={"Location": f"{fake.url}/elsewhere"})

            def _huge(self) -> None:
                self.send(200, b"x" * 65536, {"Content-Length": str(TEN_GIGABYTES)})

            def _endless(self) -> None:
                self.send_response(200)
                self.end_headers()
                while True:
                    self.wfile.write(b"x" * 65536)

            def _broken(self) -> None:
                self.send(503)

        return Handler
