"""A job awaits messages in its thread, and in its direct channel, from its start to its end."""

from datetime import UTC, datetime
from typing import Any

import pytest

from agent_jobs.conversation import replies
from agent_jobs.states import JobStatus
from channels_integration.messages import Incoming
from tests import rows

pytestmark = pytest.mark.django_db


def said(**fields: Any) -> Incoming:
    where = {"org_id": "acme", "platform": "slack", "code": "C0ONE", "thread": "1.2", "team": "T1"}
    told = {"event_id": "e1", "author": "Ann", "text": "Hi", "sent_at": datetime.now(UTC)}
    return Incoming(**{**where, **told, **fields})


def test_a_job_awaits_what_is_said_in_its_thread_alone() -> None:
    place = {"platform": "slack", "channel_code": "C0ONE", "channel_data": {"team_id": "T1"}, "thread": "1.2"}
    job = rows.job(JobStatus.RUNNING, started_at=datetime.now(UTC), waiting_for="reply", lease_until=None, **place)
    assert replies.awaits(said())
    assert replies.awaits(said(thread="", is_direct=True))
    for other in ({"thread": "1.3"}, {"thread": ""}, {"code": "C0TWO"}, {"team": "T2"}, {"org_id": "rival"}):
        assert not replies.awaits(said(**other))
    type(job).objects.update(status=JobStatus.CANCELED, finished_at=datetime.now(UTC), waiting_for="")
    assert not replies.awaits(said())
