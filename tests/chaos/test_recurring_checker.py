"""The checker of recurring jobs finds every fault that is planted into a clean history, and nothing in a clean one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.chaos.checker import Window
from tests.chaos.ledgers import Try
from tests.chaos.recurring_checker import Fault, Punctuality, check_recurring
from tests.chaos.recurring_ledgers import (
    Arrival,
    Attempted,
    Claimed,
    Fired,
    MadeJob,
    RecurringLedger,
    Sign,
    Timetable,
    Told,
    Withdrawn,
)

T0 = 1_000_000.0
RULES = Punctuality(punctual=(Window(T0, T0 + 60),), latest=3.0, outages=(Window(T0 + 20, T0 + 40),))


@dataclass(frozen=True)
class Past:
    ledger: RecurringLedger

    def changed(self, part: str, place: int, **changes: Any) -> "Past":
        items = getattr(self.ledger, part)
        return self.put(part, tuple(replace(it, **changes) if at == place else it for at, it in enumerate(items)))

    def put(self, part: str, items: Sequence[Any]) -> "Past":
        return Past(replace(self.ledger, **{part: tuple(items)}))

    def added(self, part: str, *items: Any) -> "Past":
        return self.put(part, (*getattr(self.ledger, part), *items))

    def without(self, part: str, place: int) -> "Past":
        return self.put(part, [it for at, it in enumerate(getattr(self.ledger, part)) if at != place])

    def canceled(self, place: int, *, at: float) -> "Past":
        """The job of this place was canceled by a DELETE, and its attempt with it."""
        job = self.ledger.jobs[place]
        tasks = tuple(replace(task, status="CANCELED") for task in job.tasks)
        past = self.changed("jobs", place, status="CANCELED", ended_at=at - 0.05, tasks=tasks, result_data=None)
        return past.added("withdrawn", Withdrawn(job.id, (Try(at - 0.1, 0.1, 200),)))


def _job(kind: str, number: int, result: Any) -> MadeJob:
    at = T0 + 2 * number
    job_id = f"{kind}-{number}"
    executor = "e1" if kind == "external" else ""
    return MadeJob(
        id=job_id,
        schedule_id=f"s-{kind}",
        fire_at=at,
        due_at=at,
        made_at=at + 0.02,
        status="COMPLETED",
        started_at=at + 0.03,
        ended_at=at + 1,
        others_alive=0,
        result_data=result,
        tasks=(Attempted(f"t-{job_id}", 1, "COMPLETED", executor),),
    )


# Two firings of each kind: the jobs 0 and 1 are webhooks, 2 and 3 commands, 4 and 5 external ones.
JOBS = (
    _job("webhook", 0, {"status_code": 200}),
    _job("webhook", 1, {"status_code": 200}),
    _job("command", 0, {"exit_code": 0, "stdout": "command-0"}),
    _job("command", 1, {"exit_code": 0, "stdout": "command-1"}),
    _job("external", 0, {"mark": "e1/1/only"}),
    _job("external", 1, {"mark": "e1/1/only"}),
)
CLEAN = Past(
    RecurringLedger(
        timetables=tuple(
            Timetable(f"s-{kind}", kind, kind, overlap, (T0, T0 + 2))
            for kind, overlap in (("webhook", "allow"), ("command", "forbid"), ("external", "queue_one"))
        ),
        fired=tuple(Fired(job.schedule_id, job.fire_at, "started", job.id, job.made_at) for job in JOBS),
        jobs=JOBS,
        arrivals=tuple(Arrival(job.id, f"t-{job.id}", job.fire_at + 0.1, 200) for job in JOBS[:2]),
        signs=tuple(Sign(job.id, f"t-{job.id}", number, job.fire_at + 0.1) for job in JOBS[2:4] for number in (0, 1)),
        claims=tuple(Claimed(job.id, 1, "e1", job.fire_at + 0.1) for job in JOBS[4:]),
        told=tuple(Told(job.id, 1, "e1", "complete", job.fire_at + 0.9, 200, mark="e1/1/only") for job in JOBS[4:]),
    )
)


def _retried(past: Past, place: int) -> Past:
    """The job of this place has had an attempt before the one that completed it."""
    job = past.ledger.jobs[place]
    lost = Attempted(f"lost-{job.id}", 0, "TIMEOUT", "e0" if job.tasks[0].executor_id else "")
    return past.changed("jobs", place, tasks=(lost, *job.tasks))


PLANTED: dict[str, tuple[Fault, Callable[[Past], Past]]] = {
    "a time without a firing": (Fault.NOT_FIRED, lambda p: p.without("fired", 0)),
    "two firings of a time": (
        Fault.FIRED_TWICE,
        lambda p: p.added("fired", replace(p.ledger.fired[0], outcome="skipped", job_id=None)),
    ),
    "two jobs of a firing": (Fault.FIRED_TWICE, lambda p: p.added("jobs", replace(JOBS[0], id="again", tasks=()))),
    "a job that two firings name": (Fault.FIRED_TWICE, lambda p: p.added("fired", p.ledger.fired[0])),
    "a firing at another time": (Fault.GHOST_FIRING, lambda p: p.changed("fired", 0, fire_at=T0 + 1)),
    "a job without a firing": (
        Fault.GHOST_FIRING,
        lambda p: p.changed("fired", 0, outcome="misfired", job_id=None, made_at=T0 + 90),
    ),
    "a skipped firing with a job": (
        Fault.GHOST_FIRING,
        lambda p: p.changed("fired", 2, outcome="skipped"),
    ),
    "a firing whose job is gone": (Fault.NO_JOB, lambda p: p.without("jobs", 0)),
    "a firing that names the job of another": (Fault.NO_JOB, lambda p: p.changed("fired", 0, job_id=JOBS[1].id)),
    "a firing whose job could not be made": (
        Fault.NO_JOB,
        lambda p: p.changed("fired", 0, outcome="failed", job_id=None).without("jobs", 0).put("arrivals", ()),
    ),
    "a firing that still waits": (
        Fault.NO_JOB,
        lambda p: p.changed("fired", 4, outcome="queued", job_id=None).without("jobs", 4),
    ),
    "a firing given up too early": (
        Fault.NO_JOB,
        lambda p: p.changed("fired", 0, outcome="misfired", job_id=None, made_at=T0 + 9).without("jobs", 0),
    ),
    "a skip without a reason": (
        Fault.OVERLAP,
        lambda p: p.changed("fired", 0, outcome="skipped", job_id=None).without("jobs", 0),
    ),
    "two alive at once": (Fault.OVERLAP, lambda p: p.changed("jobs", 3, others_alive=1)),
    "one late firing of two": (Fault.LATE, lambda p: p.changed("fired", 0, made_at=T0 + 1.5)),
    "a firing far too late": (Fault.LATE, lambda p: p.changed("fired", 1, made_at=T0 + 6)),
    "due before its firing": (Fault.OUTSIDE_JITTER, lambda p: p.changed("jobs", 0, due_at=T0 - 1)),
    "due after its jitter": (
        Fault.OUTSIDE_JITTER,
        lambda p: p.changed("timetables", 0, jitter_seconds=3).changed("jobs", 0, due_at=T0 + 4, started_at=T0 + 5),
    ),
    "started before it was due": (Fault.OUTSIDE_JITTER, lambda p: p.changed("jobs", 0, due_at=T0 + 0.5)),
    "a job without an end": (Fault.UNFINISHED_JOB, lambda p: p.changed("jobs", 0, status="RUNNING", ended_at=None)),
    "a webhook that never arrived": (Fault.NOT_DELIVERED, lambda p: p.without("arrivals", 0)),
    "a webhook that was answered 500 only": (Fault.NOT_DELIVERED, lambda p: p.changed("arrivals", 0, status=500)),
    "a webhook completed by an attempt that failed": (
        Fault.NOT_DELIVERED,
        lambda p: _retried(p, 0).changed("arrivals", 0, task_id="lost-webhook-0"),
    ),
    "a command that never ran": (
        Fault.NOT_DELIVERED,
        lambda p: p.put("signs", [sign for sign in p.ledger.signs if sign.job_id != "command-0"]),
    ),
    "one attempt sent two requests": (Fault.REPEATED, lambda p: p.added("arrivals", p.ledger.arrivals[0])),
    "a request of no attempt": (Fault.REPEATED, lambda p: p.added("arrivals", Arrival("webhook-0", "t-x", T0, 200))),
    "a request of another job's attempt": (
        Fault.REPEATED,
        lambda p: p.added("arrivals", Arrival("webhook-0", "t-webhook-1", T0, 200)),
    ),
    "one attempt began twice": (Fault.REPEATED, lambda p: p.added("signs", p.ledger.signs[0])),
    "another command's output": (
        Fault.WRONG_RESULT,
        lambda p: p.changed("jobs", 2, result_data={"exit_code": 0, "stdout": "command-1"}),
    ),
    "one lease for two executors": (Fault.STALE, lambda p: p.added("claims", Claimed("external-0", 1, "e2", T0 + 0.1))),
    "a lease that another one holds": (Fault.STALE, lambda p: p.changed("claims", 0, executor_id="e2")),
    "a heartbeat of an old lease": (
        Fault.STALE,
        lambda p: _retried(p, 4).added("told", Told("external-0", 0, "e0", "heartbeat", T0 + 0.5, 200)),
    ),
    "two ends of one lease": (
        Fault.STALE,
        lambda p: p.added("told", Told("external-0", 1, "e1", "fail", T0 + 0.95, 200)),
    ),
    "two attempts that completed": (
        Fault.STALE,
        lambda p: p.changed("jobs", 4, tasks=(*JOBS[4].tasks, Attempted("t-2", 2, "COMPLETED", "e2"))),
    ),
    "a result that nobody reported": (Fault.WRONG_RESULT, lambda p: p.changed("jobs", 4, result_data={"mark": "?"})),
    "a result of an executor without the lease": (
        Fault.WRONG_RESULT,
        lambda p: p.changed("told", 0, executor_id="e2"),
    ),
    "a refused result that counts": (Fault.WRONG_RESULT, lambda p: p.changed("told", 0, status=409)),
    "an accepted result that is not there": (
        Fault.WRONG_RESULT,
        lambda p: p.changed("jobs", 4, status="FAILED", result_data=None),
    ),
    "the result of an old lease, accepted too": (
        Fault.WRONG_RESULT,
        lambda p: _retried(p, 4).added("told", Told("external-0", 0, "e0", "complete", T0, 200, mark="e0/0/only")),
    ),
    "a DELETE that canceled nothing": (
        Fault.RAN_ON,
        lambda p: p.added("withdrawn", Withdrawn("webhook-0", (Try(T0, 0.1, 200),))),
    ),
    "a request long after a cancel": (
        Fault.RAN_ON,
        lambda p: p.canceled(0, at=T0 + 0.5).changed("arrivals", 0, at=T0 + 2.7),
    ),
    "a command that goes on after a cancel": (
        Fault.RAN_ON,
        lambda p: p.canceled(2, at=T0 + 0.5).changed("signs", 1, at=T0 + 2.7),
    ),
    "a heartbeat that tells of no cancel": (
        Fault.RAN_ON,
        lambda p: p.canceled(4, at=T0 + 0.5).changed("told", 0, verb="heartbeat", at=T0 + 2.7),
    ),
    "a command that goes on after it was replaced": (
        Fault.RAN_ON,
        lambda p: p.canceled(2, at=T0 + 0.5).put("withdrawn", ()).changed("signs", 1, at=T0 + 2.7),
    ),
    "no command completed": (
        Fault.SHOWS_NOTHING,
        lambda p: p.changed("jobs", 2, status="FAILED").changed("jobs", 3, status="FAILED"),
    ),
}


def test_a_clean_history_has_no_fault():
    report = check_recurring(CLEAN.ledger, RULES)
    assert report.is_clean, str(report)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name: str):
    kind, plant = PLANTED[name]
    report = check_recurring(plant(CLEAN).ledger, RULES)
    assert report.faults.get(kind), str(report)
    assert not report.is_clean
    assert report.examples[kind][0] in str(report)


def test_every_fault_is_planted():
    assert {kind for kind, _ in PLANTED.values()} == set(Fault)


# --- What looks like a fault and is none -----------------------------------------------------------------------
ALLOWED: dict[str, Callable[[Past], Past]] = {
    "a second attempt after the first was lost": lambda p: _retried(p, 0).added(
        "arrivals", Arrival("webhook-0", "lost-webhook-0", T0 + 0.05, None)
    ),
    "a skip of a policy that forbids": lambda p: (
        p.changed("fired", 2, outcome="skipped", job_id=None)
        .without("jobs", 2)
        .put("signs", [sign for sign in p.ledger.signs if sign.job_id != "command-0"])
    ),
    "others alive where the policy allows them": lambda p: p.changed("jobs", 1, others_alive=3),
    "a completed report whose answer was lost": lambda p: p.changed("told", 0, status=None),
    "a second report that is refused": lambda p: p.added(
        "told", Told("external-0", 1, "e1", "complete", T0 + 0.95, 409, "already_reported", mark="e1/1/second")
    ),
    "a report of a lapsed lease that is refused": lambda p: _retried(p, 4).added(
        "told", Told("external-0", 0, "e0", "complete", T0 + 0.95, 409, "lease_lost", mark="e0/0/only")
    ),
    "a heartbeat that tells of the cancel": lambda p: p.canceled(4, at=T0 + 0.5).changed(
        "told", 0, verb="heartbeat", at=T0 + 9, is_canceled=True
    ),
    "a command that ends within two seconds": lambda p: p.canceled(2, at=T0 + 0.5).changed("signs", 1, at=T0 + 2.4),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_allowed_is_no_fault(name: str):
    report = check_recurring(ALLOWED[name](CLEAN).ledger, RULES)
    assert report.is_clean, str(report)


def test_time_without_a_database_does_not_count():
    rules = replace(RULES, outages=(Window(T0 + 10, T0 + 20), Window(T0 + 15, T0 + 25)))
    assert rules.counted(T0 + 9, T0 + 26) == 2
    assert rules.counted(T0 + 12, T0 + 18) == 0
    assert rules.counted(T0, T0 + 5) == 5
