"""A client that drops its connection at a random byte of its request or of the answer."""

import json
import random
import socket
import struct
import threading
import time
from typing import Any

from tests.chaos.client import Answer, Client


class RudeClient:
    """Sends one request and goes away in the middle of it, or of the answer."""

    def __init__(self, client: Client, rng: random.Random) -> None:
        self._client = client
        self._rng = rng
        self._lock = threading.Lock()

    def drop(self, path: str, body: Any, *, method: str = "POST", key: str = "") -> tuple[str, Answer]:
        """The request, and its unknown answer."""
        content = json.dumps(body).encode()
        keyed = f"Idempotency-Key: {key}\r\n" if key else ""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self._client.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n{keyed}\r\n"
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
