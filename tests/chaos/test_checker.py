"""The checker finds every fault that is planted into a clean history, and nothing in a clean one."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.chaos.checker import Breach, Report, Rules, Spread, Window, check
from tests.chaos.ledgers import Chain, Line, Moved, Posted, Recorded, Said, Sent, Terminal, Try

T0 = 1_000_000.0


@dataclass(frozen=True)
class History:
    sent: tuple[Sent, ...]
    posted: tuple[Posted, ...]
    recorded: tuple[Recorded, ...]
    chains: tuple[Chain, ...] = (Chain("acme", 8), Chain("rival", 8))

    def job(self, place: int, **changes: object) -> "History":
        return replace(self, sent=_with(self.sent, place, changes))

    def row(self, place: int, **changes: object) -> "History":
        return replace(self, recorded=_with(self.recorded, place, changes))

    def post(self, place: int, **changes: object) -> "History":
        return replace(self, posted=_with(self.posted, place, changes))

    def ended(self, place: int, status: str, **changes: object) -> "History":
        """All that tells of the ending of a job says that it was this one."""
        terminals = (Terminal(0, status, T0 + 3.2),)
        return self.row(place, **{"status": status, "terminals": terminals, **_moved(status), **changes})

    def chain(self, **changes: object) -> "History":
        return replace(self, chains=_with(self.chains, 0, changes))

    def without_post(self, place: int) -> "History":
        return replace(self, posted=self.posted[:place] + self.posted[place + 1 :])


def _with(items: Sequence[object], place: int, changes: dict[str, object]) -> tuple:
    return tuple(replace(item, **changes) if at == place else item for at, item in enumerate(items))


def _moved(*statuses: str) -> dict[str, object]:
    """Moves through WAITING, RUNNING and these, in the activities and in the audit."""
    path = ("", "WAITING", "RUNNING", *statuses)
    moves = tuple(Moved(left, reached) for left, reached in itertools.pairwise(path))
    return {"moves": moves, "audited": moves}


def _one(number: int, *, org: str = "acme", at: float = T0) -> History:
    """A job that asked, heard an answer, thanked, and ended."""
    name, channel = f"job-{number}", f"C{number}"
    question, thanks = f"Question {number}?", f"Thank you, {number}."
    answer = Said(text=f"answer {number}", at=at + 2, heard_at=at + 2.1)
    keys = [f"m{number}-1", f"m{number}-2"]
    lines = (
        Line(keys[0], question, False, at + 1.1, at + 0.1),
        Line(f"in-{number}", answer.text, True, at + 2.1, at + 2.1),
        Line(keys[1], thanks, False, at + 3.1, at + 2.3),
    )
    ts = f"{at + 1:.6f}"
    posts = (
        Posted(keys[0], channel, "", ts, question, asked_at=at + 1, accepted_at=at + 1),
        Posted(keys[1], channel, ts, f"{at + 3:.6f}", thanks, asked_at=at + 3, accepted_at=at + 3),
    )
    attempt = Try(at=at, seconds=0.05, status=201)
    job = Sent(name, org, channel, (attempt,), f"id-{number}", (question, thanks), said=(answer,))
    row = Recorded(
        id=f"id-{number}",
        name=name,
        org=org,
        status="COMPLETED",
        created_at=at + 0.02,
        due_at=at + 0.02,
        started_at=at + 0.03,
        finished_at=at + 3.2,
        deadline_at=at + 600,
        terminals=(Terminal(0, "COMPLETED", at + 3.2),),
        lines=lines,
        **_moved("COMPLETED"),
    )
    return History((job,), posts, (row,))


def _many(*histories: History) -> History:
    return History(
        tuple(job for each in histories for job in each.sent),
        tuple(sorted((post for each in histories for post in each.posted), key=lambda post: post.accepted_at)),
        tuple(row for each in histories for row in each.recorded),
    )


CLEAN = _many(_one(1), _one(2, at=T0 + 10))
RULES = Rules(
    quick=(Window(T0 + 9, T0 + 20),),
    started=(Window(T0 + 9, T0 + 20, by=T0 + 22),),
    due_by=(Window(T0 + 5, T0 + 8, by=T0 + 10.5),),
    punctual=(Window(T0 + 30, T0 + 50),),
    lateness_p99={"": 1.0},
    lateness_max={"acme": 5.0},
    canaries={"acme": "acme-canary", "rival": "rival-canary"},
)
UNKNOWN, REFUSED = Try(T0, 2.0, None), Try(T0, 0.1, 422)


def _canceled(history: History, *, at: float) -> History:
    """The first job was taken back at `at`, after its question."""
    history = history.job(0, cancels=(Try(at - 0.1, 0.1, 200),))
    return history.ended(0, "CANCELED", terminals=(Terminal(0, "CANCELED", at),), finished_at=at)


PLANTED: dict[str, tuple[Breach, Callable[[History], History]]] = {
    "a 201 without a row": (Breach.LOST, lambda h: replace(h, recorded=h.recorded[:1], posted=h.posted[:2])),
    "a row under another id": (Breach.LOST, lambda h: h.job(0, job_id="id-else")),
    "still running at the end": (
        Breach.UNFINISHED,
        lambda h: h.row(0, status="RUNNING", terminals=(), finished_at=None),
    ),
    "ended long after its deadline": (Breach.UNFINISHED, lambda h: h.row(0, deadline_at=T0 - 60)),
    "terminal without a time": (Breach.UNFINISHED, lambda h: h.row(0, finished_at=None)),
    "two endings": (Breach.SECOND_TERMINAL, lambda h: h.row(0, terminals=(Terminal(0, "COMPLETED", T0 + 3),) * 2)),
    "an ending that changed": (Breach.SECOND_TERMINAL, lambda h: h.row(0, terminals=(Terminal(0, "FAILED", T0),))),
    "an ending nobody noted": (Breach.SECOND_TERMINAL, lambda h: h.row(0, terminals=())),
    "ended, and runs again": (Breach.SECOND_TERMINAL, lambda h: h.row(0, status="RUNNING", finished_at=None)),
    "a row of a refused request": (Breach.GHOST_JOB, lambda h: h.job(0, tries=(REFUSED,), job_id=None)),
    "two rows of one key": (
        Breach.GHOST_JOB,
        lambda h: replace(h, recorded=(*h.recorded, replace(h.recorded[0], id="id-9", lines=(), status="FAILED"))),
    ),
    "a row that nobody asked for": (Breach.GHOST_JOB, lambda h: replace(h, sent=h.sent[:1])),
    "one message twice": (Breach.DUPLICATE, lambda h: replace(h, posted=(*h.posted, h.posted[0]))),
    "one text in two messages": (
        Breach.DUPLICATE,
        lambda h: replace(
            h.row(0, lines=(*h.recorded[0].lines, Line("m1-3", "Thank you, 1.", False, T0 + 4, T0 + 3))),
            posted=(*h.posted, replace(h.posted[1], id="m1-3", accepted_at=T0 + 30)),
        ),
    ),
    "COMPLETED, and never thanked": (Breach.MISSING, lambda h: h.without_post(1)),
    "delivered, and nobody saw it": (
        Breach.MISSING,
        lambda h: h.without_post(1).row(0, status="FAILED", terminals=(Terminal(0, "FAILED", T0),)),
    ),
    "a post of nobody": (Breach.GHOST_POST, lambda h: replace(h, posted=(*h.posted, replace(h.posted[0], id="who")))),
    "a post without an id": (Breach.GHOST_POST, lambda h: replace(h, posted=(*h.posted, replace(h.posted[0], id="")))),
    "thanked before it asked": (
        Breach.DISORDER,
        lambda h: replace(h, posted=(h.posted[1], h.posted[0], *h.posted[2:])),
    ),
    "in another thread": (Breach.DISORDER, lambda h: h.post(1, thread="1.2")),
    "at top level": (Breach.DISORDER, lambda h: h.post(1, thread="")),
    "a reply heard twice": (
        Breach.REPLY,
        lambda h: h.row(0, lines=(*h.recorded[0].lines, replace(h.recorded[0].lines[1], key="in-9"))),
    ),
    "a reply never heard": (
        Breach.REPLY,
        lambda h: h.row(0, lines=(h.recorded[0].lines[0], h.recorded[0].lines[2])),
    ),
    "a reply never heard, before the agent's last word": (
        Breach.REPLY,
        lambda h: h.job(0, said=(*h.sent[0].said, Said("and more", T0 + 2.1, heard_at=T0 + 2.2))),
    ),
    "a forged reply believed": (
        Breach.REPLY,
        lambda h: h.job(0, said=(replace(h.sent[0].said[0], is_believable=False),)),
    ),
    "p99 of lateness": (Breach.LATENESS, lambda h: h.row(0, started_at=T0 + 1.5)),
    "too late after Redis came back": (Breach.LATENESS, lambda h: h.row(1, started_at=T0 + 22.5, created_at=T0 + 19)),
    "never started after Redis came back": (Breach.LATENESS, lambda h: h.row(1, started_at=None)),
    "too late after the beats came back": (Breach.LATENESS, lambda h: h.row(0, due_at=T0 + 6, started_at=T0 + 10.6)),
    "unpunctual": (Breach.LATENESS, lambda h: h.row(0, due_at=T0 + 40, started_at=T0 + 41.5)),
    "one job far too late": (Breach.LATENESS, lambda h: h.row(0, started_at=T0 + 6)),
    "before its window": (Breach.OUTSIDE_WINDOW, lambda h: h.job(0, start_from=T0 + 1, start_until=T0 + 9)),
    "after its window": (Breach.OUTSIDE_WINDOW, lambda h: h.job(0, start_from=T0 - 9, start_until=T0 - 2.5)),
    "before it was due": (Breach.OUTSIDE_WINDOW, lambda h: h.row(0, due_at=T0 + 0.5)),
    "sent after the cancel": (Breach.AFTER_CANCEL, lambda h: _canceled(h, at=T0 + 0.5)),
    "two cancels accepted": (
        Breach.AFTER_CANCEL,
        lambda h: _canceled(h, at=T0 + 2.5).job(0, cancels=(Try(T0 + 2.4, 0.1, 200),) * 2),
    ),
    "cancel accepted, and completed": (
        Breach.AFTER_CANCEL,
        lambda h: h.job(0, cancels=(Try(T0 + 3, 0.1, 200),)),
    ),
    "another's channel": (Breach.WRONG_ORG, lambda h: h.post(0, channel="C2").post(1, channel="C2")),
    "another's canary": (Breach.WRONG_ORG, lambda h: h.post(0, text="Question 1? rival-canary")),
    "a move that is in no entry": (Breach.AUDIT, lambda h: h.row(0, audited=h.recorded[0].audited[:2])),
    "a creation that is in no entry": (Breach.AUDIT, lambda h: h.row(0, audited=h.recorded[0].audited[1:])),
    "an entry of a move that nobody made": (Breach.AUDIT, lambda h: h.row(0, moves=h.recorded[0].moves[:1])),
    "a status that nothing tells of": (
        Breach.AUDIT,
        lambda h: h.row(0, moves=h.recorded[0].moves[:2], audited=h.recorded[0].moves[:2]),
    ),
    "a move between that nothing tells of": (
        Breach.AUDIT,
        lambda h: h.row(0, moves=h.recorded[0].moves[::2], audited=h.recorded[0].moves[::2]),
    ),
    "a broken chain": (Breach.AUDIT, lambda h: h.chain(problem="seal 2 is missing: the next one is 3")),
    "an entry in no seal": (Breach.AUDIT, lambda h: h.chain(unsealed=1)),
    "jobs of an organisation without a chain": (Breach.AUDIT, lambda h: replace(h, chains=())),
    "a 500": (Breach.ANSWER, lambda h: h.job(0, tries=(Try(T0, 0.1, 500), *h.sent[0].tries))),
    "a 503 without Retry-After": (Breach.ANSWER, lambda h: h.job(0, tries=(Try(T0, 0.1, 503), *h.sent[0].tries))),
    "a slow 201 while Redis is down": (Breach.ANSWER, lambda h: h.job(1, tries=(Try(T0 + 10, 0.6, 201),))),
    "a 503 while Redis is down": (
        Breach.ANSWER,
        lambda h: h.job(1, tries=(Try(T0 + 10, 0.1, 503, has_retry_after=True), *h.sent[1].tries)),
    ),
}


def _check(history: History, *, rules: Rules | None = None) -> Report:
    return check(history.sent, history.posted, history.recorded, history.chains, rules=rules)


def test_a_clean_history_is_clean():
    report = _check(CLEAN, rules=RULES)
    assert report.breaches == {}
    assert (report.jobs, report.rows, report.messages, dict(report.endings)) == (2, 2, 4, {"COMPLETED": 2})


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_fault_is_found(planted: str):
    kind, plant = PLANTED[planted]
    history = plant(CLEAN)
    report = _check(history, rules=RULES)
    assert report.breaches.get(kind), str(report)
    assert not report.is_clean
    assert report.examples[kind][0] in str(report)


def test_every_kind_of_breach_is_planted():
    assert {kind for kind, _ in PLANTED.values()} == set(Breach)


@pytest.mark.parametrize(
    "harmless",
    [
        # Not answered, and repeated: one row.
        lambda h: h.job(0, tries=(UNKNOWN, UNKNOWN, *h.sent[0].tries)),
        # Refused with a clear word while the database was away, and repeated.
        lambda h: h.job(0, tries=(Try(T0, 0.1, 503, has_retry_after=True), *h.sent[0].tries)),
        # Never known whether it was made, and it was: the client may ask again with its key.
        lambda h: h.job(0, tries=(UNKNOWN,), job_id=None),
        # Never known, and it was not made.
        lambda h: replace(h.job(0, tries=(UNKNOWN,), job_id=None), recorded=h.recorded[1:], posted=h.posted[2:]),
        # A follow-up between question and thanks.
        lambda h: replace(
            h.row(
                0,
                lines=(
                    h.recorded[0].lines[0],
                    Line("m1-f", "Still hoping", False, T0 + 2, T0 + 2),
                    *h.recorded[0].lines[1:],
                ),
            ),
            posted=(h.posted[0], replace(h.posted[1], id="m1-f", text="Still hoping"), *h.posted[1:]),
        ),
        # Sent within 2 s after the cancel, then nothing more.
        lambda h: _canceled(h, at=T0 + 1.5),
        # A reply to a job that had ended already.
        lambda h: h.row(0, lines=(h.recorded[0].lines[0], h.recorded[0].lines[2]), finished_at=T0 + 2.05),
        # A reply to a job that has said its last word, and only waits for that to be delivered.
        lambda h: h.job(0, said=(*h.sent[0].said, Said("and more", T0 + 2.4, heard_at=T0 + 2.5))),
        # FAILED jobs may keep their last words to themselves.
        lambda h: h.without_post(1).ended(
            0,
            "FAILED",
            lines=(*h.recorded[0].lines[:2], replace(h.recorded[0].lines[2], delivered_at=None)),
        ),
        # An explicit retry has a life and an ending of its own.
        lambda h: h.row(
            0,
            life=1,
            terminals=(Terminal(0, "FAILED", T0 + 1), Terminal(1, "COMPLETED", T0 + 3)),
            **_moved("FAILED", "WAITING", "RUNNING", "COMPLETED"),
        ),
    ],
)
def test_what_no_promise_forbids_is_not_reported(harmless: Callable[[History], History]):
    history = harmless(CLEAN)
    assert _check(history, rules=RULES).breaches == {}


@settings(max_examples=50)
@given(
    starts=st.lists(st.floats(0, 500), min_size=1, max_size=20, unique=True),
    orgs=st.lists(st.sampled_from(["acme", "rival"]), min_size=20, max_size=20),
)
def test_clean_jobs_stay_clean_however_they_interleave(starts: list[float], orgs: list[str]):
    jobs = [_one(number, org=org, at=T0 + at) for number, (at, org) in enumerate(zip(starts, orgs, strict=False))]
    history = _many(*jobs)
    assert _check(history).breaches == {}


def test_a_spread_is_of_what_was_measured():
    assert Spread.of(float(number) for number in range(1, 101)) == Spread(100, 50.0, 99.0, 100.0)
    assert Spread.of([]) == Spread(0, 0.0, 0.0, 0.0)
