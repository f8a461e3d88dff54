"""Recovery duties: take back the jobs of dead workers, fail overdue and expired ones, ring again for those that wait.

They are idempotent and safe to run concurrently: they lock rows with SKIP LOCKED, and moves are guarded.

A job fails after three crashes (MAX_CRASHES) of its workers. Only crashes since its last finished turn count, so a
conversation of weeks does not fail because machines are lost now and then. A job that kills its workers never finishes
a turn, so it reaches three.
"""

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from agent_jobs import duty_rounds, lifecycle
from agent_jobs.conversation import agent_messages
from agent_jobs.hours import deferral
from agent_jobs.legal_moves import Event
from agent_jobs.lifecycle import endings, queues, running_caps
from agent_jobs.models import DutyRun, Job, WorkerProcess
from agent_jobs.specs import Actor
from agent_jobs.states import JobStatus, TaskStatus
from infra import meters, raw_sql
from infra.quarantine import Quarantine

MAX_CRASHES = 3
_SWEEPER, _EXPIRER = Actor("system", "recovery"), Actor("system", "queue-expiry")
_BATCH = 200
# A worker is lost when its lock was free for this long; a live worker takes it again sooner after losing its session.
_LOST_AFTER = timedelta(seconds=2)
# After an outage of the database, keepers get this long to renew their leases before lapsed leases count.
_SETTLING = timedelta(seconds=5)
_take_back_failed: Quarantine[UUID] = Quarantine("take_back")
_deadlines_failed: Quarantine[UUID] = Quarantine("deadlines")
_expiry_failed: Quarantine[UUID] = Quarantine("expire")

# A worker process holds its advisory lock for as long as its session lives.
_NOTE_LOST_WORKERS = """
UPDATE agent_jobs_workerprocess w SET lost_at = now()
WHERE w.lost_at IS NULL AND w.seen_at > now() - interval '1 day' AND NOT EXISTS (
    SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.classid = %s AND l.objid = w.id
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
"""

_IS_SETTLING = f"""
WITH resumed AS (
    INSERT INTO agent_jobs_dutyrun (duty)
    SELECT '{DutyRun.RESUMED}' FROM agent_jobs_dutyrun
    WHERE duty = 'take_back' AND done_at < now() - make_interval(secs => %(outage)s)
    ON CONFLICT (duty) DO UPDATE SET done_at = now() RETURNING 1
)
SELECT EXISTS (SELECT FROM resumed) OR EXISTS (
    SELECT FROM agent_jobs_dutyrun
    WHERE duty = '{DutyRun.RESUMED}' AND done_at > now() - make_interval(secs => %(settling)s))
"""  # noqa: S608


def take_back_lost() -> int:
    """Move jobs with a lapsed lease or a dead worker back to WAITING; fail them the third time. Returns how many."""
    raw_sql.run(_NOTE_LOST_WORKERS, [WorkerProcess.LOCK_SPACE])
    # Only an outage longer than this lets a lease lapse.
    outage = max(settings.LEASE_SECONDS - settings.HEARTBEAT_SECONDS - 2, 2)
    is_settling = raw_sql.value(_IS_SETTLING, {"outage": outage, "settling": _SETTLING.total_seconds()})
    duty_rounds.note_done("take_back")
    leased = Job.objects.filter(lease_until__isnull=False)
    # A lease that lapsed during an outage does not mean that its worker is dead: live workers renew it afterwards.
    lapsed = leased.none() if is_settling else leased.filter(lease_until__lt=Now())
    dead = list(WorkerProcess.objects.filter(lost_at__lt=Now() - _LOST_AFTER).values_list("id", flat=True))
    return sum(
        _take_back_failed.each(lost, _take_back, most=_BATCH) for lost in (lapsed, leased.filter(worker_id__in=dead))
    )


def _take_back(job: Job) -> bool:
    crashes = job.crash_count + 1
    transaction.on_commit(lambda: meters.add("taken_back", reason="lost"), robust=True)
    holder = f"executor {job.executor_id}" if job.lane == queues.EXTERNAL_LANE else "worker"
    left_as = TaskStatus.TIMEOUT if job.lane == queues.EXTERNAL_LANE else TaskStatus.FAILED
    if crashes < MAX_CRASHES:
        note = f"WAITING: its {holder} was lost ({crashes} of {MAX_CRASHES})"
        lifecycle.move_one(Event.TAKE_BACK, job, actor=_SWEEPER, note=note, left_as=left_as, crash_count=crashes)
        queues.ring_on_commit(job.lane)
        return True
    is_external = job.lane == queues.EXTERNAL_LANE
    code = "executor_lost" if is_external else "worker_lost"
    message = f"its {'executors were lost' if is_external else 'worker died'} {crashes} times"
    lifecycle.fail_one(job, code, message, actor=_SWEEPER, left_as=left_as, crash_count=crashes)
    agent_messages.withdraw(job)
    running_caps.ring_for_place(job)
    return True


def give_back(held: Mapping[UUID, int]) -> int:
    """Make the unfinished jobs of a stopping worker ready for others at once. This does not count as a crash.

    `held` maps job ids to fencing tokens. A thread that still works on such a job can write nothing more. Returns how
    many jobs, without those whose turn has just ended.
    """
    given_back = 0
    for job_id, token in held.items():
        with transaction.atomic():
            leased = Job.objects.filter(pk=job_id, lease_token=token, lease_until__isnull=False)
            job = leased.select_for_update().first()
            if job is not None:
                lifecycle.move_one(Event.TAKE_BACK, job, actor=_SWEEPER, note="WAITING: its worker was stopped")
                queues.ring_on_commit(job.lane)
                meters.add("taken_back", reason="stopped")
                given_back += 1
    return given_back


def fail_overdue() -> int:
    """Fail jobs past their deadline; they keep their result so far. Returns how many.

    A job that has spoken in its channel says there that it stops.
    """
    overdue = Job.objects.filter(status__in=[JobStatus.WAITING, JobStatus.RUNNING], deadline_at__lte=Now())
    return _deadlines_failed.each(overdue.order_by("deadline_at"), _fail_overdue, most=_BATCH)


def _fail_overdue(job: Job) -> bool:
    if deferral.put_off_deadline(job):
        return False
    lifecycle.fail_one(job, "deadline_exceeded", f"not done within {job.deadline_minutes:g} minutes", actor=_SWEEPER)
    agent_messages.withdraw(job)
    running_caps.ring_for_place(job)
    if agent_messages.that_spoke([job]):
        agent_messages.say(job, "I have to stop here: the time for this is over.")
    return True


def fail_expired() -> int:
    """Fail the jobs that no worker has begun within their `queue_ttl_minutes`. Returns how many."""
    expired = Job.objects.filter(status=JobStatus.WAITING, started_at__isnull=True, expires_at__lte=Now())
    return _expiry_failed.each(expired.order_by("expires_at"), _fail_expired, most=_BATCH)


def _fail_expired(job: Job) -> bool:
    lifecycle.fail_one(job, endings.EXPIRED, endings.expiry_message(job.config), actor=_EXPIRER)
    return True


def ring_for_waiting() -> int:
    """Ring again for every queue with a job that has been ready for a second: its doorbell may have been lost.

    Returns how many queues.
    """
    rung = 0
    waiting = Job.objects.filter(queue_at__lt=Now() - timedelta(seconds=1))
    for lane in queues.LANES:
        if waiting.filter(lane=lane).exists():
            queues.ring(lane, times=2)
            rung += 1
    return rung
