"""Open answers: event streams, and requests that wait (`?wait=`) for a job, a message or a claim. None holds a thread.

A view checks such a request like any other and returns an `OpenResponse`. The web process (`config.asgi`) then writes
the stream, or runs the request again when the wait is over. `look` finds news for all open answers together: in three
SQL statements if there is none, in five if there is some, and in one for each organisation whose executors wait.

Each process limits the number of open answers, in total and for each organisation.
"""

import logging
import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from uuid import UUID

from django.conf import settings
from django.http import HttpResponse
from rest_framework.exceptions import APIException

from agent_jobs.api import activities, sse
from agent_jobs.api.errors import UNAUTHENTICATED
from agent_jobs.api.formatting import stamp
from agent_jobs.lifecycle import executor_claims
from agent_jobs.reads import changed_jobs, queries
from agent_jobs.states import TERMINAL
from agent_jobs.tenants import app_tokens, members
from channels_integration import web_messages
from infra import database

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.25
HEARTBEAT_SECONDS = 15
RETRY_AFTER_SECONDS = 5
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


# --- Limits on open answers ------------------------------------------------------------------------------------
class TooManyStreams(APIException):
    """429 if the organisation has reached its limit, 503 if the process has."""

    default_code = "too_many_streams"
    wait = RETRY_AFTER_SECONDS - 1  # `errors` adds one second

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status_code = status


class AnswerSlot:
    """One slot of the limits on open answers. `leave` is safe to call twice; garbage collection also calls it."""

    _lock = threading.RLock()  # reentrant: garbage collection may call `leave` of one inside `__init__` of another
    _taken: Counter[str] = Counter()

    def __init__(self, org_id: str) -> None:
        self._org_id, self._is_taken = org_id, False
        with AnswerSlot._lock:
            if AnswerSlot._taken.total() >= settings.STREAMS:
                raise TooManyStreams(503, "this process has too many streams and waiting requests open; try again soon")
            if AnswerSlot._taken[org_id] >= settings.STREAMS_PER_ORG:
                raise TooManyStreams(429, "the organization has too many streams and waiting requests open")
            AnswerSlot._taken[org_id] += 1
            self._is_taken = True

    def leave(self) -> None:
        with AnswerSlot._lock:
            if self._is_taken:
                self._is_taken = False
                AnswerSlot._taken[self._org_id] -= 1
                if not AnswerSlot._taken[self._org_id]:
                    del AnswerSlot._taken[self._org_id]

    def __del__(self) -> None:
        self.leave()


# --- Open answers ----------------------------------------------------------------------------------------------
@dataclass(eq=False, kw_only=True)
class OpenAnswer:
    """One request whose answer is not complete. It ends at `until`, by the monotonic clock.

    Making one raises TooManyStreams if this process or the organisation has too many.

    It belongs to an app token, or to a user (`user_pk`) as a member of the organisation, and ends with them.
    """

    kind: ClassVar[str] = "wait"
    org_id: str
    token_pk: int | None = None
    user_pk: int | None = None
    seconds: float = math.inf

    def __post_init__(self) -> None:
        self.until = time.monotonic() + min(self.seconds, settings.STREAM_SECONDS)
        self.place = AnswerSlot(self.org_id)


@dataclass(eq=False, kw_only=True)
class OpenStream(OpenAnswer):
    """An answer of server-sent events."""

    kind = "events"


@dataclass(eq=False, kw_only=True)
class EventStream(OpenStream):
    """The activities of one job. `told` is the number of the last activity that the client has."""

    job_id: UUID
    told: int = 0


@dataclass(eq=False, kw_only=True)
class JobChanges(OpenStream):
    """Sends an event for each change of a job, with the job's version. `seen` is the version that the client knows."""

    job_id: UUID
    seen: str = ""


@dataclass(eq=False, kw_only=True)
class OrgChanges(OpenStream):
    """Sends the ids of an organisation's jobs as they change."""

    changes: changed_jobs.ChangesReader


@dataclass(eq=False, kw_only=True)
class Wait(OpenAnswer):
    """Waits until the job's version differs from `seen`, the version that the client knows; None: until its end."""

    job_id: UUID
    seen: str | None


@dataclass(eq=False, kw_only=True)
class MessagesWait(OpenAnswer):
    """Waits for a message in a channel."""

    place_in_channel: web_messages.Reader


@dataclass(eq=False, kw_only=True)
class ClaimWait(OpenAnswer):
    """Waits until there are ready jobs for an executor."""

    kind = "claim"
    claimant: executor_claims.Claimant


_OfOneJob = EventStream | JobChanges | Wait


class OpenResponse(HttpResponse):
    """The response of a view that opens an answer. The web process uses its status and headers, and writes the content
    itself.
    """

    def __init__(self, opened: OpenAnswer) -> None:
        super().__init__()
        self.opened = opened
        if isinstance(opened, OpenStream):
            self["Content-Type"], self["Cache-Control"] = "text/event-stream", "no-store"
            self["X-Accel-Buffering"] = "no"  # asks proxies not to buffer the stream


