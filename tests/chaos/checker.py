"""Holds the three ledgers of a run against the promises: a pure function, so that it can be tested with planted faults.

It knows nothing of how the faults were made. What an experiment promises beyond the rules for all stands in `Rules`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tests.chaos.ledgers import Chain, Posted, Recorded, Said, Sent, Try

TERMINAL = frozenset({"COMPLETED", "FAILED", "CANCELED"})
_EXAMPLES = 5


class Breach(StrEnum):
    """The ways in which a promise is broken; the comment says which promise of the design's table it is."""

    LOST = "lost"  # I1: answered 201, and no row
    UNFINISHED = "unfinished"  # I1: no terminal state at the end, or one later than the deadline + 60 s
    SECOND_TERMINAL = "second terminal"  # I2: two endings of one life, or an ending that changed
    GHOST_JOB = "ghost job"  # I3: a row of a refused request, two rows of one name, a row that nobody asked for
    DUPLICATE = "duplicated"  # I6
    MISSING = "missing"  # I6
    GHOST_POST = "ghost post"  # I6: nobody recorded it
    DISORDER = "out of order"  # I7: within a thread; or in another thread
    REPLY = "reply"  # I8: heard twice, heard though not believable, or not heard
    LATENESS = "lateness"  # I9, I14, I15: later than the experiment allows
    OUTSIDE_WINDOW = "outside window"  # I10
    AFTER_CANCEL = "after cancel"  # I12: sent later than 2 s after the 200; two 200s; a 200 and another ending
    WRONG_ORG = "wrong org"  # I13
    AUDIT = "audit"  # I18: a move without its entry, an entry without its move, a broken chain, an entry in no seal
    ANSWER = "answer"  # I14: slow or not 201 where that is promised; a 5xx that is no 503 with Retry-After


@dataclass(frozen=True, slots=True)
class Window:
    """From one moment to another; `by` is a moment that something is promised by."""

    start: float
    end: float
    by: float = 0.0

    def holds(self, at: float) -> bool:
        return self.start <= at <= self.end


