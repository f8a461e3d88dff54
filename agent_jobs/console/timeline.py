"""The timeline of a job as a drawing: what the template needs to place each mark, in percent of the width.

The true scale is linear. On the readable scale the width of a stretch grows with the logarithm of its length, and more
for work than for waits. So two seconds of a model are visible in a job of a day.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from agent_jobs.console import clock, life_pieces
from agent_jobs.console.life_pieces import Stretch
from agent_jobs.reads.job_life import JobLife, StepLine

_GAP = 0.25
_MOST_STRETCHES = 26
_TEXT_CLASSES = {"work": "m-on", "delay": "m-scheduled-t", "quiet": "m-strong", "reply": "m-text", "approval": "m-on"}


@dataclass(frozen=True, slots=True)
class TimelineMark:
    kind: str
    mark: str
    x: float
    width: float
    title: str
    label: str = ""
    text_class: str = ""

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


@dataclass(frozen=True, slots=True)
class TimelineDot:
    """A message or a question. `kind`: agent, person, asks."""

    kind: str
    x: float
    title: str


@dataclass(frozen=True, slots=True)
class AxisLabel:
    x: float
    text: str
    anchor: str = "start"
    is_strong: bool = False


@dataclass(frozen=True, slots=True)
class DrawnTimeline:
    axis: Sequence[AxisLabel]
    state: Sequence[TimelineMark]
    model: Sequence[TimelineMark]
    tools: Sequence[TimelineMark]
    asks: Sequence[TimelineDot]
    messages: Sequence[TimelineDot]
    bands: Sequence[TimelineMark]
    sums: Sequence[tuple[str, str, float]]
    bars: Sequence[life_pieces.LifeBar]
    seconds: float
    work_seconds: float
    is_live: bool


@dataclass(frozen=True, slots=True)
class _Scale:
    stretches: Sequence[Stretch]
    edges: Sequence[float]  # one more than stretches

    def x(self, at: datetime) -> float:
        for place, each in enumerate(self.stretches):
            if at <= each.ended_at:
                share = (at - each.began_at).total_seconds() / each.seconds if each.seconds else 0.0
                left, right = self.edges[place], self.edges[place + 1]
                return left + (right - left) * min(max(share, 0.0), 1.0)
        return 100.0


def of(
    life: JobLife, messages: Sequence[tuple[datetime, bool, str]], *, now: datetime, zone: ZoneInfo, is_true_scale: bool
) -> DrawnTimeline:
    """Draw the life of a job. Each message is a time, whether a person said it, and its tooltip."""
    whole = _split(life_pieces.of(life.job, life.claims, now=now), life)
    stretches = _joined(whole)
    scale = _Scale(stretches, _edges(stretches, is_true_scale=is_true_scale))
    last_life = [step for step in life.steps if step.life == life.job["retry_count"]]
    return DrawnTimeline(
        axis=_axis(scale, life, now, zone),
        state=[_state(scale, place, each, now, zone) for place, each in enumerate(stretches)],
        model=[_call(scale, step, now, zone) for step in last_life if step.kind == "model"],
        tools=[_call(scale, step, now, zone) for step in last_life if step.kind == "tool" and _is_made(step)],
        asks=[
            TimelineDot("asks", scale.x(step.begun_at), f"{step.name}: asks for an approval")
            for step in last_life
            if step.approval
        ],
        messages=[
            TimelineDot("person" if is_human else "agent", scale.x(at), title)
            for at, is_human, title in messages
            if stretches and at >= stretches[0].began_at
        ],
        bands=[
            TimelineMark("band", "m-band", scale.edges[place], scale.edges[place + 1] - scale.edges[place], "")
            for place, each in enumerate(stretches)
            if each.kind in ("work", "failed")
        ],
        sums=life_pieces.sums(whole),
        bars=life_pieces.bars(life_pieces.kept(life.job, now=now)),
        seconds=sum(each.seconds for each in whole),
        work_seconds=sum(each.seconds for each in whole if each.kind == "work"),
        is_live=life.job["finished_at"] is None and bool(stretches),
    )


def _split(stretches: Sequence[Stretch], life: JobLife) -> list[Stretch]:
    """Attempts that failed, cut where the step that failed began: what came before it was work that counts."""
    failures = [step for step in life.steps if step.has_failed]
    found: list[Stretch] = []
    for each in stretches:
        begins = [step.began_at for step in failures if each.began_at <= step.began_at <= each.ended_at]
        if each.kind == "failed" and begins and (begins[0] - each.began_at).total_seconds() > 0.2:
            found.append(Stretch("work", each.began_at, begins[0]))
            each = Stretch("failed", begins[0], each.ended_at, each.title)
        found.append(each)
    return found


def _is_made(step: StepLine) -> bool:
    return step.approval == "" or step.called_at is not None


def _edges(stretches: Sequence[Stretch], *, is_true_scale: bool) -> list[float]:
    weights = [max(each.seconds, 0.001) if is_true_scale else _weight(each) for each in stretches]
    total, edges = sum(weights) or 1.0, [0.0]
    if is_true_scale:
        weights = [max(weight, total * 0.003) for weight in weights]
        total = sum(weights)
    for weight in weights:
        edges.append(edges[-1] + 100 * weight / total)
    return edges


def _weight(each: Stretch) -> float:
    if each.kind == "work":
        return 8 + 2.2 * math.log2(1 + min(each.seconds, 600))
    if each.kind == "failed":
        return 8 + 0.6 * math.log2(1 + min(each.seconds, 600))
    return 7 + 0.5 * math.log2(1 + each.seconds / 60)


def _joined(stretches: Sequence[Stretch]) -> list[Stretch]:
    """At most _MOST_STRETCHES: the shortest neighbours become one, of the kind of the longer."""
    found = list(stretches)
    while len(found) > _MOST_STRETCHES:
        place = min(range(len(found) - 1), key=lambda at: found[at].seconds + found[at + 1].seconds)
        first, second = found[place], found[place + 1]
        longer = first if first.seconds >= second.seconds else second
        found[place : place + 2] = [Stretch(longer.kind, first.began_at, second.ended_at, "several in a row")]
    return found


def _state(scale: _Scale, place: int, each: Stretch, now: datetime, zone: ZoneInfo) -> TimelineMark:
    left, right = scale.edges[place], scale.edges[place + 1]
    width = max(right - left - _GAP, 0.3)
    word = life_pieces.KINDS[each.kind][1].lower()
    title = f"{word.capitalize()}, {clock.short(each.began_at, zone, now, seconds=True)}: {clock.length(each.seconds)}"
    if each.title and each.kind == "failed":
        title += f". {each.title[:120]}"
    label = clock.length(each.seconds)
    needed = 1.0 + 0.78 * len(label)  # of a drawing about 680 px wide
    if each.kind == "failed" or width < needed:
        label = ""
    mark = life_pieces.KINDS[each.kind][0]
    return TimelineMark(each.kind, mark, left, width, title, label, _TEXT_CLASSES.get(each.kind, "m-dark"))


def _call(scale: _Scale, step: StepLine, now: datetime, zone: ZoneInfo) -> TimelineMark:
    left = scale.x(step.began_at)
    width = max(scale.x(step.ended_at or now) - left, 0.7)
    took = f", {clock.length(step.seconds)}" if step.seconds is not None else ", not over"
    title = f"Step {step.number}, {step.name}{took}" + (f": {step.error}" if step.error else "")
    mark = "m-failed" if step.has_failed else "m-running" if step.kind == "model" else "m-completed"
    return TimelineMark("failed" if step.has_failed else step.kind, mark, left, min(width, 100 - left), title)


def _axis(scale: _Scale, life: JobLife, now: datetime, zone: ZoneInfo) -> list[AxisLabel]:
    labels: list[AxisLabel] = []
    if not scale.stretches:
        return labels
    finished_at = life.job["finished_at"]
    end = (
        f"{life.job['status'].capitalize()} {clock.short(finished_at, zone, now, seconds=True)}" if finished_at else ""
    )
    end = end or f"now {clock.short(now, zone, now)}"
    last_day = last_minute = ""
    free_from, free_to = -1.0, 100 - 1.05 * len(end) - 1
    for place, each in enumerate(scale.stretches):
        x = scale.edges[place]
        local = each.began_at.astimezone(zone)
        day = clock.day(each.began_at, zone, now)
        # With seconds, too, where the minute alone would repeat the label before.
        exact = each.kind in ("work", "failed") or f"{day} {local:%H:%M}" == last_minute
        time = f"{local:%H:%M:%S}" if exact else f"{local:%H:%M}"
        text = f"{day} {local:%H:%M}" if day != last_day and day != clock.day(now, zone, now) else time
        width = 1.05 * len(text) + 0.8
        if x < free_from or x + width > free_to:
            continue
        last_day, last_minute, free_from = day, f"{day} {local:%H:%M}", x + width
        labels.append(AxisLabel(x, text))
    labels.append(AxisLabel(100.0, end, "end", is_strong=True))
    return labels
