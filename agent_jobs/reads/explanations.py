"""Explains why a job is not running, or what it waits for, to people and machines. Reads only, the organisation first.

There is one rule per status, and one per reason for which a running job waits without a worker. A queued job gets the
first rule that holds: no worker takes work; a cap is reached (the organisation's, the type's, the type's in the
channel); other jobs are ahead. Every query is bounded, however many jobs wait: queue positions beyond `MOST_COUNTED`
are not counted, and recent starts are counted in the newest few thousand activities. It reads nothing of other
organisations, although their jobs also need workers, so an estimated start is only an estimate.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.db.models.functions import Now

from agent_jobs.errors import BudgetReserved, NotFound
from agent_jobs.lifecycle import queues
from agent_jobs.lifecycle.queue_order import HEAD_START
from agent_jobs.models import Activity, Approval, Job, JobType, Org, WorkerProcess
from agent_jobs.reads import service_state
from agent_jobs.states import JobStatus, WaitingFor
from channels_integration import outbox, send_results
from infra import raw_sql

MOST_HOLDERS = 20
MOST_COUNTED = 10_000
# While workers run, one of them receives a doorbell message, or does a duty without one, every second.
_WORKS_SECONDS = 15
# Worker processes report that they are alive every ten seconds.
_SEEN_SECONDS = 60
_LATELY = timedelta(minutes=5)
_MOST_ACTIVITIES = 2_000
# A queue whose head has waited for less counts as empty.
_SHORT_SECONDS = 2.0

# The order of claims, along the same index.
_BEFORE = """
SELECT count(*) FROM (
    SELECT FROM agent_jobs_job
    WHERE queue_at IS NOT NULL AND lane = %s AND org_id = %s AND (queue_at, id) < (%s, %s)
    ORDER BY queue_at, id LIMIT %s) before
"""
# The queue has not been empty since its head entered it, so starts since then show the workers' rate.
_STARTS = f"""
WITH head AS (
    SELECT j.queue_at + {HEAD_START} AS since
    FROM agent_jobs_job j WHERE j.queue_at IS NOT NULL AND j.lane = %(lane)s AND j.org_id = %(org_id)s
    ORDER BY j.queue_at, j.id LIMIT 1
), span AS (
    SELECT greatest(since, now() - %(lately)s::interval) AS since FROM head
), lately AS (
    SELECT job_id, code, created_at FROM agent_jobs_activity
    WHERE org_id = %(org_id)s AND created_at > (SELECT since FROM span)
    ORDER BY created_at DESC, id DESC LIMIT {_MOST_ACTIVITIES}
)
SELECT count(*) FILTER (WHERE j.lane = %(lane)s), extract(epoch FROM now() - CASE count(*)
    WHEN {_MOST_ACTIVITIES} THEN min(lately.created_at) ELSE (SELECT since FROM span) END)::float8