def version(updated_at: datetime | int, activities_count: int) -> str:
    """A job's ETag: changes whenever the job changes. `updated_at` may be in microseconds since 1970."""
    if isinstance(updated_at, datetime):
        updated_at = (updated_at - _EPOCH) // _MICROSECOND
    return f"{updated_at:x}-{activities_count:x}"


# --- Finding news ----------------------------------------------------------------------------------------------
@dataclass(slots=True)
class Found:
    """News for one open answer: frames to write, whether there is more, and why it ends ('' if it does not)."""

    frames: list[bytes] = field(default_factory=list)
    told: int = 0
    has_more: bool = False
    end: str = ""


def look(opened: Sequence[OpenAnswer]) -> list[Found]:
    """Find the news for each open answer. News returned here for a stream counts as sent to its client (`told`).

    Two threads must not pass the same answer at once. An answer that fails ends with a log line, so that the others
    go on.
    """
    try:
        return _look(opened)
    except Exception as error:
        if database.is_unavailable(error):
            raise
        if len(opened) > 1:
            return [found for one in opened for found in look([one])]
        log.exception("organization %s: a stream or waiting request failed and was ended", opened[0].org_id)
        return [Found(end="failed")]


def _look(opened: Sequence[OpenAnswer]) -> list[Found]:
    progress_by_job = queries.progress_of((one.org_id, one.job_id) for one in opened if isinstance(one, _OfOneJob))
    with_news = web_messages.with_news({one.place_in_channel for one in opened if isinstance(one, MessagesWait)})
    changes = changed_jobs.read([one.changes for one in opened if isinstance(one, OrgChanges)])
    tokens = app_tokens.living({one.token_pk for one in opened if one.token_pk is not None})
    people = members.living({(one.user_pk, one.org_id) for one in opened if one.user_pk is not None})
    to_claim = _with_ready_jobs([one for one in opened if isinstance(one, ClaimWait)])
    found = [Found() for _ in opened]
    behind: list[tuple[EventStream, queries.JobProgress, Found]] = []
    for one, new in zip(opened, found, strict=True):
        if not (one.token_pk in tokens or (one.user_pk, one.org_id) in people):
            _break_off(one, new, "revoked", "unauthenticated", UNAUTHENTICATED)
        elif isinstance(one, MessagesWait):
            new.end = "changed" if one.place_in_channel in with_news else ""
        elif isinstance(one, OrgChanges):
            if news := changes[one.changes]:
                told = {"job_ids": [str(job_id) for job_id in news.job_ids]}
                new.frames.append(sse.event("changes", told, number=news.until))
        elif isinstance(one, ClaimWait):
            new.end = "changed" if one in to_claim else ""
        elif isinstance(one, _OfOneJob):
            progress = progress_by_job.get((one.org_id, one.job_id))
            if progress is None:
                _break_off(one, new, "gone", "job_not_found", "the job is no longer there")
            elif isinstance(one, Wait):
                now = version(progress.updated_at, progress.activities)
                is_over = progress.status in TERMINAL or one.seen not in (None, now)
                new.end = "changed" if is_over else ""
            elif isinstance(one, JobChanges):
                now = version(progress.updated_at, progress.activities)
                if now != one.seen:
                    one.seen = now
                    new.frames.append(sse.event("changed", {"version": now, "job_status": progress.status}))
            elif isinstance(one, EventStream):
                if progress.activities > one.told:
                    behind.append((one, progress, new))
                else:
                    _end(one, progress, new)
    if behind:
        _tell(behind)
    return found


def _with_ready_jobs(waiting: Sequence[ClaimWait]) -> set[ClaimWait]:
    by_org: defaultdict[str, list[ClaimWait]] = defaultdict(list)
    for one in waiting:
        by_org[one.org_id].append(one)
    return {
        ones[place]
        for org_id, ones in by_org.items()
        for place in executor_claims.with_ready_jobs(org_id, [one.claimant for one in ones])
    }


def _tell(behind: Sequence[tuple[EventStream, queries.JobProgress, Found]]) -> None:
    rows = queries.activities_after({(one.job_id, one.told) for one, _, _ in behind}, per_job=sse.PAGE)
    frames = {
        job_id: [(row["number"], sse.event("activity", activities.answer(row), number=row["number"])) for row in of]
        for job_id, of in rows.items()
    }
    for one, progress, new in behind:
        new.told = min(one.told + sse.PAGE, progress.activities)
        new.frames += [frame for number, frame in frames.get(one.job_id, ()) if one.told < number <= new.told]
        new.has_more = new.told < progress.activities
        if not new.has_more:
            _end(one, progress, new)
    for one, _, new in behind:
        one.told = new.told


def _end(one: EventStream, progress: queries.JobProgress, new: Found) -> None:
    if progress.status in TERMINAL:
        updated_at = stamp(_EPOCH + progress.updated_at * _MICROSECOND)
        told = {"job_id": str(one.job_id), "job_status": progress.status, "updated_at": updated_at}
        new.frames.append(sse.event("end", told))
        new.end = "ended"


def _break_off(one: OpenAnswer, new: Found, end: str, code: str, message: str) -> None:
    """End an answer early. A stream gets the reason as an event; a waiting request runs again and gets its refusal."""
    new.end = end
    if isinstance(one, OpenStream):
        new.frames.append(sse.event("closed", {"code": code, "message": message}))
