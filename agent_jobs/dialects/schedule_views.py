"""The base of a dialect's views if its jobs are our schedules of one runner."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import transaction

from agent_jobs.dialects.base import DialectResource, read_id
from agent_jobs.reads import executions, schedule_rows
from agent_jobs.reads.executions import LastAttempt
from agent_jobs.schedules import editing


class ScheduleViews(DialectResource):
    """The base of a dialect's views whose jobs are schedules. `job_type` and `job_type_name` are for the jobs of its
    schedules.
    """

    runner = ""
    job_type = ""
    job_type_name = ""

    def row(self, job_id: str) -> schedule_rows.Row:
        return schedule_rows.schedule_of_runner(self.org_id, self.runner, read_id(job_id), shown_id=job_id)

    def create(self, definition: Mapping[str, Any], *, is_paused: bool = False) -> UUID:
        with transaction.atomic():
            self.ensure_job_type(self.org_id, self.job_type, self.job_type_name, self.runner)
            found: UUID = editing.create(self.org_id, definition, is_paused=is_paused, actor=self.actor).pk
        return found

    def with_attempts(self, jobs: Sequence[schedule_rows.Row]) -> Iterator[tuple[schedule_rows.Row, LastAttempt, str]]:
        """Each job with its last attempt, and why it was canceled."""
        attempts = executions.last_attempts(self.org_id, [row["id"] for row in jobs])
        reasons = executions.cancel_reasons(self.org_id, jobs)
        for row in jobs:
            yield row, attempts.get(row["id"], LastAttempt()), reasons.get(row["id"], "")
