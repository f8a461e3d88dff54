"""Lists of approvals for people, each with what its job is about."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db.models import Case, F, QuerySet, TextField, When
from django.db.models.functions import Cast, Length

from agent_jobs.models import Approval
from agent_jobs.reads.queries import APPROVAL_COLUMNS

Row = Mapping[str, Any]
Status = Approval.Status
WHICH: Mapping[str, tuple[str, ...]] = {
    "pending": (Status.PENDING,),
    "decided": (Status.APPROVED, Status.DENIED),
    "expired": tuple(
        status for status in Status.values if status not in (Status.PENDING, Status.APPROVED, Status.DENIED)
    ),
}
MOST_SHOWN = 100
_MOST_PARAMS = 4_000
_COLUMNS = (
    *APPROVAL_COLUMNS,
    *("job__job_type_key", "job__tags", "job__platform", "job__channel_code", "job__channel_data", "job__status"),
    "few_params",
)


def rows(org_id: str, which: str, *, most: int = MOST_SHOWN) -> list[Row]:
    """Approvals of one view: of pending ones the first to expire on top, of others the newest decision."""
    found = _approvals(org_id).filter(status__in=WHICH[which])
    order = ("expires_at", "id") if which == "pending" else (F("decided_at").desc(nulls_last=True), "-created_at")
    return list(found.order_by(*order).values(*_COLUMNS)[:most])


def row(org_id: str, approval_id: UUID) -> Row | None:
    found: Row | None = _approvals(org_id).filter(pk=approval_id).values(*_COLUMNS).first()
    return found


def _approvals(org_id: str) -> QuerySet[Approval]:
    short = When(params_length__lte=_MOST_PARAMS, then=F("job__params"))
    found = Approval.objects.filter(org_id=org_id).annotate(params_length=Length(Cast("job__params", TextField())))
    return found.annotate(few_params=Case(short, default=None))
