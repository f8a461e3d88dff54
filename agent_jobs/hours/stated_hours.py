"""The hours that an organisation states for itself, for a channel or for a person. `hours.deferral` applies them.

The most specific statement holds as a whole: a person's before the channel's, the channel's before the organisation's.
So a channel that is always open, or a person in another country, needs one statement. Such a statement must repeat the
organisation's holidays. Without any statement it is always open.

The person of a job is the last one who wrote in it, by their id on the platform. Before anybody writes, it is the
channel's own code, since a direct message may be addressed to a person.
"""

import json
import re
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from agent_jobs.audit import audit_log
from agent_jobs.errors import FieldError, Invalid, NotFound, Unsupported, summary
from agent_jobs.hours import calendar
from agent_jobs.hours.calendar import Hours
from agent_jobs.models import Job, Org, PlaceHours
from agent_jobs.specs import Actor
from agent_jobs.states import JobStatus, WaitingFor
from agent_jobs.tenants import row_limits
from channels_integration import outbox
from infra import database, invisible_text, raw_sql

# Each process caches statements of other processes for this long.
REMEMBERED_SECONDS = 2.0
_PLATFORM = re.compile(r"[a-z][a-z0-9_-]{0,31}\Z")
_NAME = re.compile(r"[^\x00-\x20\x7f/](?:[^\x00-\x1f\x7f/]{0,253}[^\x00-\x20\x7f/])?\Z")


@dataclass(frozen=True, slots=True)
class Place:
    """The owner of hours: the organisation (no `kind`), or a channel or person on a platform."""

    kind: str = ""
    platform: str = ""
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.platform}:{self.name}" if self.kind else "organization"


@dataclass(frozen=True, slots=True)
class Statement:
    place: Place
    stated: Mapping[str, Any]
    hours: Hours
    now: datetime


# --- Stating ---------------------------------------------------------------------------------------------------
def put(org_id: str, place: Place, stated: Any, *, actor: Actor) -> Statement:
    """Store or replace a statement of hours, and recheck whatever waits for the old ones.

    Raises Invalid, and Conflict (`too_many_hours`) if too many places have hours.
    """
    parsed, errors = calendar.parse(stated, at="hours")
    if place.kind and not _PLATFORM.match(place.platform):
        errors.append(
            FieldError("platform", "invalid", "must be the name of a platform, such as slack, web or webhook")
        )
    is_channel = place.kind == PlaceHours.Kind.CHANNEL
    if place.kind and not _NAME.match(place.name):
        form = "must be 1 to 255 characters without slashes or control characters"
        errors.append(FieldError("code" if is_channel else "person", "invalid", form))
    elif is_channel and (complaint := invisible_text.in_code(place.name)):
        errors.append(FieldError("code", "invalid", complaint))
    if errors:
        raise Invalid(*errors)
    with transaction.atomic():
        org = _lock(org_id)
        before = _stated(org, place)
        if before != stated:
            if place.kind and before is None:
                there, most = PlaceHours.objects.filter(org_id=org_id), row_limits.MOST_PLACES_WITH_HOURS
                row_limits.require(org_id, there, most, what="channels and people with hours", code="too_many_hours")
            if place.kind:
                PlaceHours.objects.update_or_create(
                    **_key(org_id, place), defaults={"hours": stated, "updated_at": Now()}
                )
            else:
                Org.objects.filter(pk=org_id).update(hours=stated)
            _record(org_id, place, before, stated, actor)
            _look_again(org_id, place)
    return Statement(place, stated, parsed, database.now())


def remove(org_id: str, place: Place, *, actor: Actor) -> None:
    """Remove the hours that are stated for a place. Raises NotFound if there are none."""
    with transaction.atomic():
        org = _lock(org_id)
        before = _stated(org, place)
        if before is None:
            raise _not_found(place)
        if place.kind:
            PlaceHours.objects.filter(**_key(org_id, place)).delete()
        else:
            Org.objects.filter(pk=org_id).update(hours=None)
        _record(org_id, place, before, None, actor)
        _look_again(org_id, place)


def get(org_id: str, place: Place) -> Statement:
    """The hours that are stated for this place. Raises NotFound if there are none."""
    org = Org.objects.filter(pk=org_id).first()
    stated = _stated(org, place) if org else None
    if stated is None:
        raise _not_found(place)
    return Statement(place, stated, calendar.parse(stated, at="hours")[0], database.now())


def statements(rows: Iterable[Mapping[str, Any]]) -> list[Statement]:
    """Build statements from rows of `queries.hours_of_places`."""
    now = database.now()
    return [
        Statement(
            Place(row["kind"], row["platform"], row["name"]),
            row["hours"],
            calendar.parse(row["hours"], at="hours")[0],
            now,
        )
        for row in rows
    ]


def _lock(org_id: str) -> Org:
    """Serialise statements per organisation, because `_look_again` updates many rows."""
    return Org.objects.select_for_update(no_key=True).get(pk=org_id)


def _key(org_id: str, place: Place) -> dict[str, Any]:
    return {"org_id": org_id, "kind": place.kind, "platform": place.platform, "name": place.name}


