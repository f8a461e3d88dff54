"""Conversations under test: a job that asks, a person who answers, a worker that renews nothing."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent_jobs import lifecycle, runners
from agent_jobs.conversation import replies
from agent_jobs.models import Job, Message
from agent_jobs.runners.base import Outcome, Run
from agent_jobs.worker.lease_keeper import Keeper
from channels_integration.messages import Incoming
from tests import rows


class QuietKeeper(Keeper):
    """A keeper without its thread: the process is registered, and nothing is renewed."""

    def __init__(self) -> None:
        super().__init__("test")
        self.worker_id = 1


def ask(**columns: Any) -> Job:
    """A conversation that waits for its first turn, on a platform that delivers at once."""
    defaults = {
        "runner": "conversation",
        "lane": "agents",
        "platform": "null",
        "channel_code": "nowhere",
        "prompt": "How are you?",
        "config": {"max_follow_ups": 2, "follow_up_interval": 10},
    }
    return rows.job(**{**defaults, **columns})


def again(job: Job) -> Job:
    return Job.objects.get(pk=job.pk)


def let_time_pass(job: Job) -> None:
    Job.objects.filter(pk=job.pk, wake_at__isnull=False).update(wake_at=datetime.now(UTC) - timedelta(seconds=1))
    lifecycle.wake_due()


def answer(job: Job, text: str = "Fine", event_id: str = "e1") -> bool:
    return replies.receive(
        Incoming(
            org_id=job.org_id,
            platform=job.platform,
            code=job.channel_code,
            event_id=event_id,
            author="Ann",
            text=text,
            sent_at=datetime.now(UTC),
            owner_key=str(job.pk),
        )
    )


def texts(job: Job) -> list[str]:
    return list(Message.objects.filter(job=job).order_by("id").values_list("text", flat=True))


def broken(monkeypatch: pytest.MonkeyPatch, run: Callable[[Run], Outcome]) -> None:
    monkeypatch.setattr(type(runners.get("conversation")), "run", lambda self, given: run(given))
