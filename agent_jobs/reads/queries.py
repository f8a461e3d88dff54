"""Every read, the organisation first. Lists are plain rows of named columns, in a constant number of statements.

Another organisation's id is NotFound, exactly like a missing one. The API document requires one exception: `job` raises
Forbidden with a constant message.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from django.db import DataError
from django.db.models import F, Model, QuerySet

from agent_jobs.errors import Forbidden, NotFound
from agent_jobs.models import (
    Activity,
    Approval,
    AppToken,
    AuditEntry,
    Job,
    JobType,
    Message,
    ModelKey,
    Org,
    PlaceHours,
    Profile,
    Task,
    ToolSecret,
    UsageDay,
    WebhookDelivery,
    WebhookEndpoint,
)
from agent_jobs.models.jobs import IN_QUEUE
from agent_jobs.reads import pages
from infra import raw_sql

log = logging.getLogger(__name__)
Row = Mapping[str, Any]
_M = TypeVar("_M", bound=Model)

JOB_COLUMNS = (
    *("id", "org_id", "status", "job_type_key", "platform", "channel_code", "channel_type", "channel_data"),
    *("params", "config", "tags", "priority", "is_new_channel", "ignore_cooldown", "created_at", "updated_at"),
    *("requested_at", "delay_minutes", "delay_seconds", "scheduled_at", "started_at", "deadline_at"),
    *("work", "outcome_channel", "schedule_id", "fire_at", "metadata", "unique_key", "unique_scope", "expires_at"),
    *("executor_id", "progress_percent", "progress_message", "progress_at"),
    *("finished_at", "queue_at", "waiting_for", "wake_at", "lease_until", "thread", "inbox_count"),
    *("first_reply_at", "result", "result_data", "error_code", "error_message", "replay_of", "retry_count"),
    *("time_spent", "state_since"),
)
ACTIVITY_COLUMNS = (
    *("id", "org_id", "job_id", "number", "code", "status", "note", "actor", "source_type", "execution_id"),
    *("allocated_credits", "consumed_credits", "credits_rule_id", "input", "output", "processed_at"),
    *("created_at", "updated_at", "job__platform", "job__channel_code", "job__thread", "job__job_type_key"),
)
# Never includes the value.
TOOL_SECRET_COLUMNS = ("id", "org_id", "name", "hosts", "created_at", "updated_at")
MESSAGE_COLUMNS = (
    *("id", "key", "job_id", "is_human", "author", "text"),
    *("created_at", "delivered_at", "edited_at", "deleted_at"),
)
APPROVAL_COLUMNS = (
    *("id", "org_id", "job_id", "kind", "tool", "question", "arguments", "edited_arguments", "approvers"),
    *("on_timeout", "asked_in", "undelivered"),
    *("status", "decided_by", "reason", "created_at", "expires_at", "timer_seconds", "decided_at"),
)
# Never includes a secret.
WEBHOOK_ENDPOINT_COLUMNS = (
    *("id", "org_id", "url", "event_types", "description", "enabled", "disabled_at", "disabled_reason"),
    *("failing_since", "previous_secret_until", "created_at", "updated_at"),
)
WEBHOOK_DELIVERY_COLUMNS = (
    *("id", "org_id", "endpoint_id", "announcement_id", "event", "status", "attempts", "due_at", "created_at"),
    *("ended_at", "announcement__created_at", "announcement__payload"),
)
WEBHOOK_DELIVERY_STATUSES = tuple(WebhookDelivery.Status.values)
APPROVAL_STATUSES = tuple(Approval.Status.values)
APPROVAL_KINDS = tuple(Approval.Kind.values)
# Never includes the digest.
APP_TOKEN_COLUMNS = (
    *("id", "org_id", "public_id", "app", "name", "scopes", "created_by", "created_at", "expires_at"),
    *("last_used_at", "revoked_at"),
)
AUDIT_COLUMNS = (
    *("id", "org_id", "at", "actor", "request_id", "action", "object_type", "object_id", "before", "after"),
)
_ENTRY_COLUMNS = (
    *("key", "org_id", "name", "description", "emoji", "version", "visibility", "active", "tags"),
    *("created_at", "updated_at"),
)
JOB_TYPE_COLUMNS = (
    *(*_ENTRY_COLUMNS, "runner", "params_schema", "result_schema", "default_config", "work", "tools"),
    *("max_running", "max_running_per_channel", "max_tokens_per_day", "max_cost_per_day"),
)
HOURS_COLUMNS = ("id", "kind", "platform", "name", "hours", "updated_at")
PROFILE_COLUMNS = (
    *(*_ENTRY_COLUMNS, "instructions", "model", "base_url", "fallback_model"),
    *("max_output_tokens", "timeout_seconds", "context_tokens", "allowed_tools"),
)
ATTEMPT_COLUMNS = ("id", "job_id", "number", "created_at", "finished_at", "status", "result")
TASK_COLUMNS = ("id", "job_id", "created_at", "status", "result", "executor_id", "executor_address")
MAX_LOG_LINES = 100
# The size of what an answer shows of a job beside its columns: about 500 bytes for each attempt (a task and log lines)
# and for each message (log lines).
MORE_JOB_BYTES = (F("attempt") + F("inbox_count")) * 500


@dataclass(frozen=True, slots=True)
class Log:
    """How many activities a job has, and the last 100 of those with a note: `(created_at, note)`, oldest first."""

    count: int = 0
    lines: tuple[tuple[Any, str], ...] = ()


def _of_org(model: type[_M]) -> Callable[[str], QuerySet[_M]]:
    """A function that finds all rows of an organisation."""
    return lambda org_id: model._default_manager.filter(org_id=org_id)


activities = _of_org(Activity)
app_tokens = _of_org(AppToken)
approvals = _of_org(Approval)
audit_entries = _of_org(AuditEntry)
job_types = _of_org(JobType)
jobs = _of_org(Job)
profiles = _of_org(Profile)
tool_secrets = _of_org(ToolSecret)
usage = _of_org(UsageDay)
webhook_endpoints = _of_org(WebhookEndpoint)


def org(org_id: str) -> Org:
    found = Org.objects.filter(pk=org_id).first()
    if found is None:
        raise NotFound("there is no such organization", code="org_not_found")
    return found


def in_queue(rows: QuerySet[Any]) -> QuerySet[Any]:
    """Those of the jobs that are in a queue."""
    return rows.filter(IN_QUEUE)


def job(org_id: str, job_id: UUID) -> Row:
    row: Row | None = Job.objects.filter(pk=job_id).values(*JOB_COLUMNS).first()
    if row is None:
        raise job_not_found(str(job_id))
    _require_own(org_id, row["org_id"], job_id)
    return row


def locked_job(org_id: str, job_id: UUID) -> Job:
    """The job, its row locked; call it in a transaction. Raises NotFound, Forbidden for another organisation's job."""
    job = Job.objects.select_for_update().filter(pk=job_id).first()
    if job is None:
        raise job_not_found(str(job_id))
    _require_own(org_id, job.org_id, job_id)
    return job