FROM lately LEFT JOIN agent_jobs_job j ON j.id = lately.job_id AND lately.code = 'job.started'
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class Holder:
    """An obstacle: a job that fills a slot under a cap, or a message that is not sent yet.

    `state` is the job's status, or the message's state in the outbox. `next_try_at` is the message's, and so is
    `error_code`: why its last try failed.
    """

    kind: str
    id: str
    state: str
    next_try_at: datetime | None = None
    error_code: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job does not run, or what it waits for. `state` is a sentence, `rule` a code that never changes.
    `blocked_by`: what has to end first, at most MOST_HOLDERS. `unblocks`: the events after which it goes on.

    `estimated_start`: the time it waits for, or an estimate from the rate of its queue; None if unknown.
    `place_in_queue` counts the organisation's ready jobs in the same queue: 1 is next, and beyond the limit it is a
    text ("10000+"). None means that there is none or that it is unknown.
    """

    state: str
    rule: str
    blocked_by: tuple[Holder, ...] = ()
    place_in_queue: int | str | None = None
    estimated_start: datetime | None = None
    unblocks: tuple[str, ...] = ()
    left_out_tools: tuple[Mapping[str, str], ...] = ()


def of(org_id: str, job_id: UUID) -> Explanation:
    """Explain a job by the database's clock. Raises NotFound, also for another organisation's job."""
    job = Job.objects.annotate(database_now=Now()).filter(org_id=org_id, pk=job_id).first()
    if job is None:
        raise NotFound(f"there is no job {str(job_id)!r}", code="job_not_found")
    found = BY_STATUS[JobStatus(job.status)](job, job.database_now)
    return replace(found, left_out_tools=_left_out_tools(job))


# --- Not begun -------------------------------------------------------------------------------------------------
def _scheduled(job: Job, now: datetime) -> Explanation:
    if job.scheduled_at <= now:
        state = "It is due, and is about to be put into the queue."
        return _due(job, now, Explanation(state, "scheduled", estimated_start=now))
    at = _said(job.scheduled_at)
    if job.waiting_for == WaitingFor.COOLDOWN:
        state = f"A job of its type failed in this channel lately: it is held until {at}."
        return Explanation(state, "cooldown", estimated_start=job.scheduled_at, unblocks=(at,))
    return Explanation(f"It is scheduled for {at}.", "scheduled", estimated_start=job.scheduled_at, unblocks=(at,))


def _in_queue(job: Job, now: datetime) -> Explanation:
    """A ready job. One that has begun keeps its slot under the caps and is not checked against them again."""
    place = _place(job)
    if job.lane == queues.EXTERNAL_LANE:
        return _for_executor(job, place)
    work = service_state.work_lately(within_seconds=_WORKS_SECONDS)
    if not work.is_any:
        return replace(_NO_WORKERS, place_in_queue=place)
    if not _is_understood(job):
        state = f"No worker process at present knows its runner {job.runner!r}: a newer release wrote the job."
        return Explanation(state, "unknown_runner", place_in_queue=place, unblocks=("a worker of that release",))
    found = _by_caps(job, place) if job.status == JobStatus.WAITING else None
    if found is None:
        before = "it is the first of its organization" if place == 1 else f"it is number {place} in its queue"
        state = f"It is ready and starts when a worker is free: {before}."
        if not work.has_worked:
            state += " No Celery messages arrive at present, so workers poll the database once a second."
        found = Explanation(state, "queue", unblocks=("a worker that is free",))
    is_estimated = job.status == JobStatus.WAITING and found.rule in ("queue", "org_cap")
    return replace(found, place_in_queue=place, estimated_start=_estimate(job, place, now) if is_estimated else None)


def _for_executor(job: Job, place: int | str) -> Explanation:
    """A ready job that an executor has to claim. A cap counts for it, as for jobs of workers."""
    found = _by_caps(job, place) if job.status == JobStatus.WAITING else None
    if found is None:
        state = f"It is ready and starts when an executor claims it: it is number {place} in its queue."
        found = Explanation(state, "executor", unblocks=("an executor that fits its type and labels",))
    return replace(found, place_in_queue=place)


def _by_caps(job: Job, place: int | str) -> Explanation | None:
    """The first cap that is reached, counted by status as `lifecycle.running_caps` does, whatever a job waits for."""
    running = Job.objects.filter(org_id=job.org_id, status=JobStatus.RUNNING)
    of_type = running.filter(job_type_key=job.job_type_key)
    of_channel = of_type.filter(platform=job.platform, channel_code=job.channel_code)
    org_cap = Org.objects.filter(pk=job.org_id).values_list("max_running_jobs", flat=True).first()
    caps = JobType.objects.filter(org_id=job.org_id, key=job.job_type_key)
    type_cap, channel_cap = caps.values_list("max_running", "max_running_per_channel").first() or (None, None)
    in_channel = f"jobs of type {job.job_type_key!r} in {_channel(job)}"
    for rule, cap, holders, what in (
        ("org_cap", org_cap, running, "jobs of the organization"),
        ("job_type_cap", type_cap, of_type, f"jobs of type {job.job_type_key!r}"),
        ("channel_cap", channel_cap, of_channel, in_channel),
    ):
        if cap is not None and holders.order_by().values("pk")[:cap].count() >= cap:
            return _full(rule, cap, holders, what)
    return None


def _full(rule: str, cap: int, holders: QuerySet[Job], what: str) -> Explanation:
    found = holders.order_by("created_at", "id").values_list("id", "status")[:MOST_HOLDERS]
    blocked_by = tuple(Holder("job", str(job_id), status) for job_id, status in found)
    if cap == 1:
        state = f"Only one of the {what} may run at a time, and one does."
        unblocks = tuple(f"job {holder.id} ending" for holder in blocked_by)
    else:
        state = f"Only {cap} {what} may run at a time, and as many do."
        unblocks = ("one of these jobs ending",)
    return Explanation(state, rule, blocked_by, unblocks=unblocks)


# --- Begun -----------------------------------------------------------------------------------------------------
def _running(job: Job, now: datetime) -> Explanation:
    if job.queue_at is not None:
        return _in_queue(job, now)
    if job.lease_until is None:
        return BY_WAIT.get(job.waiting_for, _for_something_unknown)(job, now)
    holder = f"executor {job.executor_id}" if job.lane == queues.EXTERNAL_LANE else "worker"
    if job.lease_until <= now:
        state = f"Its {holder} is not heard of any more: the job is taken back, and goes into the queue again."
        return _due(job, now, Explanation(state, "lease_lapsed", unblocks=("the next sweep, within seconds",)))
    runs = f"The {holder} has it" if job.lane == queues.EXTERNAL_LANE else "A worker runs it"
    return Explanation(f"{runs}: attempt {job.attempt}.", "running", unblocks=("the end of its turn",))


def _for_reply(job: Job, now: datetime) -> Explanation:
    reply = f"a reply in {_channel(job)}"
    if job.timer_message_id is not None:
        state = f"It waits for {reply}; what it asked is not delivered yet, and its time for an answer begins then."
        unblocks: tuple[str, ...] = (reply, "the delivery of its message")
        return Explanation(state, "waiting_for_reply", _undelivered(job), unblocks=unblocks)
    if job.wake_at is None:
        return Explanation(f"It waits for {reply}.", "waiting_for_reply", unblocks=(reply,))
    at = _said(job.wake_at)
    state = f"It waits for {reply}; without one it goes on at {at}."
    return _due(job, now, Explanation(state, "waiting_for_reply", unblocks=(reply, at)))


def _for_delivery(job: Job, now: datetime) -> Explanation:
    messages = _undelivered(job)
    state = "It is done, and ends when what it said is delivered"
    tries = [message.next_try_at for message in messages if message.next_try_at is not None]
    if tries:
        state += f": {len(messages)} of its messages not yet, tried next at {_said(max(min(tries), now))}"
    return Explanation(f"{state}.", "delivery", messages, unblocks=("the delivery of its messages",))


def _until(rule: str, state: str, *unblocks: str) -> Callable[[Job, datetime], Explanation]:
    """A wait that ends at `wake_at`, or earlier by another event."""

    def explain(job: Job, now: datetime) -> Explanation:
        if job.wake_at is None:
            return Explanation(f"{state}.", rule, unblocks=unblocks)
        at = _said(job.wake_at)
        found = Explanation(f"{state}, until {at}.", rule, estimated_start=job.wake_at, unblocks=(*unblocks, at))
        return _due(job, now, found)

    return explain


def _for_approval(job: Job, now: datetime) -> Explanation:
    asked = Approval.objects.filter(org_id=job.org_id, job_id=job.pk, status=Approval.Status.PENDING).last()
    state = "It waits for somebody's approval"
    if asked and asked.kind == Approval.Kind.BUDGET:
        over = asked.arguments
        of = f"{over['cap']} of the {over['of'].replace('_', ' ')}"
        state += f" to go on: {of} is {over['limit']:,}, {over['used']:,} of it are used, and a call takes more"
    if asked and asked.is_unasked:
        lost = asked.undelivered[-1]
        state += f"; its question could not be delivered in {lost['platform']}:{lost['code']} ({lost['error_code']})"
        return _until("approval", state, "an approval or a denial by API or console")(job, now)
    if asked and asked.timer_seconds is not None:
        found = Explanation(f"{state}; its question is not out yet.", "approval", _undelivered(job))
        return replace(found, unblocks=("an approval or a denial",))
    return _until("approval", state, "an approval or a denial")(job, now)


def _for_retry(job: Job, now: datetime) -> Explanation:
    last = job.tasks.order_by("-number").values_list("result", flat=True).first() or ""
    waits_for_budget = last.startswith(f"{BudgetReserved.code}: ")
    state = last.removeprefix(f"{BudgetReserved.code}: ") if waits_for_budget else ""
    state = f"It waits for budget: {state}" if state else "Its last attempt failed; it waits for the next one"
    return _until("retry", state)(job, now)


def _for_something_unknown(job: Job, now: datetime) -> Explanation:
    state = f"It waits for something that this release does not know: {job.waiting_for}"
    return _until("unknown_wait", state, "a process of a newer release")(job, now)


# --- Ended -----------------------------------------------------------------------------------------------------
def _ended(job: Job, now: datetime) -> Explanation:
    code = f" ({job.error_code})" if job.error_code else ""
    at = _said(job.finished_at) if job.finished_at else "some time ago"
    can_retry = job.status != JobStatus.COMPLETED
    unblocks = (("a retry of it",) if can_retry else ()) + ("a replay of it, as a new job",)
    return Explanation(f"It has ended: {job.status}{code}, at {at}.", "ended", unblocks=unblocks)


BY_STATUS: Mapping[JobStatus, Callable[[Job, datetime], Explanation]] = {
    JobStatus.SCHEDULED: _scheduled,
    JobStatus.WAITING: _in_queue,
    JobStatus.RUNNING: _running,
    JobStatus.COMPLETED: _ended,
    JobStatus.FAILED: _ended,
    JobStatus.CANCELED: _ended,
}
BY_WAIT: Mapping[str, Callable[[Job, datetime], Explanation]] = {
    "": _until("running", "It is between two steps"),
    WaitingFor.REPLY: _for_reply,
    WaitingFor.RETRY: _for_retry,
    WaitingFor.DELIVERY: _for_delivery,
    WaitingFor.COOLDOWN: _until("cooldown", "It is delayed after a failure of its type in this channel"),
    WaitingFor.APPROVAL: _for_approval,
    WaitingFor.QUIET_HOURS: _until("quiet_hours", "It waits for the end of quiet hours"),
}


# --- Looking ---------------------------------------------------------------------------------------------------
_NO_WORKERS = Explanation(
    "It is ready, but no worker process takes any work at present.", "no_workers", unblocks=("a worker process",)
)


def _is_understood(job: Job) -> bool:
    """Whether a recently seen worker process knows the job's runner; also true if none was seen."""
    seen = WorkerProcess.objects.filter(seen_at__gte=Now() - timedelta(seconds=_SEEN_SECONDS), lost_at=None)
    return not seen.exists() or seen.filter(runners__contains=[job.runner]).exists()