@dataclass(frozen=True, slots=True)
class Rules:
    """The promised limits, in seconds.

    `start_slack`: how long after its window a job with one may start; None where nothing is promised. `quick`: in
    these, a POST is answered 201 within `quick_seconds`. `started`: a job made in one of these, due at once, starts
    before the window's `by`; `due_by`: so does one that falls due in it. `punctual`: of those that fall due in one of
    these, 99 % start within `punctual_p99`. `lateness_p99` and `lateness_max` by organisation, '' for all.
    `canaries`: a text of each organisation's that no post of another's may contain.
    """

    deadline_grace: float = 60.0
    cancel_seconds: float = 2.0
    start_slack: float | None = 2.0
    quick: tuple[Window, ...] = ()
    quick_seconds: float = 0.5
    started: tuple[Window, ...] = ()
    due_by: tuple[Window, ...] = ()
    punctual: tuple[Window, ...] = ()
    punctual_p99: float = 1.0
    lateness_p99: Mapping[str, float] = field(default_factory=dict)
    lateness_max: Mapping[str, float] = field(default_factory=dict)
    canaries: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles of a list of seconds."""

    count: int
    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> "Spread":
        ordered = sorted(seconds)
        if not ordered:
            return cls(0, 0.0, 0.0, 0.0)
        count = len(ordered)
        return cls(count, ordered[(count + 1) // 2 - 1], ordered[(99 * count + 99) // 100 - 1], ordered[-1])

    def __str__(self) -> str:
        return f"{self.p50:.3f}/{self.p99:.3f}/{self.max:.3f}"


@dataclass(frozen=True, slots=True)
class Report:
    jobs: int
    rows: int
    messages: int
    endings: Mapping[str, int]
    lateness: Spread
    answers: Spread
    breaches: Mapping[Breach, int]
    examples: Mapping[Breach, Sequence[str]]
    chains: Sequence[Chain]

    @property
    def is_clean(self) -> bool:
        return not self.breaches

    def __str__(self) -> str:
        ended = ", ".join(f"{name} {count}" for name, count in sorted(self.endings.items()))
        lines = [
            f"jobs {self.jobs} · rows {self.rows} ({ended}) · messages {self.messages}",
            " · ".join(f"{kind} {self.breaches.get(kind, 0)}" for kind in Breach),
            f"lateness p50/p99/max {self.lateness} s · POST p50/p99/max {self.answers} s",
            f"audit {' · '.join(map(str, self.chains)) or 'none'}",
        ]
        for kind, found in self.examples.items():
            lines += [f"  {kind}: {example}" for example in found]
        return "\n".join(lines)


def check(
    sent: Sequence[Sent],
    posted: Sequence[Posted],
    recorded: Sequence[Recorded],
    chains: Sequence[Chain],
    *,
    rules: Rules | None = None,
    unasked: Sequence[Recorded] = (),
) -> Report:
    """Everything in which the ledgers and the promises disagree. `posted` is in the order in which Slack posted.

    `unasked` are jobs that no client posted, such as those of schedules: only their endings and audit are looked at.
    """
    rules = rules or Rules()
    found: defaultdict[Breach, list[str]] = defaultdict(list)
    for kind, example in (
        *_breaches(sent, posted, recorded, rules),
        *(ending for row in unasked for ending in _of_ending(row, rules)),
        *_of_audit([*recorded, *unasked], chains),
    ):
        found[kind].append(example)
    lateness = _lateness(recorded)
    return Report(
        jobs=len(sent),
        rows=len(recorded),
        messages=len(posted),
        endings=Counter(f"{row.status}({row.error_code})" if row.error_code else row.status for row in recorded),
        lateness=Spread.of(seconds for _, _, seconds in lateness),
        answers=Spread.of(attempt.seconds for job in sent for attempt in job.tries if attempt.status is not None),
        breaches={kind: len(found[kind]) for kind in Breach if kind in found},
        examples={kind: found[kind][:_EXAMPLES] for kind in Breach if kind in found},
        chains=tuple(chains),
    )


_Found = Iterator[tuple[Breach, str]]


def _breaches(sent: Sequence[Sent], posted: Sequence[Posted], recorded: Sequence[Recorded], rules: Rules) -> _Found:
    rows_by_name: defaultdict[tuple[str, str], list[Recorded]] = defaultdict(list)
    for row in recorded:
        rows_by_name[row.org, row.name].append(row)
    owners = {line.key: row.id for row in recorded for line in row.lines if not line.is_human}
    posts: defaultdict[str, list[Posted]] = defaultdict(list)
    for post in posted:
        owner = owners.get(post.id)
        if owner is None:
            yield Breach.GHOST_POST, f"{post.id or 'a post without an id'} in {post.channel}: {post.text[:80]!r}"
        else:
            posts[owner].append(post)
    jobs = {(job.org, job.name): job for job in sent}
    for row in recorded:
        yield from _of_row(row, jobs.get((row.org, row.name)), posts[row.id], rules)
    for job in sent:
        yield from _of_client(job, rows_by_name[job.org, job.name], rules)
        for row in rows_by_name[job.org, job.name]:
            yield from _of_conversation(job, row, posts[row.id])
            yield from _of_cancel(job, row, posts[row.id], rules)
    yield from _of_lateness(recorded, rules)


def _of_client(job: Sent, rows: Sequence[Recorded], rules: Rules) -> _Found:
    ids = {row.id for row in rows}
    if job.is_created and not rows:
        yield Breach.LOST, f"{job.name}: answered 201 as {job.job_id}"
    elif job.is_created and job.job_id not in ids:
        yield Breach.LOST, f"{job.name}: answered {job.job_id}, recorded are {sorted(ids)}"
    if job.is_refused and rows:
        statuses = [attempt.status for attempt in job.tries]
        yield Breach.GHOST_JOB, f"{job.name}: answered {statuses}, and is there as {sorted(ids)}"
    if len(rows) > 1:
        yield Breach.GHOST_JOB, f"{job.name}: {len(rows)} rows, {sorted(ids)}"
    for attempt in (*job.tries, *job.cancels):
        if attempt.status is not None and attempt.status >= 500 and not _is_polite(attempt):
            yield Breach.ANSWER, f"{job.name}: {attempt.status}, Retry-After {attempt.has_retry_after}"
    for attempt in job.tries:
        if not any(window.holds(attempt.at) for window in rules.quick):
            continue
        if attempt.status != 201 or attempt.seconds >= rules.quick_seconds:
            yield Breach.ANSWER, f"{job.name}: {attempt.status} after {attempt.seconds:.3f} s where 201 is promised"


def _is_polite(attempt: Try) -> bool:
    return attempt.status == 503 and attempt.has_retry_after


def _of_row(row: Recorded, job: Sent | None, posts: Sequence[Posted], rules: Rules) -> _Found:
    if job is None:
        yield Breach.GHOST_JOB, f"{row.id}: nobody of {row.org} asked for {row.name!r}"
    yield from _of_ending(row, rules)
    yield from _of_messages(row, posts)
    for org, canary in rules.canaries.items():
        for post in posts:
            if org != row.org and canary in post.text:
                yield Breach.WRONG_ORG, f"{row.name} of {row.org}: a post of it has the canary of {org}"
    if job is None:
        return
    for post in posts:
        if post.channel != job.channel:
            yield Breach.WRONG_ORG, f"{row.name} of {row.org}: posted in {post.channel}, not in {job.channel}"
    if row.started_at is None:
        return
    if job.start_from is not None and row.started_at < job.start_from:
        early = job.start_from - row.started_at
        yield Breach.OUTSIDE_WINDOW, f"{row.name}: started {early:.3f} s before its window"
    if job.start_until is not None and rules.start_slack is not None:
        late = row.started_at - job.start_until
        if late > rules.start_slack:
            yield Breach.OUTSIDE_WINDOW, f"{row.name}: started {late:.3f} s after its window"
    if row.started_at < row.due_at:
        yield Breach.OUTSIDE_WINDOW, f"{row.name}: started {row.due_at - row.started_at:.3f} s before it was due"


def _of_ending(row: Recorded, rules: Rules) -> _Found:
    lives = Counter(terminal.life for terminal in row.terminals)
    for life, count in lives.items():
        if count > 1:
            yield Breach.SECOND_TERMINAL, f"{row.name}: {count} endings of life {life}"
    here = [terminal for terminal in row.terminals if terminal.life == row.life]
    if row.status not in TERMINAL:
        yield Breach.UNFINISHED, f"{row.name}: {row.status} at the end ({row.id})"
        if here:
            yield Breach.SECOND_TERMINAL, f"{row.name}: ended {here[-1].status}, and is {row.status}"
        return
    if not here:
        yield Breach.SECOND_TERMINAL, f"{row.name}: is {row.status}, and no activity says so"
    elif any(terminal.status != row.status for terminal in here):
        yield Breach.SECOND_TERMINAL, f"{row.name}: ended {here[0].status}, and is {row.status}"
    if row.finished_at is None:
        yield Breach.UNFINISHED, f"{row.name}: {row.status} without a time"
    elif row.deadline_at is not None and row.finished_at > row.deadline_at + rules.deadline_grace:
        yield Breach.UNFINISHED, f"{row.name}: ended {row.finished_at - row.deadline_at:.1f} s after its deadline"


def _of_messages(row: Recorded, posts: Sequence[Posted]) -> _Found:
    for key, count in Counter(post.id for post in posts).items():
        if count > 1:
            yield Breach.DUPLICATE, f"{row.name}: message {key} was posted {count} times"
    places = {line.key: place for place, line in enumerate(row.lines)}
    first = _first_of_each(posts)
    order = [places[post.id] for post in first]
    if order != sorted(order):
        yield Breach.DISORDER, f"{row.name}: lines were posted in the order {order}"
    for post in first[1:]:
        if first[0].thread == "" and post.thread != first[0].ts:
            yield Breach.DISORDER, f"{row.name}: {post.id} was posted in thread {post.thread!r}, not {first[0].ts!r}"
    if row.platform != "slack":
        return
    seen = {post.id for post in posts}
    for line in row.lines:
        if line.is_human or line.key in seen:
            continue
        if line.delivered_at is not None:
            yield Breach.MISSING, f"{row.name}: {line.key} is recorded as delivered, and Slack has it not"
        elif row.status == "COMPLETED":
            yield Breach.MISSING, f"{row.name}: COMPLETED without {line.text[:80]!r}"


def _of_conversation(job: Sent, row: Recorded, posts: Sequence[Posted]) -> _Found:
    texts = Counter(post.text for post in _first_of_each(posts))
    for text, count in Counter(job.expected).items():
        if texts[text] > count:
            yield Breach.DUPLICATE, f"{job.name}: {text[:80]!r} was said {texts[text]} times, expected are {count}"
        if row.status == "COMPLETED" and texts[text] < count:
            yield Breach.MISSING, f"{job.name}: COMPLETED, and {text[:80]!r} was not posted"
    expected = [post.text for post in _first_of_each(posts) if post.text in job.expected]
    if row.status == "COMPLETED" and len(expected) == len(job.expected) and expected != list(job.expected):
        yield Breach.DISORDER, f"{job.name}: posted {expected}, expected are {list(job.expected)}"
    heard = Counter(line.text for line in row.lines if line.is_human)
    for said in job.said:
        yield from _of_reply(job, row, said, heard[said.text])


def _of_reply(job: Sent, row: Recorded, said: Said, times: int) -> _Found:
    if not said.is_believable:
        if times:
            yield Breach.REPLY, f"{job.name}: {said.text!r} was believed"
        return
    if times > 1:
        yield Breach.REPLY, f"{job.name}: {said.text!r} was heard {times} times"
    if not times and said.heard_at is not None and not _was_over(job, row, said.heard_at):
        yield Breach.REPLY, f"{job.name}: {said.text!r} was answered with 2xx, and never heard"


def _was_over(job: Sent, row: Recorded, at: float) -> bool:
    """Whether the job had ended, or its agent had written its last word, only waiting for its delivery."""
    written = [line.written_at for line in row.lines if not line.is_human]
    has_parted = row.status == "COMPLETED" and len(written) >= len(job.expected) > 0 and max(written) <= at
    return has_parted or (row.finished_at is not None and row.finished_at <= at)


def _of_cancel(job: Sent, row: Recorded, posts: Sequence[Posted], rules: Rules) -> _Found:
    accepted = sum(attempt.status == 200 for attempt in job.cancels)
    if accepted > 1:
        yield Breach.AFTER_CANCEL, f"{job.name}: {accepted} DELETEs were answered 200"
    if job.canceled_at is None:
        return
    if row.status != "CANCELED":
        yield Breach.AFTER_CANCEL, f"{job.name}: DELETE was answered 200, and it is {row.status}"
    for post in posts:
        late = post.asked_at - job.canceled_at
        if late > rules.cancel_seconds:
            yield Breach.AFTER_CANCEL, f"{job.name}: {post.id} was sent {late:.3f} s after the 200"


def _of_lateness(recorded: Sequence[Recorded], rules: Rules) -> _Found:
    lateness = _lateness(recorded)
    for org, bound in rules.lateness_p99.items():
        spread = Spread.of(seconds for _, whose, seconds in lateness if org in ("", whose))
        if spread.p99 > bound:
            yield Breach.LATENESS, f"p99 of {org or 'all'} is {spread.p99:.3f} s of {spread.count}, not {bound} s"
    for org, bound in rules.lateness_max.items():
        for name, whose, seconds in lateness:
            if org in ("", whose) and seconds > bound:
                yield Breach.LATENESS, f"{name} of {whose} started {seconds:.3f} s late, not {bound} s"
    alive = [row for row in recorded if row.status != "CANCELED"]
    for window in rules.started:
        at_once = [row for row in alive if window.holds(row.created_at) and row.due_at <= row.created_at]
        yield from _not_started_by(at_once, window)
    for window in rules.due_by:
        yield from _not_started_by([row for row in alive if window.holds(row.due_at)], window)
    for window in rules.punctual:
        spread = Spread.of(
            row.started_at - row.due_at
            for row in recorded
            if window.holds(row.due_at) and row.due_at > row.created_at and row.started_at is not None
        )
        if spread.p99 > rules.punctual_p99:
            length = window.end - window.start
            yield Breach.LATENESS, f"{spread.count} that fell due within {length:.0f} s started {spread} s late"


def _of_audit(recorded: Sequence[Recorded], chains: Sequence[Chain]) -> _Found:
    for chain in chains:
        if chain.problem:
            yield Breach.AUDIT, f"the chain of {chain.org}: {chain.problem}"
        if chain.unsealed:
            yield Breach.AUDIT, f"the chain of {chain.org}: {chain.unsealed} entries are in no seal"
    for org in sorted({row.org for row in recorded} - {chain.org for chain in chains}):
        yield Breach.AUDIT, f"{org} has jobs, and no chain"
    for row in recorded:
        moves, audited = Counter(row.moves), Counter(row.audited)
        for move in moves - audited:
            yield Breach.AUDIT, f"{row.name}: went from {move}, and no entry says so"
        for move in audited - moves:
            yield Breach.AUDIT, f"{row.name}: an entry says that it went from {move}, and no activity"
        at = ""
        for move in row.audited:
            if move.left != at:
                yield Breach.AUDIT, f"{row.name}: was {at or 'nothing'} by the audit, then went from {move}"
            at = move.reached
        if at != row.status:
            yield Breach.AUDIT, f"{row.name}: is {row.status}, and by the audit {at or 'nothing'}"


def _not_started_by(rows: Sequence[Recorded], window: Window) -> _Found:
    for row in rows:
        if row.started_at is None or row.started_at > window.by:
            late = "never" if row.started_at is None else f"{row.started_at - window.by:.3f} s too late"
            yield Breach.LATENESS, f"{row.name}: of a window of {window.end - window.start:.1f} s, started {late}"


def _lateness(recorded: Sequence[Recorded]) -> list[tuple[str, str, float]]:
    """(name, organisation, seconds from due to started) of what has started."""
    return [(row.name, row.org, row.started_at - row.due_at) for row in recorded if row.started_at is not None]


def _first_of_each(posts: Sequence[Posted]) -> list[Posted]:
    """Without repetitions of one message, which are a fault of another kind."""
    first: dict[str, Posted] = {}
    for post in posts:
        first.setdefault(post.id, post)
    return list(first.values())
