"""Cancels or retries more jobs than one transaction takes: batch after batch, each by a request of its own.

The browser (without script: the person) asks for each batch, so a run can be stopped between two. A run concerns the
jobs that existed when it began, oldest first. `after` is the position of the last job that was looked at.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.core import signing
from django.db.models import Q

from agent_jobs.jobs import bulk as bulk_jobs
from agent_jobs.reads import job_lists
from agent_jobs.specs import Actor


@dataclass(frozen=True, slots=True)
class BatchRun:
    """The state of a bulk action that runs in batches. `total` is the number of jobs that the person confirmed.

    It takes jobs that were created by `until`; `after` is the place (time of creation, id) of the last one it took.
    """

    total: int
    until: datetime
    changed: int = 0
    refused: int = 0
    after: tuple[datetime, UUID] | None = None
    is_over: bool = False

    @property
    def looked_at(self) -> int:
        return self.changed + self.refused

    @property
    def share(self) -> float:
        return min(100 * self.looked_at / self.total, 100.0) if self.total else 100.0

    @property
    def next_number(self) -> int:
        return max(min(bulk_jobs.MOST, self.total - self.looked_at), 1)

    def signed(self, action: str) -> str:
        """As a field of the form that asks for the next batch; `action` says what the run does to which jobs."""
        after = [self.after[0].isoformat(), str(self.after[1])] if self.after else None
        stated = [self.total, self.until.isoformat(), self.changed, self.refused, after]
        return _signer(action).sign_object(stated, compress=True)


def read(text: str, action: str) -> BatchRun | None:
    """The run that a form goes on with. None if the text is not ours, or of another action."""
    try:
        total, until, changed, refused, after = _signer(action).unsign_object(text)
        place = (datetime.fromisoformat(after[0]), UUID(after[1])) if after else None
        return BatchRun(total, datetime.fromisoformat(until), changed, refused, place)
    except (signing.BadSignature, ValueError, TypeError):
        return None


def step(run: BatchRun, verb: str, org_id: str, jobs: Any, *, actor: Actor, reason: str) -> BatchRun:
    """Change the next jobs of the run. `jobs` are all that match now."""
    left = jobs.filter(created_at__lte=run.until)
    if run.after is not None:
        at, job_id = run.after
        left = left.filter(Q(created_at__gt=at) | Q(created_at=at, pk__gt=job_id))
    places = job_lists.places(left, most=bulk_jobs.MOST)
    if not places:
        return replace(run, is_over=True)
    act = bulk_jobs.cancel if verb == "cancel" else bulk_jobs.retry
    outcome = act(org_id, [job_id for _, job_id in places], expected=None, actor=actor, reason=reason)
    return replace(
        run,
        changed=run.changed + len(outcome.changed),
        refused=run.refused + len(outcome.refused),
        after=places[-1],
        is_over=len(places) < bulk_jobs.MOST,
    )


def words(run: BatchRun, past: str) -> Mapping[str, str]:
    """Title and text of what came of it."""
    text = f"{run.refused:,} were left as they are: they had changed meanwhile." if run.refused else ""
    return {"title": f"{run.changed:,} job{'' if run.changed == 1 else 's'} {past}", "text": text}


def _signer(action: str) -> signing.Signer:
    return signing.Signer(salt=f"agent_jobs.console.bulk:{action}")
