"""A claim walks the front of its queue, whatever the statistics say: queues change faster than statistics."""

import pytest

from agent_jobs import lifecycle
from agent_jobs.lifecycle import OrgRotation
from agent_jobs.models import Job
from agent_jobs.states import JobStatus, TaskStatus
from tests import rows
from tests.rows_read import ENOUGH, analyze, copies, rows_read

pytestmark = pytest.mark.django_db
BATCH = 10


def a_long_queue():
    copies(rows.job(JobStatus.WAITING), id="uuidv7()")


def a_queue_that_empties():
    analyze(Job)
    Job.objects.filter(status=JobStatus.WAITING).delete()
    for _ in range(BATCH):
        rows.job(JobStatus.WAITING)


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
    turn, before = OrgRotation(), rows_read()

    claimed = lifecycle.settle_and_claim([], lane="messages", turn=turn, batch=BATCH).claimed
    settlements = [
        lifecycle.Settlement(claim.id, claim.token, claim.task_id, JobStatus.COMPLETED, TaskStatus.COMPLETED)
        for claim in claimed
    ]
    settled = lifecycle.settle_and_claim(settlements, lane="messages", turn=turn, batch=BATCH).settled

    assert len(claimed) == len(settled) == BATCH
    assert rows_read() - before < 2 * ENOUGH
