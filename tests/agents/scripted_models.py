"""A model that plays the part it is given, and the rows of a job that thinks with it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from django.db import transaction

from agent_jobs import lifecycle, llm
from agent_jobs.approvals import decisions
from agent_jobs.approvers import Person
from agent_jobs.conversation import replies
from agent_jobs.errors import RetryableError
from agent_jobs.legal_moves import Event
from agent_jobs.models import Approval, Job, Message, Profile, Step
from agent_jobs.worker.loop import Worker
from channels_integration.messages import Incoming
from channels_integration.models import Channel
from tests import rows
from tests.channels.sending import deliver_all
from tests.conversations import QuietKeeper, again
from tests.waiting import PATIENCE

Part = llm.Reply | Exception | Callable[[llm.Turn], llm.Reply]


class Actor:
    """Answers with the next of its parts; what it was shown stands in `turns`."""

    def __init__(self, *parts: Part) -> None:
        self.parts = list(parts)
        self.turns: list[llm.Turn] = []

    def answer(self, turn: llm.Turn, access: llm.Access, on_start: Any = None) -> llm.Reply:
        self.turns.append(turn)
        part = self.parts.pop(0)
        if isinstance(part, Exception):
            raise part
        return part if isinstance(part, llm.Reply) else part(turn)


class Dawdler(Actor):
    """Thinks until it is given up."""

    def __init__(self, *parts: Part) -> None:
        super().__init__(*parts)
        self.is_thinking = threading.Event()

    def answer(self, turn: llm.Turn, access: llm.Access, on_start: Any = None) -> llm.Reply:
        if self.parts:
            return super().answer(turn, access, on_start)
        self.turns.append(turn)
        is_given_up = threading.Event()
        on_start(is_given_up.set)
        self.is_thinking.set()
        assert is_given_up.wait(PATIENCE), "nobody gave it up"
        raise RetryableError("given up", code="model_call_canceled")


@contextmanager
def playing(actor: Actor) -> Iterator[None]:
    """The model `actor` is this one."""
    llm.MODELS["actor"] = actor
    try:
        yield
    finally:
        del llm.MODELS["actor"]


def call(name: str, /, id: str = "c1", **arguments: Any) -> llm.Reply:
    return llm.Reply(calls=(llm.ToolCall(id, name, arguments),))


def done(result: str = "all is well", **fields: Any) -> llm.Reply:
    return llm.Reply(text=fields.pop("text", "Thanks."), is_done=True, result=result, **fields)


# Where jobs speak unless a test says otherwise; the fixture `everywhere` runs a test on more than one platform.
PLACE = {"platform": "null", "channel_code": "nowhere"}


def job(*, tools: list[dict[str, Any]] | None = None, config: dict[str, Any] | None = None, **columns: Any) -> Job:
    """A conversation that waits for its first turn."""
    rows.org()
    Channel.objects.get_or_create(org_id="acme", platform="null", code="nowhere")
    Profile.objects.get_or_create(org_id="acme", key="actor", defaults={"name": "Actor", "model": "actor"})
    agent = {"tools": [{"type": "send_message"}] if tools is None else tools}
    defaults: dict[str, Any] = {
        "runner": "conversation",
        "lane": "agents",
        **PLACE,
        "prompt": "How are you?",
        "agent": agent,
        "config": {"profile_id": "actor", "max_follow_ups": 2, "follow_up_interval": 10, **(config or {})},
    }
    return rows.job(**{**defaults, **columns})


def work() -> int:
    """Takes all turns that are due, by a worker of its own, and delivers what they said."""
    worker, taken = Worker(QuietKeeper()), 0
    while turns := worker.serve("agents"):
        taken += turns
        if PLACE["platform"] != "null":
            deliver_all()
    return taken


def crash(row: Job) -> None:
    """Its worker is gone in the middle of the turn, and another takes it up."""
    lifecycle.move_one(Event.TAKE_BACK, again(row), actor=rows.TESTER)


def reply(row: Job, text: str = "Fine", *, event_id: str = "e1", author: str = "Ann") -> bool:
    incoming = Incoming(
        org_id=row.org_id,
        platform=row.platform,
        code=row.channel_code,
        event_id=event_id,
        author=author,
        text=text,
        sent_at=datetime.now(UTC),
        owner_key=str(row.pk),
    )
    with transaction.atomic():
        return replies.receive(incoming)


def said(job: Job) -> list[str]:
    return list(Message.objects.filter(job=job, is_human=False).order_by("id").values_list("text", flat=True))


def asked(job: Job) -> Approval:
    return Approval.objects.get(job=job, status="pending")


def decide(job: Job, decision: str = "approve", *, by: str = "U0BOSS", **options: Any) -> Approval:
    return decisions.decide("acme", asked(job).pk, decision, by=Person("slack", by), actor=rows.TESTER, **options)


def steps(job: Job) -> list[tuple[str, str]]:
    return list(Step.objects.filter(job=job).order_by("number").values_list("kind", "name"))