def _require_own(org_id: str, owner: str, job_id: UUID) -> None:
    if owner != org_id:
        code, denied = "job_of_another_organization", ("job", str(job_id))
        raise Forbidden("the job belongs to a different organization", code=code, denied=denied)


def own_job_id(org_id: str, job_id: UUID) -> UUID:
    """The id if the job belongs to the organisation; raises NotFound otherwise."""
    whose = Job.objects.filter(pk=job_id).values_list("org_id", flat=True).first()
    if whose != org_id:
        raise job_not_found(str(job_id), denied=("job", str(job_id)))
    return job_id


def require_own_jobs(org_id: str, job_ids: Collection[UUID]) -> None:
    """Check that all these jobs belong to the organisation. Raises NotFound for one that does not."""
    if missing := sorted(set(job_ids) - set(jobs(org_id).filter(pk__in=job_ids).values_list("pk", flat=True))):
        raise job_not_found(str(missing[0]), denied=("job", str(missing[0])))


def job_not_found(job_id: str, *, denied: tuple[str, str] | None = None) -> NotFound:
    return NotFound(f"there is no job {job_id[:64]!r}", code="job_not_found", denied=denied)


def tasks_of(job_ids: Iterable[UUID]) -> Mapping[UUID, list[Row]]:
    """The tasks of each job, oldest first."""
    found: dict[UUID, list[Row]] = defaultdict(list)
    tasks = Task.objects.filter(job_id__in=list(job_ids)).order_by("job_id", "number")
    for row in tasks.values(*TASK_COLUMNS):
        found[row["job_id"]].append(row)
    return found


