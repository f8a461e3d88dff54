"""The calls of the service. A call is repeated while the service is away; an answer that will not change is final."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from infra.egress import exchanges

_CONNECT_SECONDS = 10.0
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
_CHANCE = random.SystemRandom()


class ServiceAway(Exception):
    """The service did not answer, or answered that it cannot work now. The text says which."""


@dataclass(frozen=True, slots=True)
class ServiceAnswer:
    """The service's answer to one call. `body` is {} if the answer holds no JSON object."""

    status: int
    body: Mapping[str, Any]

    @property
    def code(self) -> str:
        return str(self.body.get("code", ""))

    @property
    def message(self) -> str:
        return str(self.body.get("message") or f"the service answered {self.status}")


class Service:
    def __init__(self, server: str, token: str) -> None:
        self._base = server.rstrip("/") + "/services/executors"
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: Mapping[str, Any], *, seconds: float = 30.0) -> ServiceAnswer:
        """One request. Raises ServiceAway if no answer came, or a 429 or 5xx: the caller may try again."""
        try:
            found = exchanges.make(
                method,
                self._base + path,
                body=json.dumps(body).encode(),
                headers=self._headers,
                seconds=seconds,
                connect_seconds=_CONNECT_SECONDS,
                rules=None,  # the operator has named the service
                max_bytes=64 * 1024 * 1024,
            )
        except exchanges.HttpError as error:
            raise ServiceAway(str(error)) from None
        if found.status >= 500 or found.status == 429:
            raise ServiceAway(f"the service answered {found.status}")
        if not found.is_whole:
            raise ServiceAway("the answer broke off")
        return ServiceAnswer(found.status, _object(found.body))

    def insist(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        gives_up: Callable[[], bool],
        on_away: Callable[[str], object],
    ) -> ServiceAnswer | None:
        """Repeat a PUT until the service answers it. None if `gives_up` says so first."""
        pauses = Pauses()
        while True:
            try:
                return self.call("PUT", path, body, seconds=60.0)
            except ServiceAway as error:
                on_away(str(error))
            if gives_up():
                return None
            pauses.wait()


class Pauses:
    """Pauses that double up to 15 seconds, with jitter, so that executors do not all come back at once."""

    def __init__(self) -> None:
        self._seconds = _SHORTEST_PAUSE

    def wait(self, interrupted: threading.Event | None = None) -> None:
        (interrupted or threading.Event()).wait(self._seconds * _CHANCE.uniform(0.7, 1.3))
        self._seconds = min(2 * self._seconds, _LONGEST_PAUSE)

    def reset(self) -> None:
        self._seconds = _SHORTEST_PAUSE


def _object(raw: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
