"""The conversation of a job as the page shows it: bubbles, the calls between them as one line each, and quiet hours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from agent_jobs.console import clock, visits
from agent_jobs.console.life_pieces import Stretch
from agent_jobs.console.visits import Visit
from agent_jobs.reads.job_life import JobLife, StepLine

_COLOURS = ("1", "2", "3")


@dataclass(frozen=True, slots=True)
class CallLine:
    """One or several calls of one model, or one call of a tool, as one line."""

    is_model: bool
    name: str
    seconds: float | None
    error: str
    number: int
    tokens: int = 0
    cost: Decimal = Decimal(0)
    is_waiting: bool = False


@dataclass(frozen=True, slots=True)
class Bubble:
    is_human: bool
    author: str
    initials: str
    colour: str
    text: str
    at: datetime
    note: str
    tag: str


@dataclass(frozen=True, slots=True)
class ChatItem:
    """One item of a conversation. `kind`: day (a heading), quiet (quiet hours), calls, or bubble (a message)."""

    kind: str
    words: str = ""
    bubble: Bubble | None = None
    calls: Sequence[CallLine] = field(default_factory=tuple)


def of(
    visit: Visit,
    life: JobLife,
    messages: Sequence[Mapping[str, Any]],
    stretches: Sequence[Stretch],
) -> list[ChatItem]:
    found: list[ChatItem] = []
    moments: list[tuple[datetime, int, Any]] = []
    moments += [(row["created_at"], 2, row) for row in messages]
    moments += [(step.begun_at, 1, step) for step in life.steps if not _is_silent(step)]
    moments += [(each.began_at, 0, each) for each in stretches if each.kind == "quiet"]
    moments.sort(key=lambda each: (each[0], each[1]))
    calls: list[StepLine] = []
    last_day, follow_ups = "", 0
    most = life.job["config"].get("max_follow_ups", 0)
    has_spoken = is_answered = False

    def settle() -> None:
        if calls:
            found.append(ChatItem("calls", calls=_lines(calls)))
            calls.clear()

    for at, _, what in moments:
        day = f"{at.astimezone(visit.zone):%a} {clock.day(at, visit.zone, visit.now)}"
        if day != last_day:
            settle()
            by = life.job["created_by__name"]
            found.append(ChatItem("day", words=f"{day} · created by token {by}" if by and not last_day else day))
            last_day = day
        if isinstance(what, StepLine):
            calls.append(what)
        elif isinstance(what, Stretch):
            settle()
            began, ended = what.began_at.astimezone(visit.zone), what.ended_at.astimezone(visit.zone)
            found.append(ChatItem("quiet", words=f"Quiet hours, {began:%H:%M} to {ended:%H:%M}"))
        else:
            settle()
            is_human = what["is_human"]
            is_follow_up = has_spoken and not is_human and not is_answered
            follow_ups = follow_ups + 1 if is_follow_up else 0
            tag = f"Follow-up {follow_ups} of {most}" if is_follow_up and follow_ups <= most else ""
            found.append(ChatItem("bubble", bubble=_bubble(life, what, tag)))
            is_answered = is_human
            has_spoken = has_spoken or not is_human
    settle()
    return found


def _is_silent(step: StepLine) -> bool:
    """Sending a message is shown as the message."""
    return step.kind == "tool" and step.name in ("send_message", "say", "_say") and not step.error


def _lines(steps: Sequence[StepLine]) -> list[CallLine]:
    lines: list[CallLine] = []
    models = [step for step in steps if step.kind == "model"]
    if models:
        names = sorted({step.name.partition(":")[2] or step.name for step in models})
        many = f", {len(models)} calls" if len(models) > 1 else ""
        errors = sorted({step.error for step in models if step.error})
        lines.append(
            CallLine(
                is_model=True,
                name=", ".join(names) + many,
                seconds=sum(step.seconds or 0.0 for step in models),
                tokens=sum(step.tokens for step in models),
                cost=sum((step.cost for step in models), Decimal(0)),
                error=", ".join(errors),
                number=models[0].number,
            )
        )
    lines += [
        CallLine(
            is_model=False,
            name=step.name,
            seconds=step.seconds,
            error=step.error,
            is_waiting=step.approval == "pending",
            number=step.number,
        )
        for step in steps
        if step.kind == "tool"
    ]
    return lines


def _bubble(life: JobLife, row: Mapping[str, Any], tag: str) -> Bubble:
    is_human = row["is_human"]
    note = ""
    if row["deleted_at"]:
        note = "deleted there"
    elif row["edited_at"]:
        note = "edited"
    elif not is_human and row["delivered_at"] is None:
        note = "not delivered yet"
    elif not is_human and (took := (row["delivered_at"] - row["created_at"]).total_seconds()) > 0.5:
        note = f"delivered in {clock.length(took)}"
    author = row["author"] if is_human else life.type_name or "Agent"
    return Bubble(
        is_human=is_human,
        author=author,
        initials=visits.initials(author),
        colour=_COLOURS[sum(map(ord, author)) % len(_COLOURS)],
        text=row["text"],
        at=row["created_at"],
        note=note,
        tag=tag,
    )