def attempts(org_id: str, job_id: UUID) -> QuerySet[Task]:
    """The attempts of one job."""
    return Task.objects.filter(job__org_id=org_id, job_id=job_id)


def attempt(org_id: str, job_id: UUID, task_id: UUID) -> Row:
    """One attempt with its report. Raises NotFound."""
    row: Row | None = attempts(org_id, job_id).filter(pk=task_id).values(*ATTEMPT_COLUMNS, "report").first()
    if row is None:
        raise attempt_not_found(str(task_id))
    return row


def attempt_not_found(task_id: str) -> NotFound:
    return NotFound(f"there is no task {task_id[:64]!r} of this job", code="task_not_found")


_LOGS = """
SELECT page.job_id, coalesce((SELECT max(number) FROM agent_jobs_activity WHERE job_id = page.job_id), 0),
    said.times, said.notes
FROM unnest(%(ids)s::uuid[]) AS page (job_id)
CROSS JOIN LATERAL (
    SELECT array_agg(created_at ORDER BY number) AS times, array_agg(note ORDER BY number) AS notes
    FROM (
        SELECT number, created_at, note FROM agent_jobs_activity WHERE job_id = page.job_id AND note <> ''
        ORDER BY number DESC LIMIT %(most)s
    ) last
) said
"""


def logs_of(job_ids: Iterable[UUID]) -> Mapping[UUID, Log]:
    found = raw_sql.all_rows(_LOGS, {"ids": list(job_ids), "most": MAX_LOG_LINES})
    return {
        job_id: Log(count, tuple(zip(times or (), notes or (), strict=True))) for job_id, count, times, notes in found
    }


_ACTIVITIES_OF = """
WITH chosen AS (
    SELECT found.id, row_number() OVER (ORDER BY page.place, found.number {direction}) AS place
    FROM unnest(%s::uuid[]) WITH ORDINALITY AS page (job_id, place)
    CROSS JOIN LATERAL (
        SELECT id, number FROM agent_jobs_activity WHERE job_id = page.job_id
        ORDER BY number {direction} LIMIT %s
    ) found
    ORDER BY page.place, found.number {direction} LIMIT %s
), measured AS (
    SELECT c.id, c.place, sum(octet_length(a.note) + coalesce(octet_length(a.input::text), 0)
            + coalesce(octet_length(a.output::text), 0))
        OVER (ORDER BY c.place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
    FROM chosen c JOIN agent_jobs_activity a ON a.id = c.id
)
SELECT id FROM measured WHERE coalesce(bytes_before, 0) < %s ORDER BY place
"""


def activities_of(job_ids: Sequence[UUID], *, per_job: int, total: int, newest_first: bool) -> Mapping[UUID, list[Row]]:
    """At most `per_job` activities of each job and `total` of all together, in the order of `job_ids`.

    The result ends early once it has `pages.MAX_BYTES`.
    """
    direction = "DESC" if newest_first else "ASC"
    statement = _ACTIVITIES_OF.format(direction=direction)
    ids = [row[0] for row in raw_sql.all_rows(statement, [list(job_ids), per_job, total, pages.MAX_BYTES])]
    rows = activities_by_id(ids)
    found: dict[UUID, list[Row]] = defaultdict(list)
    for activity_id in ids:
        if row := rows.get(activity_id):
            found[row["job_id"]].append(row)
    return found


def messages(org_id: str, job_id: UUID) -> QuerySet[Message]:
    """A job's transcript. `id` gives the order in which it was said."""
    return Message.objects.filter(job__org_id=org_id, job_id=job_id)


@dataclass(frozen=True, slots=True)
class JobProgress:
    """A job's progress. `updated_at` is in microseconds since 1970. `activities` is their count, which is also the last
    one's number.
    """

    status: str
    updated_at: int
    activities: int