def _stated(org: Org, place: Place) -> Any:
    if not place.kind:
        return org.hours
    if "\x00" in place.platform + place.name:
        return None
    return PlaceHours.objects.filter(**_key(org.pk, place)).values_list("hours", flat=True).first()


def _not_found(place: Place) -> NotFound:
    whose = f"the {place.kind} {place.platform[:32]}:{place.name[:64]!r}" if place.kind else "the organization"
    return NotFound(f"there are no hours of {whose}", code="hours_not_found")


def _record(org_id: str, place: Place, before: Any, after: Any, actor: Actor) -> None:
    verb = "removed" if after is None else "updated" if before else "created"
    told = [None if stated is None else {"hours": stated} for stated in (before, after)]
    audit_log.record(org_id, f"hours.{verb}", place, actor=actor, before=told[0], after=told[1])


def _look_again(org_id: str, place: Place) -> None:
    """Wake jobs that wait for quiet hours, so that those still closed wait again, and make held messages due again."""
    waiting = Job.objects.filter(
        org_id=org_id,
        status=JobStatus.RUNNING,
        waiting_for=WaitingFor.QUIET_HOURS,
        wake_at__isnull=False,
        lease_until__isnull=True,
        queue_at__isnull=True,
    )
    if place.kind:
        waiting = waiting.filter(platform=place.platform)
    if place.kind == PlaceHours.Kind.CHANNEL:
        waiting = waiting.filter(channel_code=place.name)
    waiting.update(wake_at=Now(), updated_at=Now())
    outbox.look_again(org_id)
    forget()
    transaction.on_commit(forget)


# --- Who has any -----------------------------------------------------------------------------------------------
_ORGS = """
SELECT id FROM agent_jobs_org WHERE hours IS NOT NULL
UNION SELECT org_id FROM agent_jobs_placehours GROUP BY org_id
"""
_lock_of_known = threading.Lock()
_known: tuple[float, frozenset[str]] | None = None


def has_any(org_id: str) -> bool:
    """Whether the organisation states any hours; at most one small query in two seconds per process."""
    global _known
    known = _known
    if known is None or time.monotonic() > known[0]:
        with _lock_of_known:
            if known is _known:
                orgs = frozenset(org for (org,) in raw_sql.all_rows(_ORGS))
                _known = (time.monotonic() + REMEMBERED_SECONDS, orgs)
            known = _known or (0.0, frozenset())
    return org_id in known[1]


def forget() -> None:
    """Drop the cache; the next call reads the database."""
    global _known
    _known = None


# --- Which hold ------------------------------------------------------------------------------------------------
# A job's time starts at its first RUNNING in this life; a retry begins another life.
_OF_JOB = """
SELECT now(), coalesce(p.hours, c.hours, o.hours)::text, j.deadline_at, j.deadline_minutes,
    CASE WHEN j.config->>'count_quiet_hours' = 'false' THEN coalesce((
        SELECT min(a.created_at) FROM agent_jobs_activity a
        WHERE a.job_id = j.id AND a.life = j.retry_count AND a.moved_to = 'RUNNING'), j.started_at) END
FROM agent_jobs_job j
JOIN agent_jobs_org o ON o.id = j.org_id
LEFT JOIN agent_jobs_placehours c
    ON c.org_id = j.org_id AND c.kind = 'channel' AND c.platform = j.platform AND c.name = j.channel_code
LEFT JOIN LATERAL (
    SELECT m.author FROM agent_jobs_message m WHERE m.job_id = j.id AND m.is_human ORDER BY m.id DESC LIMIT 1
) last ON true
LEFT JOIN agent_jobs_placehours p ON p.org_id = j.org_id AND p.kind = 'person' AND p.platform = j.platform
    AND p.name = coalesce(last.author, j.channel_code)
WHERE j.id = %s AND j.org_id = %s
"""


@dataclass(frozen=True, slots=True)
class JobHours:
    """The hours that hold for a job at `now`, by the database's clock. `counts_from` is set if quiet hours do not count
    for its deadline: the moment from which open time counts.
    """

    now: datetime
    hours: Hours
    deadline_at: datetime | None
    deadline_minutes: float
    counts_from: datetime | None


def of_job(org_id: str, job_id: UUID | str) -> JobHours | None:
    """The hours of a job; None if there is no such job, or if no hours hold for it.

    Raises Unsupported if a newer release wrote them in a form that this process does not know.
    """
    row = raw_sql.first(_OF_JOB, [str(job_id), org_id])
    if row is None or row[1] is None:
        return None
    now, stated, deadline_at, deadline_minutes, counts_from = row
    return JobHours(now, _parsed(stated), deadline_at, deadline_minutes, counts_from)


@lru_cache(maxsize=1024)
def _parsed(stated: str) -> Hours:
    parsed, errors = calendar.parse(json.loads(stated), at="hours")
    if errors:  # they were valid when stored, so a newer release wrote them
        raise Unsupported(f"this process does not understand the hours: {summary(errors)}"[:1_000])
    return parsed
