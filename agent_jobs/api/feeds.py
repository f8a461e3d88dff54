"""What a client of a job's events has been told: which activities, and how that is said in an event's `id`.

Rows do not appear in the order of their times. A row's `created_at` is the beginning of its transaction, and one that
began earlier may commit later: whoever remembers only the last row seen misses it. So a feed remembers every activity
that it told of in the last `WINDOW`, which is longer than any transaction lives, and looks for others behind that
window's lower edge, the `floor`; all that is older has been there to be told. The `id` of an event holds just that, the
floor and a mark of each activity above it, so that any process of the service can go on where a connection was cut.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

WINDOW = timedelta(seconds=120)
# The most that an id holds; in a job with more within the window, the window is as much shorter.
MOST_MARKS = 400
# Activities told at a time.
PAGE = 50
HEARTBEAT = b":\n\n"
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
_MARK, _JOB, _HEAD = 6, 4, 1 + 4 + 8
_HAS_ENDED = 1


class Feed:
    """One client's place in the events of a job. `last_id` is the id of the last event it has: raises ValueError."""

    def __init__(self, org_id: str, job_id: UUID, last_id: str = "") -> None:
        self.org_id, self.job_id = org_id, job_id
        self.floor, self.knows_end = BEGINNING, False
        # By their marks; the time of one from an id is not known until its row is met.
        self._told: dict[bytes, datetime | None] = {}
        if last_id:
            self._read(last_id)

    @property
    def count(self) -> int:
        """How many activities above the floor the client has."""
        return len(self._told)

    def unseen(self, found: Iterable[tuple[UUID, datetime]]) -> list[UUID]:
        """Of the activities above the floor, in their order, those that the client does not have."""
        new = []
        for activity_id, created_at in found:
            mark = _mark(activity_id)
            if mark in self._told:
                self._told[mark] = created_at
            else:
                new.append(activity_id)
        return new

    def activity(self, shown: Mapping[str, Any], activity_id: UUID, created_at: datetime) -> bytes:
        """The event of an activity; from now on the client has it."""
        self._told[_mark(activity_id)] = created_at
        self._raise_floor(created_at - WINDOW)
        if len(self._told) > MOST_MARKS:
            times = sorted(at for at in self._told.values() if at is not None)
            # Never to the row's own time: others of that time may still have to be told.
            self._raise_floor(min(times[len(times) - MOST_MARKS // 2], created_at - MICROSECOND))
        self.knows_end = False
        return self._event("activity", shown)

    def end(self, shown: Mapping[str, Any]) -> bytes:
        """The last event: the job has ended, and the client has everything."""
        self.knows_end = True
        return self._event("end", shown)

    def _raise_floor(self, floor: datetime) -> None:
        if floor > self.floor:
            self.floor = floor
            self._told = {mark: at for mark, at in self._told.items() if at is None or at > floor}

    def _event(self, kind: str, shown: Mapping[str, Any]) -> bytes:
        head = bytes([_HAS_ENDED if self.knows_end else 0]) + self.job_id.bytes[-_JOB:]
        micros = (self.floor - BEGINNING) // MICROSECOND
        packed = head + micros.to_bytes(8, "big") + b"".join(self._told)
        return event(kind, shown, event_id=base64.urlsafe_b64encode(packed).rstrip(b"="))

    def _read(self, last_id: str) -> None:
        try:
            packed = base64.b64decode(last_id + "=" * (-len(last_id) % 4), altchars=b"-_", validate=True)
            if (
                len(packed) < _HEAD
                or (len(packed) - _HEAD) % _MARK
                or packed[1 : 1 + _JOB] != self.job_id.bytes[-_JOB:]
            ):
                raise ValueError
            self.floor = BEGINNING + timedelta(microseconds=int.from_bytes(packed[1 + _JOB : _HEAD], "big"))
        except (ValueError, binascii.Error, OverflowError):
            raise ValueError("is no id of this job's events") from None
        self.knows_end = bool(packed[0] & _HAS_ENDED)
        self._told = {packed[at : at + _MARK]: None for at in range(_HEAD, len(packed), _MARK)}


def event(kind: str, shown: Mapping[str, Any], *, event_id: bytes = b"") -> bytes:
    """One Server-Sent Event: JSON holds no line breaks."""
    data = json.dumps(shown, separators=(",", ":"), ensure_ascii=False).encode()
    named = b"id: " + event_id + b"\n" if event_id else b""
    return named + b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


def _mark(activity_id: UUID) -> bytes:
    """The random end of a UUIDv7; within one job's two minutes no two are alike."""
    return activity_id.bytes[-_MARK:]