# A time that Python cannot hold ('infinity') counts as 0: one such row must not stop the answers for all jobs.
_PROGRESS = """
SELECT j.org_id, j.id, j.status,
    CASE WHEN isfinite(j.updated_at) THEN (extract(epoch FROM j.updated_at) * 1000000)::bigint ELSE 0 END,
    coalesce((SELECT max(number) FROM agent_jobs_activity WHERE job_id = j.id), 0)
FROM agent_jobs_job j WHERE j.id = ANY(%s::uuid[])
"""


def progress_of(jobs: Iterable[tuple[str, UUID]]) -> Mapping[tuple[str, UUID], JobProgress]:
    """The progress of each (organisation, job), at one moment. Jobs that the organisation does not have are absent."""
    asked = set(jobs)
    rows = raw_sql.all_rows(_PROGRESS, [[job_id for _, job_id in asked]])
    found = {(org_id, job_id): JobProgress(*progress) for org_id, job_id, *progress in rows}
    return {key: found[key] for key in asked if key in found}


_FOLLOWING = """
SELECT DISTINCT found.id FROM unnest(%s::uuid[], %s::int[]) AS asked (job_id, number)
CROSS JOIN LATERAL (
    SELECT id FROM agent_jobs_activity WHERE job_id = asked.job_id AND number > asked.number
    ORDER BY number LIMIT %s
) found
"""


def activities_after(told: Collection[tuple[UUID, int]], *, per_job: int) -> Mapping[UUID, list[Row]]:
    """For each (job, number), the next activities after that number, in order: one list per job.

    The caller has checked the jobs' organisations. An unreadable activity (a time like 'infinity') is left out and
    logged.
    """
    asked = [[job_id for job_id, _ in told], [number for _, number in told], per_job]
    ids = [activity_id for (activity_id,) in raw_sql.all_rows(_FOLLOWING, asked)]
    try:
        rows = list(activities_by_id(ids).values())
    except DataError:
        rows = [row for activity_id in ids for row in _readable(activity_id)]
    found: dict[UUID, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["number"]):
        found[row["job_id"]].append(row)
    return found


def _readable(activity_id: UUID) -> Iterable[Row]:
    try:
        return activities_by_id([activity_id]).values()
    except DataError as error:
        log.error("activity %s is left out, it cannot be read: %s", activity_id, error)
        return ()


def activities_by_id(ids: Iterable[UUID]) -> Mapping[UUID, Row]:
    """The activities with these ids. The caller has checked their organisation."""
    return {row["id"]: row for row in Activity.objects.filter(pk__in=list(ids)).values(*ACTIVITY_COLUMNS)}


def approvals_of(org_id: str, job_id: UUID, *, is_pending: bool = False) -> list[Row]:
    """The approvals of one job, oldest first."""
    found = approvals(org_id).filter(job_id=job_id).order_by("created_at", "id")
    return list((found.filter(status=Approval.Status.PENDING) if is_pending else found).values(*APPROVAL_COLUMNS))


def approval_of(org_id: str, job_id: UUID, approval_id: UUID) -> Row | None:
    found: Row | None = approvals(org_id).filter(job_id=job_id, pk=approval_id).values(*APPROVAL_COLUMNS).first()
    return found


def approval_schema(org_id: str, approval_id: UUID) -> Mapping[str, Any]:
    """The JSON schema of the arguments that an approval is about; {} if it has none."""
    found = approvals(org_id).filter(pk=approval_id).values_list("step__input", flat=True).first()
    schema: Mapping[str, Any] = (found or {}).get("parameters") or {}
    return schema


def job_type_schema(org_id: str, key: str) -> Mapping[str, Any]:
    """The JSON schema of a job type's params; {} if there is no such type, or it takes anything."""
    return JobType.objects.filter(org_id=org_id, key=key).values_list("params_schema", flat=True).first() or {}


def webhook_deliveries(org_id: str, endpoint_id: UUID) -> QuerySet[WebhookDelivery]:
    return WebhookDelivery.objects.filter(org_id=org_id, endpoint_id=endpoint_id)


def model_keys(org_id: str) -> QuerySet[ModelKey]:
    return ModelKey.objects.filter(org_id=org_id).order_by("provider")


def hours_of_places(org_id: str, kind: str) -> QuerySet[PlaceHours]:
    return PlaceHours.objects.filter(org_id=org_id, kind=kind)
