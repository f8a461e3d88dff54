"""A client of Server-Sent Events, over a plain connection: it sees what is sent, and can be cut off at any event."""

import http.client
import json
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from tests.waiting import PATIENCE


@dataclass(frozen=True)
class Event:
    kind: str
    data: dict[str, Any]
    id: str = ""


class Following:
    """An open stream. Reading past its clean end gives None; a cut one raises http.client.IncompleteRead."""

    def __init__(self, port: int, path: str, token: str, *, last_id: str = "", timeout: float = PATIENCE) -> None:
        headers = {"Authorization": f"Bearer {token}"} | ({"Last-Event-ID": last_id} if last_id else {})
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self.connection.request("GET", path, headers=headers)
        self.answer = self.connection.getresponse()
        self.status = self.answer.status
        self.last_id, self.comments = last_id, 0

    def __enter__(self) -> "Following":
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        self.answer.close()
        self.connection.close()

    def next(self) -> Event | None:
        fields: dict[str, str] = {}
        while line := self.answer.readline():
            text = line.decode().rstrip("\n")
            if text.startswith(":"):
                self.comments += 1
            elif text:
                name, _, value = text.partition(": ")
                fields[name] = value
            elif "data" in fields:
                event = Event(fields.get("event", "message"), json.loads(fields["data"]), fields.get("id", ""))
                self.last_id = event.id or self.last_id
                return event
        return None

    def take(self, count: int) -> list[Event]:
        return [event for event in (self.next() for _ in range(count)) if event is not None]

    def rest(self) -> list[Event]:
        return list(iter(self.next, None))
