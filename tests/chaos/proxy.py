"""A TCP proxy on loopback that harms what goes through it, switched at run time.

    with Proxy(("127.0.0.1", 5432), seed=7) as proxy:
        connect_to(proxy.port)
        proxy.set(latency=0.2, resets=0.05)     # seconds for each round trip; share of stretches that end in a reset
        proxy.set(is_black_hole=True)           # accepts and forwards nothing, in either direction, and keeps all
        proxy.set(is_refusing=True)             # new connections are refused; the old ones live on
        proxy.half_open()                       # the connections of now fall silent for ever, without a FIN
        proxy.cut()                             # the connections of now are reset
        proxy.heal()                            # all of it off; what is silent is reset, as TCP's timeouts would

It runs in a process of its own, since the harness has other things to do with its interpreter: some 12,000 round trips
a second pass unharmed. A peer's kernel goes on acknowledging what a real black hole would swallow, so TCP's own
time-outs (`tcp_user_timeout`, keepalives) cannot be shown with it; what the service does about silence can.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import struct
import subprocess
import sys
import threading
from collections import deque
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

# A connection's bytes are divided into stretches. The stated share of them is cut at a random byte.
STRETCH_BYTES = 32 * 1024
_ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Harm:
    """The faults of connections. `latency` is added to each round trip, in seconds, half of it each way."""

    latency: float = 0.0
    resets: float = 0.0
    is_black_hole: bool = False
    is_refusing: bool = False


@dataclass(frozen=True)
class Counts:
    opened: int = 0
    open: int = 0
    silent: int = 0
    resets: int = 0
    bytes: int = 0


class Proxy:
    """Steers one proxy. Safe to use from many threads; each call returns when it is in force."""

    def __init__(self, target: tuple[str, int], *, seed: int = 0, port: int = 0) -> None:
        self._steering = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.proxy", target[0], str(target[1]), str(port), str(seed)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C is for the harness, which then stops this one
        )
        self.port = int(self._ask("port")["port"])

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        with self._steering:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.close()  # which ends it
            self._process.wait(10)
            self._process.stdout.close()

    def set(self, **harm: float | bool) -> None:
        """Change what is named, by the fields of `Harm`."""
        unknown = set(harm) - {field.name for field in fields(Harm)}
        if unknown:
            raise ValueError(f"there is no such harm: {sorted(unknown)}")
        self._ask("set", **harm)

    def half_open(self) -> int:
        """Returns how many connections fell silent."""
        return int(self._ask("half_open")["count"])

    def cut(self) -> int:
        """Returns how many connections were reset."""
        return int(self._ask("cut")["count"])

    def heal(self) -> None:
        self._ask("heal")

    def counts(self) -> Counts:
        return Counts(**self._ask("counts"))

    def _ask(self, command: str, **given: Any) -> dict[str, Any]:
        with self._steering:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps({"command": command, **given}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
            if not line:
                raise RuntimeError(f"the proxy has ended with {self._process.wait(10)}")
            answer: dict[str, Any] = json.loads(line)
            return answer


# --- In the process --------------------------------------------------------------------------------------------
class _Server:
    def __init__(self, target: tuple[str, int], *, port: int, seed: int) -> None:
        self.target = target
        self.harm = Harm()
        self.chance = random.Random(seed)
        self.links: set[_Link] = set()
        self.opened = self.resets = self.bytes = 0
        # Bound and never listening: it keeps the port ours while connections to it are refused.
        self._keeper = _bound(port)
        self.port: int = self._keeper.getsockname()[1]
        self._listener: asyncio.Server | None = None

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: _Link(self).client, sock=_bound(self.port), backlog=512)

    async def obey(self, command: str, given: dict[str, Any]) -> dict[str, Any]:
        match command:
            case "port":
                return {"port": self.port}
            case "set":
                await self._set(Harm(**{**asdict(self.harm), **given}))
            case "half_open":
                speaking = [link for link in self.links if not link.is_silent]
                for link in speaking:
                    link.fall_silent()
                return {"count": len(speaking)}
            case "cut":
                return {"count": self._reset(list(self.links))}
            case "heal":
                await self._set(Harm())
                self._reset([link for link in self.links if link.is_silent])
            case "counts":
                silent = sum(link.is_silent for link in self.links)
                return asdict(Counts(self.opened, len(self.links), silent, self.resets, self.bytes))
        return {}

    async def _set(self, harm: Harm) -> None:
        self.harm, before = harm, self.harm
        for link in list(self.links):
            link.harm_changed()
        if harm.is_refusing and not before.is_refusing and self._listener is not None:
            self._listener.close()
            self._listener = None
        elif before.is_refusing and not harm.is_refusing:
            await self.listen()

    def _reset(self, links: list[_Link]) -> int:
        for link in links:
            link.reset()
        return len(links)


class _Link:
    """One connection through the proxy: the client's end, and once there is one the target's."""

    def __init__(self, server: _Server) -> None:
        self.server = server
        self.is_silent = False
        self.bytes_left = 0  # to the cut, where one was drawn
        self.is_doomed = False
        self.stretch_left = 0
        self.client = _End(self)
        self.target = _End(self)
        self.client.peer, self.target.peer = self.target, self.client
        self._is_connecting = False

    @property
    def is_stopped(self) -> bool:
        return self.is_silent or self.server.harm.is_black_hole

    def opened(self) -> None:
        self.server.links.add(self)
        self.server.opened += 1
        self.harm_changed()

    def harm_changed(self) -> None:
        self.stretch_left, self.is_doomed = 0, False
        if not self.is_stopped and not self._is_connecting and self.target.transport is None:
            self._is_connecting = True
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
        self.client.look_whether_to_read()
        self.target.look_whether_to_read()

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.target, *self.server.target)
        except OSError:
            self.reset(is_counted=False)

    def fall_silent(self) -> None:
        self.is_silent = True
        self.client.look_whether_to_read()
        self.target.look_whether_to_read()

    def reset(self, *, is_counted: bool = True) -> None:
        if self in self.server.links:
            self.server.resets += is_counted
            self.server.links.discard(self)
        for end in (self.client, self.target):
            end.abort()

    def closed(self) -> None:
        if self.client.is_lost and (self.target.is_lost or self.target.transport is None):
            self.server.links.discard(self)

    def passes(self, data: bytes) -> bytes | None:
        """The part of `data` that goes through before the cut; None if all of it does."""
        self.server.bytes += len(data)
        share = self.server.harm.resets
        if not share:
            return None
        if self.stretch_left <= 0:
            self.stretch_left = STRETCH_BYTES
            self.is_doomed = self.server.chance.random() < share
            self.bytes_left = self.server.chance.randrange(STRETCH_BYTES)
        if self.is_doomed and self.bytes_left < len(data):
            return data[: self.bytes_left]
        self.stretch_left -= len(data)
        self.bytes_left -= len(data)
        return None


class _End(asyncio.Protocol):
    """One end of a link: what it receives, the other sends."""

    def __init__(self, link: _Link) -> None:
        self.link = link
        self.peer: _End
        self.transport: asyncio.Transport | None = None
        self.is_lost = False
        self._is_full = False
        self._waiting: deque[tuple[float, bytes]] = deque()  # of the other end, under way to this one
        self._timer: asyncio.TimerHandle | None = None
        self._has_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self is self.link.client:
            # Python 3.11.2 begins to read after this method, also from what was paused in it.
            asyncio.get_running_loop().call_soon(self.link.opened)
        elif self.link.client.is_lost:
            transport.abort()
        else:
            self.peer.look_whether_to_read()
            self.look_whether_to_read()

    def data_received(self, data: bytes) -> None:
        allowed = self.link.passes(data)
        if allowed is not None:
            if allowed and self.peer.transport is not None:
                self.peer.transport.write(allowed)
            self.link.reset()
            return
        latency = self.link.server.harm.latency
        if latency or self.peer._waiting:
            self.peer.take_later(data, latency / 2)
        elif self.peer.transport is not None:
            self.peer.transport.write(data)

    def take_later(self, data: bytes, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        if self._waiting:
            due = max(due, self._waiting[-1][0])
        self._waiting.append((due, data))
        if self._timer is None:
            self._timer = loop.call_at(due, self._take_due)

    def _take_due(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        while self._waiting and self._waiting[0][0] <= loop.time() + 0.0005:
            _, data = self._waiting.popleft()
            if self.transport is not None and not self.is_lost:
                self.transport.write(data)
        if self._waiting:
            self._timer = loop.call_at(self._waiting[0][0], self._take_due)
        elif self._has_ended:
            self.end()

    def eof_received(self) -> bool:
        self.peer.end()
        return True

    def end(self) -> None:
        """The other end has said all it had to say."""
        self._has_ended = True
        if not self._waiting and self.transport is not None and not self.is_lost:
            with contextlib.suppress(OSError):
                self.transport.write_eof()
            if self.peer._has_ended:
                self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        if not self.link.is_silent and self.peer.transport is not None and not self.peer.is_lost:
            if error is None and not self.peer._waiting:
                self.peer.transport.close()
            else:
                self.peer.abort()
        self.link.closed()

    def pause_writing(self) -> None:
        self._is_full = True
        self.peer.look_whether_to_read()

    def resume_writing(self) -> None:
        self._is_full = False
        self.peer.look_whether_to_read()

    def look_whether_to_read(self) -> None:
        if self.transport is None or self.is_lost:
            return
        if self.link.is_stopped or self.peer._is_full or self.peer.transport is None:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def abort(self) -> None:
        if self.transport is None or self.is_lost:
            return
        # With nothing to linger for, closing resets the connection.
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", port))
    return bound


async def _serve(target: tuple[str, int], *, port: int, seed: int) -> None:
    server = _Server(target, port=port, seed=seed)
    await server.listen()
    orders = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        given = json.loads(line)
        print(json.dumps(await server.obey(given.pop("command"), given)), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve((sys.argv[1], int(sys.argv[2])), port=int(sys.argv[3]), seed=int(sys.argv[4])))
