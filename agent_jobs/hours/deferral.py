"""What the hours of people (`hours.quiet_times`) mean for turns, messages and deadlines: everything waits for the
next open moment, nothing is dropped.

* A turn that comes up while it is closed is not taken: no model is asked, nothing is said. The job waits for
  `quiet_hours` until it opens, without a worker. However much happens meanwhile, the wait ends in one turn: whatever
  people have said by then makes it a reply, else it is what was put off. A message from somebody does not wake the job
  early: that they write does not say that they want to be written to.
* The end of a wait for an answer (no follow-ups left) waits, too: who slept had no chance to answer.
* A message that is due while it is closed is held; so nothing leaves by the back door when a turn ends after closing
  time, or a platform took no messages before it.
* A deadline counts quiet hours, unless the job's config has `count_quiet_hours` false: then it is moved to where that
  much open time has passed. The sweep looks at it once more before it fails a job, so it holds whoever is dead.

Jobs of organisations that state no hours pay a look: a turn into the organisation's row, so that its first hours hold
from the next turn on; a message or a deadline into a set, which other processes' statements reach in two seconds.
"""

import logging
import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

from agent_jobs.errors import Unsupported
from agent_jobs.hours import quiet_times
from agent_jobs.hours.calendar import Hours
from agent_jobs.hours.quiet_times import OfJob
from agent_jobs.lifecycle import Claim
from agent_jobs.models import Job
from channels_integration.messages import Hold, Outgoing

log = logging.getLogger(__name__)
# Turns that waited for the same opening begin within this time of it, not all in its first second.
JITTER_SECONDS = 60.0
# When a message is looked at again whose hours this process does not understand.
_UNKNOWN_HOURS_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Deferred:
    """The outcome of a turn that is not taken now. `opens_at` is the opening, `seconds` until the turn's new time."""

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
    """Whether the turn of a claim has to wait; None if it may be taken.

    Moves the job's deadline where quiet hours do not count, and the `seconds_left` of the claim that it returns.
    """
    if not claim.has_hours:
        return claim, None
    found = quiet_times.of_job(claim.org_id, claim.id)
    if found is None:
        return claim, None
    deadline_at = _deadline(found)
    if deadline_at is not None:
        claim = replace(claim, seconds_left=(deadline_at - found.now).total_seconds())
        if deadline_at != found.deadline_at:
            Job.objects.filter(pk=claim.id, lease_token=claim.token).update(deadline_at=deadline_at)
    return claim, decide(found.hours, now=found.now, rng=rng)


def decide(hours: Hours, *, now: datetime, rng: random.Random) -> Deferred | None:
    """None where it is open at `now`. The new time is never outside of what is open."""
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
    """For a job whose deadline has come, its row locked: whether open time is left, and the deadline moved."""
    if job.config.get("count_quiet_hours") is not False or not quiet_times.has_any(job.org_id):
        return False
    found = quiet_times.of_job(job.org_id, job.pk)
    deadline_at = _deadline(found) if found else None
    if found is None or deadline_at is None or deadline_at <= found.now:
        return False
    Job.objects.filter(pk=job.pk).update(deadline_at=deadline_at)
    return True


def _deadline(found: OfJob) -> datetime | None:
    if found.counts_from is None:
        return None
    return found.hours.after(found.counts_from, timedelta(minutes=found.deadline_minutes))


def hold(outgoing: Outgoing, written_at: datetime) -> Hold | None:
    """Whether a message about to be sent has to wait (settings.CHANNELS_HOURS_HANDLER)."""
    if not quiet_times.has_any(outgoing.target.org_id):
        return None
    try:
        job_id = UUID(outgoing.owner_key)
    except ValueError:
        return None
    try:
        found = quiet_times.of_job(outgoing.target.org_id, job_id)
    except Unsupported as error:
        log.warning("message %s is held, its hours cannot be read: %s", outgoing.id, error.message)
        return Hold(seconds=_UNKNOWN_HOURS_SECONDS, closed_seconds=0.0)
    if found is None:
        return None
    closed = found.now - written_at - found.hours.passed(written_at, found.now)
    return Hold(
        seconds=(found.hours.next_open(found.now) - found.now).total_seconds(), closed_seconds=closed.total_seconds()
    )
