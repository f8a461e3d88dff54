"""Applies hours (`hours.stated_hours`) to turns, messages and deadlines: everything waits for the next open moment,
nothing is dropped.

- A turn that starts in closed hours is deferred: no model is called and nothing is said. The job waits for
  `quiet_hours` without a worker. When they end, it takes one turn: the deferred one, or a reply if people wrote
  meanwhile. A person's message does not wake the job early: writing does not show that the person wants an answer now.
- The end of a wait for an answer (no follow-ups left) is deferred too, since a sleeping person had no chance to answer.
- A message that is due in closed hours is held. This covers turns that end after closing time, and platforms that did
  not accept messages before it.
- A deadline counts quiet hours, unless the job's config has `count_quiet_hours` false. Then it moves to the moment at
  which that much open time has passed. The sweep checks this again before it fails a job, so it holds after any crash.

Organisations without hours pay little. A turn reads the organisation's row, so new hours hold from the next turn. A
message or a deadline reads a cached set, which sees other processes' statements within two seconds.
"""

import logging
import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

from agent_jobs.errors import Unsupported
from agent_jobs.hours import stated_hours
from agent_jobs.hours.calendar import Hours
from agent_jobs.hours.stated_hours import JobHours
from agent_jobs.lifecycle import Claim
from agent_jobs.models import Job
from channels_integration.messages import Hold, Outgoing

log = logging.getLogger(__name__)
# Turns that waited for the same opening start within this time of it, not all in its first second.
JITTER_SECONDS = 60.0
# The delay before the next attempt to send a message whose hours this process cannot read.
_UNKNOWN_HOURS_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Deferred:
    """The outcome of a deferred turn. `opens_at` is the opening, `seconds` the time until the turn's new start."""

    opens_at: datetime
    seconds: float
    time_zone: str
    say: ClassVar[tuple[str, ...]] = ()
    calls: ClassVar[tuple[Any, ...]] = ()

    @property
    def note(self) -> str:
        local = f"{self.opens_at:%Y-%m-%d %H:%M}"
        return f"waits for quiet hours to end: until {local} ({self.time_zone})"


def defer(claim: Claim, *, rng: random.Random) -> tuple[Claim, Deferred | None]:
    """Defer the turn of a claim if its hours are closed; None if the turn may run.

    Where quiet hours do not count, this moves the job's deadline and the `seconds_left` of the returned claim.
    """
    if not claim.has_hours or not claim.platform:  # a job without a channel disturbs nobody
        return claim, None
    found = stated_hours.of_job(claim.org_id, claim.id)
    if found is None:
        return claim, None
    deadline_at = _deadline(found)
    if deadline_at is not None:
        claim = replace(claim, seconds_left=(deadline_at - found.now).total_seconds())
        if deadline_at != found.deadline_at:
            Job.objects.filter(pk=claim.id, lease_token=claim.token).update(deadline_at=deadline_at)
    return claim, decide(found.hours, now=found.now, rng=rng)


def decide(hours: Hours, *, now: datetime, rng: random.Random) -> Deferred | None:
    """Defer a turn that would start in closed hours to a time within open ones; None if `now` is open."""
    opens_at = hours.next_open(now)
    if opens_at <= now:
        return None
    wake_at = opens_at + timedelta(seconds=rng.uniform(0, JITTER_SECONDS))
    if not hours.is_open(wake_at):
        wake_at = opens_at
    return Deferred(
        opens_at.astimezone(hours.time_zone), (wake_at - now).total_seconds(), time_zone=hours.time_zone.key
    )


def put_off_deadline(job: Job) -> bool:
    """Move the deadline of an overdue job that still has open time. Returns whether it moved.

    The caller holds the job's row lock.
    """
    if job.config.get("count_quiet_hours") is not False or not stated_hours.has_any(job.org_id):
        return False
    found = stated_hours.of_job(job.org_id, job.pk)
    deadline_at = _deadline(found) if found else None
    if found is None or deadline_at is None or deadline_at <= found.now:
        return False
    Job.objects.filter(pk=job.pk).update(deadline_at=deadline_at)
    return True


def _deadline(found: JobHours) -> datetime | None:
    if found.counts_from is None:
        return None
    return found.hours.after(found.counts_from, timedelta(minutes=found.deadline_minutes))


def hold(outgoing: Outgoing, written_at: datetime) -> Hold | None:
    """How long a message must be held, 0 s if it may be sent now; None if no hours hold for it.

    The outbox calls it right before it sends (`api.channel_callbacks`).
    """
    if not stated_hours.has_any(outgoing.target.org_id):
        return None
    try:
        job_id = UUID(outgoing.owner_key)
    except ValueError:
        return None
    try:
        found = stated_hours.of_job(outgoing.target.org_id, job_id)
    except Unsupported as error:
        log.warning("message %s is held, its hours cannot be read: %s", outgoing.id, error.message)
        return Hold(seconds=_UNKNOWN_HOURS_SECONDS, closed_seconds=0.0)
    if found is None:
        return None
    closed = found.now - written_at - found.hours.passed(written_at, found.now)
    return Hold(
        seconds=(found.hours.next_open(found.now) - found.now).total_seconds(), closed_seconds=closed.total_seconds()
    )
