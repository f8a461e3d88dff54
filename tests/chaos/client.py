"""A client of the service's HTTP API that never raises: what it cannot know has the status None."""

import http.client
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.ledgers import Try


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` is None where no whole answer came: the request may have had its effect."""

    at: float
    seconds: float
    status: int | None
    body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def as_try(self) -> Try:
        return Try(self.at, self.seconds, self.status, "retry-after" in self.headers)

    @property
    def is_final(self) -> bool:
        """Whether asking again could not have another answer: no time-out, no 5xx, no "later"."""
        code = self.body.get("code")
        return self.status is not None and self.status < 500 and self.status != 429 and code != _IN_PROGRESS


_IN_PROGRESS = "idempotency_key_in_progress"


class Client:
    """Goes round the addresses of the web processes, with a new connection each time. Safe to use from many threads.

    As any load balancer does, it tries the next one where a connection is refused: nothing was sent then.
    """

    def __init__(self, ports: Sequence[int], token: str, *, seconds: float = 10.0) -> None:
        self.ports = ports
        self.token = token
        self.seconds = seconds
        self._turns = itertools.count()

    def next_port(self) -> int:
        return self.ports[next(self._turns) % len(self.ports)]

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """`headers` are named with underscores: `Idempotency_Key="…"`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json", **named}
        content = None if body is None else json.dumps(body).encode()
        at, began = time.time(), time.monotonic()
        try:
            connection = self._connected()
        except OSError:
            return Answer(at, time.monotonic() - began, None)
        try:
            connection.request(method, path, body=content, headers=sent)
            answer = connection.getresponse()
            read = answer.read()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(at, time.monotonic() - began, answer.status, _object(read), told)
        except (OSError, http.client.HTTPException, ValueError):
            return Answer(at, time.monotonic() - began, None)
        finally:
            connection.close()

    def _connected(self) -> http.client.HTTPConnection:
        """Raises OSError where none of the addresses takes a connection."""
        first = next(self._turns)  # others ask at the same time, and each of them goes round all
        for left in reversed(range(len(self.ports))):
            port = self.ports[(first + left) % len(self.ports)]
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=self.seconds)
            try:
                connection.connect()
            except ConnectionRefusedError:
                if not left:
                    raise
            else:
                return connection
        raise AssertionError("a client needs an address")

    def ok(self, method: str, path: str, body: Any = None, **headers: str) -> Mapping[str, Any]:
        """For what has to work: asserts a 2xx."""
        answer = self.request(method, path, body, **headers)
        assert 200 <= (answer.status or 0) < 300, (method, path, answer)
        return answer.body


def _object(content: bytes) -> Mapping[str, Any]:
    if not content:
        return {}
    read = json.loads(content)
    return read if isinstance(read, dict) else {"": read}
