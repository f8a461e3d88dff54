"""E13: clients that drop their connection at a random byte of request or answer, and repeat with their key."""

import json
import random
import socket
import struct
import threading
import time
from typing import Any

from tests.chaos.client import Answer, Client
from tests.chaos.load import Asked, Load
from tests.chaos.rig import Rig
from tests.chaos.stage import Experiment, Scene


class RudeClient:
    """Sends one request and goes away in the middle of it, or of the answer."""

    def __init__(self, client: Client, rng: random.Random) -> None:
        self._client = client
        self._rng = rng
        self._lock = threading.Lock()

    def drop(self, path: str, body: Any, key: str) -> tuple[str, Answer]:
        """The request, and its unknown answer."""
        content = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self._client.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\nIdempotency-Key: {key}\r\n\r\n"
        )
        request = head.encode() + content
        with self._lock:
            is_in_answer = self._rng.random() < 0.5
            sent = len(request) if is_in_answer else self._rng.randrange(1, len(request))
            read, is_reset = self._rng.randrange(600), self._rng.random() < 0.5
        at, began = time.time(), time.monotonic()
        try:
            with socket.create_connection(("127.0.0.1", self._client.next_port()), timeout=10) as connection:
                if is_reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.sendall(request[:sent])
                while is_in_answer and read > 0:
                    piece = connection.recv(min(read, 64))
                    if not piece:
                        break
                    read -= len(piece)
        except OSError:
            pass
        where = "the answer" if is_in_answer else "the body" if sent > len(head) else "the head"
        return f"dropped in {where} by {'RST' if is_reset else 'FIN'}", Answer(at, time.monotonic() - began, None)


class RudeLoad(Load):
    """Half of the requests that make a job are dropped, some more than once, before one is waited for."""

    def __init__(self, rig: Rig, *, dropped: float, **options: Any) -> None:
        super().__init__(rig, **options)
        self.dropped = dropped
        self._rudeness = random.Random(self.rng.random())
        self._rude = RudeClient(self.client, random.Random(self.rng.random()))
        self.refused_keys = 0

    def _post(self, asked: Asked) -> None:
        with self._lock:
            is_dropped = self._rudeness.random() < self.dropped and len(asked.tries) < 5
            again_after = self._rudeness.choice([0.0, 0.01, 0.3])
        if not is_dropped:
            super()._post(asked)
            return
        what, answer = self._rude.drop(asked.path, asked.body, asked.name)
        with self._lock:
            asked.tries.append(answer.as_try)
            self.answers[what] += 1
        self.agenda.after(again_after, lambda: self._post(asked))


def _watch(scene: Scene) -> None:
    while scene.pause(0.5):
        dropped = {name: times for name, times in list(scene.load.answers.items()) if name.startswith("dropped")}
        scene.faults["request dropped"] = sum(dropped.values())


def _verify(scene: Scene) -> None:
    """Besides the ledgers: every kind of drop has happened."""
    for where in ("the answer", "the body", "the head"):
        if not any(name.startswith(f"dropped in {where}") for name in scene.load.answers):
            scene.breaks(f"nothing was dropped in {where}: the run was too short to show anything")


E13 = Experiment(
    "E13",
    "the client drops its connection at a random byte and repeats with its key",
    "I3 I4",
    _watch,
    make_load=RudeLoad,
    load={"dropped": 0.5, "scheduled": 0.0, "delayed": 0.0},
    verify=_verify,
)
