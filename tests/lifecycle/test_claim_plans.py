"""A claim walks the front of its queue, whatever the statistics say: queues change faster than statistics."""

import pytest

from agent_jobs import lifecycle
from agent_jobs.lifecycle import OrgRotation, executor_claims
from agent_jobs.lifecycle.executor_claims import Claimant
from agent_jobs.models import Job, Org
from agent_jobs.states import JobStatus, TaskStatus
from tests import rows
from tests.rows_read import ENOUGH, analyze, copies, rows_read

pytestmark = pytest.mark.django_db
BATCH = 10
EXTERNAL = {"runner": "external", "lane": "external", "placement": "binary\x1fgreet"}


def a_long_queue():
    for columns in ({}, EXTERNAL):
        copies(rows.job(JobStatus.WAITING, **columns), id="uuidv7()")


def a_queue_that_empties():
    analyze(Job)
    Job.objects.filter(status=JobStatus.WAITING).delete()
    for _ in range(4 * BATCH):
        rows.job(JobStatus.WAITING)
        rows.job(JobStatus.WAITING, **EXTERNAL)


def claim_and_settle(turn):
    claimed = lifecycle.settle_and_claim([], lane="messages", turn=turn, batch=BATCH).claimed
    settlements = [
        lifecycle.Settlement(claim.id, claim.token, claim.task_id, JobStatus.COMPLETED, TaskStatus.COMPLETED)
        for claim in claimed
    ]
    return len(lifecycle.settle_and_claim(settlements, lane="messages", turn=turn, batch=BATCH).settled)


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([a_long_queue], id="never_analyzed"),
        pytest.param([a_long_queue, lambda: analyze(Job)], id="analyzed"),
        pytest.param([lambda: analyze(Job), a_long_queue], id="analyzed_while_it_was_empty"),
        pytest.param([a_long_queue, a_queue_that_empties], id="analyzed_while_it_was_full"),
    ],
)
def test_a_claim_reads_the_front_of_its_queue_alone(events):
    copies(rows.job(JobStatus.COMPLETED), id="uuidv7()")
    for event in events:
        event()
    claims = {
        "by a worker": lambda: claim_and_settle(OrgRotation()),
        "by an executor": lambda: len(
            executor_claims.claim_for_executor("acme", Claimant("e1"), actor=rows.TESTER, most=BATCH, lease_seconds=30)
        ),
        "within caps": lambda: Org.objects.update(max_running_jobs=1_000) * claim_and_settle(OrgRotation()),
    }

    read = {}
    for name, claim in claims.items():
        before = rows_read()
        assert claim() == BATCH, name
        read[name] = rows_read() - before

    assert {name: count for name, count in read.items() if count > 4 * ENOUGH} == {}
