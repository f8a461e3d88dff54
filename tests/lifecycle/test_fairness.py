"""One organisation's flood does not delay another's job (promise I15). The check is tried against an unfair order."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db.models.functions import Now

from agent_jobs import lifecycle
from agent_jobs.lifecycle import OrgRotation, claims
from agent_jobs.models import Job
from tests import rows

pytestmark = pytest.mark.django_db
FLOOD = 300


@pytest.fixture(autouse=True)
def _statements_are_built_anew() -> Iterator[None]:
    claims._statement.cache_clear()
    yield
    claims._statement.cache_clear()


def flood(org_id: str = "acme") -> None:
    """Jobs that have waited for an hour, and call themselves urgent."""
    job = rows.job(org_id=org_id, priority=9)
    flooding = [
        Job(
            org_id=org_id,
            status=job.status,
            job_type_key=job.job_type_key,
            runner=job.runner,
            lane=job.lane,
            platform=job.platform,
            channel_code=job.channel_code,
            prompt=job.prompt,
            priority=9,
            scheduled_at=job.scheduled_at,
            deadline_minutes=60,
            queue_at=job.queue_at - timedelta(hours=1),
        )
        for _ in range(FLOOD)
    ]
    Job.objects.bulk_create(flooding)


def claimed_before(org_id: str, *, batch: int = 1, turn: OrgRotation | None = None) -> int:
    """How many jobs a worker claims before the first one of this organisation."""
    going, before = turn or OrgRotation(), 0
    while before <= FLOOD:
        answer = lifecycle.settle_and_claim([], lane="messages", turn=going, worker_id=7, batch=batch)
        assert answer.claimed, "the queue is empty"
        if any(claim.org_id == org_id for claim in answer.claimed):
            return before
        before += len(answer.claimed)
    return before


def require_fair(batch: int = 1) -> None:
    """However long another queue is, a worker claims at most one batch of it first."""
    assert claimed_before("rival", batch=batch) <= batch


@pytest.mark.parametrize("batch", [1, 10])
def test_a_job_beside_a_flood_is_claimed_next(batch: int) -> None:
    flood()
    rows.job(org_id="rival", priority=0, queue_at=Now() + timedelta(minutes=5))
    require_fair(batch)


def test_a_worker_in_the_middle_of_a_flood_takes_the_new_job_next() -> None:
    flood()
    turn = OrgRotation()
    for _ in range(20):
        lifecycle.settle_and_claim([], lane="messages", turn=turn, worker_id=7)
    rows.job(org_id="rival", priority=0)
    assert claimed_before("rival", turn=turn) == 0


def test_the_check_finds_an_order_that_looks_at_age_and_priority_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of one queue for all: whoever floods it is served first."""
    head, rest = claims._NEXT.split("), org AS MATERIALIZED", 1)
    assert "next_org AS MATERIALIZED" in head
    unfair = """
    next_org AS MATERIALIZED (
        SELECT (SELECT org_id FROM agent_jobs_job WHERE queue_at IS NOT NULL AND lane = %(lane)s
            ORDER BY queue_at, id LIMIT 1) AS org_id"""
    monkeypatch.setattr(claims, "_NEXT", f"{unfair}), org AS MATERIALIZED{rest}")
    flood()
    rows.job(org_id="rival", priority=0)
    with pytest.raises(AssertionError):
        require_fair()
