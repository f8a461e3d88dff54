"""Numbered pages of jobs, for APIs whose lists have pages 1, 2, 3 and an exact total."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db.models import Case, F, QuerySet, TextField, Value, When

from agent_jobs.models import Job
from agent_jobs.reads import executions, external_jobs, pages
from agent_jobs.states import JobStatus

Row = Mapping[str, Any]
COLUMNS = (
    *("id", "org_id", "org__number", "status", "runner", "job_type_key", "placement", "priority", "created_by_user"),
    *("config", "progress_percent", "progress_message", "retry_count", "attempt", "requested_at", "created_at"),
    *("updated_at", "started_at", "finished_at", "lease_until", "result", "error_message"),
)
# A page of 100 then has at most 3 MiB of results.
_MOST_RESULT_BYTES = 32 * 1024


def rows(jobs: QuerySet[Job], ordering: Sequence[Any], *, page: int, limit: int) -> list[Row]:
    """One page with COLUMNS, `result_data`, `result_bytes` and `cancel_note`, the text of the activity of a cancel.

    Large results are left out: their `result_data` is None. `page` is counted from 1. The ordering must end with a
    unique column.
    """
    ids = list(jobs.order_by(*ordering).values_list("pk", flat=True)[(page - 1) * limit : page * limit])
    few = Case(When(result_bytes__lte=_MOST_RESULT_BYTES, then=F("result_data")), default=None)
    shortened = Job.objects.filter(pk__in=ids).annotate(result_bytes=pages.text_bytes("result_data"), few_result=few)
    found = {row["id"]: row for row in shortened.values(*COLUMNS, "result_bytes", "few_result")}
    return _noted([{**found[job_id], "result_data": found[job_id]["few_result"]} for job_id in ids if job_id in found])


def row(jobs: QuerySet[Job], job_id: Any) -> Row | None:
    """One of these jobs with its whole result, and `cancel_note`."""
    return next(iter(_noted(list(jobs.filter(pk=job_id).values(*COLUMNS, "result_data")))), None)


def of_orgs(org_ids: Sequence[str]) -> QuerySet[Job]:
    """All jobs of these organisations, of any runner."""
    return Job.objects.filter(org_id__in=list(org_ids))


def status_word(words: Mapping[JobStatus, str]) -> Case:
    """An expression for an API's word for each status seen from outside."""
    whens = [When(external_jobs.with_status_outside(status), then=Value(word)) for status, word in words.items()]
    return Case(*whens, output_field=TextField())


def _noted(rows: Sequence[Row]) -> list[Row]:
    notes: dict[UUID, str] = {}
    for org_id in {row["org_id"] for row in rows if row["status"] == JobStatus.CANCELED}:
        notes |= executions.cancel_reasons(org_id, [row for row in rows if row["org_id"] == org_id])
    return [{**row, "cancel_note": notes.get(row["id"], "")} for row in rows]