def _left_out_tools(job: Job) -> tuple[Mapping[str, str], ...]:
    if not any(tool.get("type") == "mcp" for tool in job.agent.get("tools", [])):
        return ()
    found = Activity.objects.filter(org_id=job.org_id, job_id=job.pk, life=job.retry_count, code="tools.left_out")
    output = found.order_by("-created_at", "-id").values_list("output", flat=True).first()
    return tuple(output["left_out"]) if output else ()


def _due(job: Job, now: datetime, found: Explanation) -> Explanation:
    """`found`, unless the job is due and no worker process can act on it."""
    at = job.wake_at or job.lease_until or job.scheduled_at
    is_stuck = at <= now and not service_state.work_lately(within_seconds=_WORKS_SECONDS).is_any
    return _NO_WORKERS if is_stuck else found


def _place(job: Job) -> int | str:
    before: int = raw_sql.value(_BEFORE, [job.lane, job.org_id, job.queue_at, job.pk, MOST_COUNTED])
    return before + 1 if before < MOST_COUNTED else f"{MOST_COUNTED}+"


def _estimate(job: Job, place: int | str, now: datetime) -> datetime | None:
    if not isinstance(place, int):
        return None
    starts, seconds = raw_sql.first(_STARTS, {"org_id": job.org_id, "lane": job.lane, "lately": _LATELY})
    if starts:
        return now + timedelta(seconds=place * max(seconds, 0) / starts)
    return now if seconds is None or seconds < _SHORT_SECONDS else None


def _undelivered(job: Job) -> tuple[Holder, ...]:
    return tuple(
        Holder("message", str(message.id), _state(message), message.due_at, message.error_code)
        for message in outbox.undelivered(job.org_id, str(job.pk), most=MOST_HOLDERS)
        if not message.is_recalled
    )


def _state(message: Any) -> str:
    """The state as the outbox has it; "held" while people's hours are closed."""
    return "held" if message.status == "pending" and message.error_code == send_results.HELD else str(message.status)


def _channel(job: Job) -> str:
    return f"{job.platform}:{job.channel_code}"


def _said(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
