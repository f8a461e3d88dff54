"""How a job spent its time: sums that are kept on the job, for lists; stretches read off its claims, for its own page.

Each claim of a job (a task) says when a worker had it, and what the turn ended with. Between two claims lies the wait
that the earlier one began.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.html import format_html

from agent_jobs.reads.job_life import ClaimPiece
from agent_jobs.states import TERMINAL, JobStatus, TaskStatus, WaitingFor

# The kinds of time, in the order of legends: class of the mark, word.
KINDS: Mapping[str, tuple[str, str]] = {
    "work": ("m-running", "At work"),
    "failed": ("m-failed", "Failed attempts"),
    "reply": ("m-reply", "A reply"),
    "quiet": ("m-quiet", "Quiet hours"),
    "approval": ("m-person", "An approval"),
    "retry": ("m-waiting", "Between attempts"),
    "delivery": ("m-waiting", "Delivery"),
    "queue": ("m-waiting", "In the queue"),
    "delay": ("m-scheduled", "Delay"),
}
_ORDER = ("delay", "queue", "work", "failed", "retry", "reply", "approval", "delivery", "quiet")
_OF_WAITS = {
    WaitingFor.REPLY: "reply",
    WaitingFor.RETRY: "retry",
    WaitingFor.DELIVERY: "delivery",
    WaitingFor.APPROVAL: "approval",
    WaitingFor.QUIET_HOURS: "quiet",
    WaitingFor.COOLDOWN: "delay",
}
# Kinds of time as the core names them (`states.TIME_KINDS`), where the name is another one.
_OF_SUMS = {"failed_work": "failed", "quiet_hours": "quiet", "cooldown": "delay"}
_QUIET_MARKS = ("quiet", "hours")
# Small bars: the gap between two kinds of time, and the smallest width of a kind, both in percent of the bar.
_GAP, _LEAST_SHARE = 0.6, 2.5


@dataclass(frozen=True, slots=True)
class Stretch:
    kind: str
    began_at: datetime
    ended_at: datetime
    title: str = ""

    @property
    def seconds(self) -> float:
        return max((self.ended_at - self.began_at).total_seconds(), 0.0)


@dataclass(frozen=True, slots=True)
class LifeBar:
    """One rectangle of a small bar, in percent of its width."""

    kind: str
    mark: str
    x: float
    width: float


def of(job: Mapping[str, Any], pieces: Sequence[ClaimPiece], *, now: datetime) -> list[Stretch]:
    """The stretches of a job's time from its creation to its end, or to now. They follow each other without gaps."""
    end = job["finished_at"] or now
    found: list[Stretch] = []
    first = pieces[0].began_at if pieces else None
    due = min(max(job["scheduled_at"], job["created_at"]), end)
    if not pieces and job["status"] == JobStatus.SCHEDULED:
        return []
    if (due - job["created_at"]).total_seconds() > 1 and (first is None or due <= first):
        found.append(Stretch("delay", job["created_at"], due))
    if first is None:
        if job["status"] == JobStatus.WAITING or (job["finished_at"] and end > due):
            found.append(Stretch("queue", due, end))
        return found
    if not job["retry_count"] and (first - due).total_seconds() > 1:
        found.append(Stretch("queue", due, first))
    for number, piece in enumerate(pieces):
        is_last = number + 1 == len(pieces)
        until = piece.ended_at or end
        following = end if is_last else pieces[number + 1].began_at
        found.append(Stretch(_kind(piece), piece.began_at, min(until, following), piece.result))
        if (following - until).total_seconds() > 0.5 and not (is_last and job["finished_at"]):
            found.append(Stretch(_wait_after(piece, job, is_last=is_last), until, following))
        elif is_last and job["finished_at"] and (following - until).total_seconds() > 2:
            found.append(Stretch(_last_wait(piece, job), until, following))
    return found


