"""A receiver of webhooks and of tools' calls for tests: keeps what it was sent, answers what it was told to."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.fakes.loopback import LoopbackFake, LoopbackHandler


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


class FakeReceiver(LoopbackFake):
    def __init__(self) -> None:
        self.received: list[Received] = []
        self.replies: list[Reply] = []
        super().__init__()

    def _handler(self) -> type[LoopbackHandler]:
        return type("Handler", (_Handler,), {"receiver": self})

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/in"


class _Handler(LoopbackHandler):
    protocol_version = "HTTP/1.0"
    receiver: FakeReceiver

    def do_POST(self) -> None:
        receiver = self.receiver
        receiver.received.append(Received(self.command, self.path, self.small_headers(), self.read()))
        reply = receiver.replies.pop(0) if receiver.replies else Reply()
        if reply.hang:
            receiver._stop.wait(reply.hang)
        if reply.is_dropped:
            self.reset()
            return
        if reply.drip:
            for byte in b"HTTP/1.0 200 OK\r\n" + b"X-Slow: yes\r\n" * 1_000:
                self.wfile.write(bytes([byte]))
                if receiver._stop.wait(reply.drip):
                    return
        length = {} if reply.is_endless else {"Content-Length": str(len(reply.body))}
        self.send_open(reply.status, reply.body, {**length, **reply.headers})
        while reply.is_endless and not receiver._stop.wait(reply.pause):
            self.wfile.write(b"x" * (16 if reply.pause else 65_536))

    do_GET = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_POST
