"""The statuses and other fixed words of jobs, tasks and activities. `legal_moves` has the moves between statuses.

A schedule stores no status: `reads.schedule_rows.status` derives it from `is_paused` and `next_at`.

A job that waits for something stays RUNNING and says in `waiting_for` what it waits for.
"""

from enum import StrEnum


class JobStatus(StrEnum):
    SCHEDULED = "SCHEDULED"
    WAITING = "WAITING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


TERMINAL = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED})


class TaskStatus(StrEnum):
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    # Waited for a budget: no failure, and no attempt that counts.
    WAITED = "WAITED"
    # Only of executors: the lease lapsed, or the executor gave the job back.
    TIMEOUT = "TIMEOUT"
    RELEASED = "RELEASED"


class WaitingFor(StrEnum):
    """The reason for which a job waits without a worker. Empty for a SCHEDULED job, which waits for its time."""

    REPLY = "reply"
    RETRY = "retry"
    DELIVERY = "delivery"
    COOLDOWN = "cooldown"
    APPROVAL = "approval"
    QUIET_HOURS = "quiet_hours"


# The kinds of time in a job's life: its waits, and these. `delay`: until its due time. `failed_work`: attempts that
# came to nothing.
TIME_KINDS = ("delay", "queue", "work", "failed_work", *WaitingFor)


class ActivityStatus(StrEnum):
    SUBMITTED = "submitted"
    COMPLETED = "completed"
    CANCELED = "canceled"
    FAILED = "failed"
    UNKNOWN = "unknown"  # nobody can tell whether the platform received the message


class SourceType(StrEnum):
    """The source of an activity: the service's own dispatching, a runner's work, or a person or client."""

    DISPATCH = "dispatch"
    PROCESS_MODULE = "process_module"
    DIRECT = "direct"