def kept(job: Mapping[str, Any], *, now: datetime) -> dict[str, float]:
    """Seconds by kind of time as they are kept on the job, the present kind until now, in the order of a life.

    None for a job that is not due yet.
    """
    if job["status"] == JobStatus.SCHEDULED:
        return {}
    spent = {str(kind): float(seconds) for kind, seconds in job["time_spent"].items()}
    present = time_kind(job)
    if present:
        spent[present] = spent.get(present, 0.0) + max((now - job["state_since"]).total_seconds(), 0.0)
    added: dict[str, float] = {}
    for kind, seconds in spent.items():
        name = _OF_SUMS.get(kind, kind)
        added[name] = added.get(name, 0.0) + seconds
    return {kind: added[kind] for kind in _ORDER if kind in added}


def time_kind(job: Mapping[str, Any]) -> str:
    """The kind of time that a job spends at present; '' if it has ended."""
    if job["status"] in TERMINAL:
        return ""
    if job["lease_until"] is not None:
        return "work"
    if job["queue_at"] is not None:
        return "queue"
    return str(job["waiting_for"]) or ("delay" if job["status"] == JobStatus.SCHEDULED else "work")


def bars(spent: Mapping[str, float]) -> list[LifeBar]:
    """The share of each kind of time of at least a tenth of a second. Short ones are drawn wide enough to be seen."""
    lengths = [(kind, seconds) for kind, seconds in spent.items() if seconds >= 0.1]
    total = sum(seconds for _, seconds in lengths)
    shares = [max(100 * seconds / total, _LEAST_SHARE) for _, seconds in lengths]
    scale = 100 / (sum(shares) or 1.0)
    found, x = [], 0.0
    for (kind, _), share in zip(lengths, shares, strict=True):
        width = share * scale
        found.append(LifeBar(kind, KINDS[kind][0], x, max(width - _GAP, 0.6)))
        x += width
    return found


def sums(stretches: Iterable[Stretch]) -> list[tuple[str, str, float]]:
    """Mark, word and seconds of each kind of time that occurs."""
    added: dict[str, float] = {}
    for each in stretches:
        added[each.kind] = added.get(each.kind, 0.0) + each.seconds
    return [(mark, word, added[kind]) for kind, (mark, word) in KINDS.items() if kind in added]


def _kind(piece: ClaimPiece) -> str:
    if piece.status == TaskStatus.WAITED:
        return "retry"
    return "failed" if piece.status == TaskStatus.FAILED else "work"


def _wait_after(piece: ClaimPiece, job: Mapping[str, Any], *, is_last: bool) -> str:
    if is_last and job["status"] == JobStatus.RUNNING and job["waiting_for"] in _OF_WAITS:
        return _OF_WAITS[job["waiting_for"]]
    if is_last and job["status"] == JobStatus.WAITING:
        return "queue"
    return _last_wait(piece, job)


def _last_wait(piece: ClaimPiece, job: Mapping[str, Any]) -> str:
    if piece.result == "waiting for a reply":
        return "reply"
    if piece.result == "waiting for approval":
        return "approval"
    if piece.status in (TaskStatus.FAILED, TaskStatus.WAITED):
        return "retry"
    if all(mark in piece.result.lower() for mark in _QUIET_MARKS):
        return "quiet"
    return "delivery" if piece.ended_at and job["waiting_for"] in ("", WaitingFor.DELIVERY) else "reply"


def drawn(bars: Sequence[LifeBar], label: str, *, height: int, css_class: str = "") -> str:
    """The bars as SVG. Lists have hundreds of them, which a template would draw ten times slower."""
    rects = hatches = ""
    for bar in bars:
        y, tall, radius = _shape(bar.kind, height)
        place = f'x="{bar.x:.2f}%" width="{bar.width:.2f}%"'
        rects += f'<rect class="{bar.mark}" {place} y="{y}" height="{tall}" rx="{radius}"/>'
        if bar.kind == "failed":
            hatches += f'<rect fill="url(#hatch)" {place} height="{height}"/>'
    # Part of the template, because they are numbers and the words of KINDS.
    return format_html(
        f'<svg class="{{}}" role="img" aria-label="{{}} in all">{rects}{hatches}</svg>', css_class, label
    )


def _shape(kind: str, height: int) -> tuple[int, int, float]:
    """The y, height and radius of a bar: quiet hours are a line, and outlines stay within."""
    if kind == "quiet":
        return height // 2 - 1, 2, 0
    return (1, height - 2, 1) if kind in ("reply", "delay") else (0, height, 1.5)
