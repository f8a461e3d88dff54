"""The error tree. `code` is for machines and never changes; the message is for people.

AgentJobsError
├── NotFound            no such thing, or it is another organisation's       404
├── Forbidden           it is there, and not for this caller                 403
├── Invalid             what was sent does not hold; names the fields        400
├── Conflict            the state of the thing does not allow it             409
│   ├── IllegalMove     a move that the job's status does not allow          409
│   ├── DuplicateJob    another job has the `unique_key`                     409
│   └── CountChanged    not as many jobs as the caller expected              409
├── KeyReused           an Idempotency-Key with another body                 422
├── QuotaReached        the organisation has as much as it may have          429
├── LeaseLost           the writer's lease token is stale: stop, write nothing
└── RunError            a runner could not do its work
    ├── RetryableError  may work later (provider 5xx, 429, time-out)
    │   ├── Unsupported a newer release wrote what this process does not know
    │   └── BudgetReserved  calls under way hold the rest of a cap
    └── PermanentError  will not work as asked
        └── BudgetExhausted  a cap on tokens or money leaves too little
"""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice
from typing import Any

MAX_REPORTED = 20
MAX_SUMMARY = 2_000


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with one field or parameter: `FieldError("config.max_follow_ups", "invalid", "must be …")`."""

    field: str
    code: str
    message: str


def summary(errors: Collection[FieldError]) -> str:
    """One sentence with all errors, or with the first 20 and the number of the rest."""
    text = "; ".join(f"{error.field}: {error.message}" for error in islice(errors, MAX_REPORTED))
    text = text if len(text) <= MAX_SUMMARY else f"{text[: MAX_SUMMARY - 1]}…"
    left = len(errors) - MAX_REPORTED
    return f"{text}; and {left:,} more" if left > 0 else text


class AgentJobsError(Exception):
    """The base of all errors of services. `denied` is the kind and id of a requested object that the organisation does
    not own. The API writes an audit entry with it, which must be the same whether the object exists or not.

    `told` names the parts of `context` that the API's answer has in its `meta`.
    """

    code = "error"
    told: tuple[str, ...] = ()
    errors: tuple[FieldError, ...] = ()
    denied: tuple[str, str] | None = None

    def __init__(self, message: str, *, code: str = "", denied: tuple[str, str] | None = None, **context: Any) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.denied = denied
        self.context = context


class NotFound(AgentJobsError):
    code = "not_found"


class Forbidden(AgentJobsError):
    code = "forbidden"


class Invalid(AgentJobsError):
    code = "invalid"

    def __init__(self, *errors: FieldError) -> None:
        super().__init__(summary(errors))
        self.errors = errors


class Conflict(AgentJobsError):
    code = "conflict"


class IllegalMove(Conflict):
    code = "illegal_move"


class DuplicateJob(Conflict):
    """Another job holds the `unique_key`. `job_id` in the context is that job's id."""

    code = "duplicate_job"
    told = ("job_id",)


class CountChanged(Conflict):
    """`count` in the context is how many there are."""

    code = "count_changed"
    told = ("count",)


class KeyReused(AgentJobsError):
    code = "idempotency_key_reused"


class QuotaReached(AgentJobsError):
    """The organisation has as much of something as it may have. `retry_after`: seconds after which that may have
    changed.
    """

    code = "quota_reached"

    def __init__(self, message: str, *, code: str = "", retry_after: int) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class LeaseLost(AgentJobsError):
    code = "lease_lost"


class RunError(AgentJobsError):
    code = "run_failed"


class RetryableError(RunError):
    def __init__(self, message: str, *, code: str = "", retry_after: float | None = None, **context: Any) -> None:
        super().__init__(message, code=code, **context)
        self.retry_after = retry_after


class Unsupported(RetryableError):
    """A newer process may know it, so the attempt does not count."""

    code = "unsupported"


class BudgetReserved(RetryableError):
    """Calls under way have reserved what this call needs of a cap. Most use less, so the attempt does not count."""

    code = "budget_reserved"


class PermanentError(RunError):
    pass


class BudgetExhausted(PermanentError):
    code = "budget_exhausted"
