"""Holds the ledgers of recurring jobs against the promises: a pure function, tested with planted faults.

That each job has one ending and a whole audit is checked with the other jobs (`checker`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.chaos.checker import TERMINAL, Spread, Window
from tests.chaos.recurring_ledgers import Claimed, Fired, MadeJob, RecurringLedger, Sign, Timetable, Told

_EXAMPLES = 5
_MOST_TRUSTED_DRIFT = 0.001
_ACCEPTED = 200
# Without a job: the overlap policy or the misfire policy allowed none.
_WITHOUT_JOB = frozenset({"skipped", "misfired"})


class Fault(StrEnum):
    """The ways in which a promise about recurring jobs is broken."""

    NOT_FIRED = "not fired"  # I9: a due time without a firing
    FIRED_TWICE = "fired twice"  # I9: two firings of a time, two jobs of a firing
    GHOST_FIRING = "ghost firing"  # I9: a time that is not in the timetable; a job without a firing
    NO_JOB = "no job"  # I9: a firing that should have made a job
    LATE = "fired late"  # I9
    OVERLAP = "overlap"  # two jobs alive where the policy allows one; a skip where it allows all
    OUTSIDE_JITTER = "outside jitter"  # I10
    UNFINISHED_JOB = "unfinished"  # I1
    NOT_DELIVERED = "not delivered"  # I6: COMPLETED without its effect
    REPEATED = "repeated"  # an effect of no attempt, or a second one of the same attempt
    STALE = "stale"  # I5: accepted from an attempt that is over, or claimed twice
    WRONG_RESULT = "wrong result"  # I5: the result is not that of the attempt that was accepted
    RAN_ON = "ran on"  # I12: an effect later than 2 s after the cancel
    SHOWS_NOTHING = "shows nothing"  # too few jobs of a kind COMPLETED


@dataclass(frozen=True, slots=True)
class Punctuality:
    """`cancel_seconds` after a cancel nothing runs. Of the firings that are due in `punctual`, 99 % are made within
    `p99`. No firing is later than `latest`, None for no limit. Time in `outages` does not count.
    """

    cancel_seconds: float = 2.0
    grace_seconds: float = 60.0
    p99: float = 1.0
    latest: float | None = None
    punctual: tuple[Window, ...] = ()
    outages: tuple[Window, ...] = ()

    def counted(self, start: float, end: float) -> float:
        """Seconds from `start` to `end` without the outages."""
        cuts = sorted((max(start, out.start), min(end, out.end)) for out in self.outages)
        left, reached = end - start, start
        for cut_start, cut_end in cuts:
            begins = max(cut_start, reached)
            if cut_end > begins:
                left -= cut_end - begins
                reached = cut_end
        return left


@dataclass(frozen=True, slots=True)
class RecurringReport:
    outcomes: Mapping[str, int]
    endings: Mapping[str, int]
    effects: Mapping[str, int]
    lateness: Spread
    faults: Mapping[Fault, int]
    examples: Mapping[Fault, Sequence[str]]

    @property
    def is_clean(self) -> bool:
        return not self.faults

    def __str__(self) -> str:
        found = " · ".join(f"{kind} {self.faults.get(kind, 0)}" for kind in Fault)
        lines = [
            f"firings {_listed(self.outcomes)} · late p50/p99/max {self.lateness} s",
            f"their jobs {_listed(self.endings)}",
            f"their effects {_listed(self.effects)}",
            found,
        ]
        for kind, examples in self.examples.items():
            lines += [f"  {kind}: {example}" for example in examples]
        return "\n".join(lines)


_Found = Iterator[tuple[Fault, str]]


def check_recurring(ledger: RecurringLedger, rules: Punctuality) -> RecurringReport:
    """Everything in which the ledgers of recurring jobs and the promises disagree."""
    found: defaultdict[Fault, list[str]] = defaultdict(list)
    for kind, example in _faults(ledger, rules):
        found[kind].append(example)
    kinds = {table.schedule_id: table.kind for table in ledger.timetables}
    effects = Counter({"requests received": len(ledger.arrivals), "commands begun": _begun(ledger.signs)})
    effects.update(f"{told.verb} {told.status or 'unknown'}" for told in ledger.told)
    return RecurringReport(
        outcomes=Counter(one.outcome for one in ledger.fired),
        endings=Counter(f"{kinds.get(job.schedule_id, '?')} {_ending(job)}" for job in ledger.jobs),
        effects=effects,
        lateness=Spread.of(one.made_at - one.fire_at for one in ledger.fired),
        faults={kind: len(found[kind]) for kind in Fault if kind in found},
        examples={kind: found[kind][:_EXAMPLES] for kind in Fault if kind in found},
    )


def _faults(ledger: RecurringLedger, rules: Punctuality) -> _Found:
    tables = {table.schedule_id: table for table in ledger.timetables}
    for table in ledger.timetables:
        yield from _of_times(table, [one for one in ledger.fired if one.schedule_id == table.schedule_id])
    yield from _of_firings(ledger, tables, rules)
    yield from _of_lateness(ledger, rules)
    for job in ledger.jobs:
        yield from _of_job(job, tables.get(job.schedule_id))
    yield from _of_hooks(ledger, tables)
    yield from _of_commands(ledger, tables)
    yield from _of_executors(ledger, tables)
    yield from _of_cancels(ledger, rules)
    completed = Counter(tables[job.schedule_id].kind for job in ledger.jobs if job.status == "COMPLETED")
    for kind in sorted({table.kind for table in ledger.timetables}):
        if not completed[kind]:
            yield Fault.SHOWS_NOTHING, f"no {kind} job is COMPLETED"


# --- Firings ---------------------------------------------------------------------------------------------------
def _of_times(table: Timetable, fired: Sequence[Fired]) -> _Found:
    times = Counter(round(one.fire_at, 3) for one in fired)
    planned = {round(at, 3) for at in table.times}
    for at in sorted(planned - set(times)):
        yield Fault.NOT_FIRED, f"{table.name}: {_clock(at)} has no firing"
    for at in sorted(set(times) - planned):
        yield Fault.GHOST_FIRING, f"{table.name}: fired at {_clock(at)}, which is no time of it"
    for at, count in sorted(times.items()):
        if count > 1:
            yield Fault.FIRED_TWICE, f"{table.name}: {_clock(at)} has {count} firings"


def _of_firings(ledger: RecurringLedger, tables: Mapping[str, Timetable], rules: Punctuality) -> _Found:
    jobs = {job.id: job for job in ledger.jobs}
    made = Counter((job.schedule_id, round(job.fire_at, 3)) for job in ledger.jobs)
    claimed = Counter(one.job_id for one in ledger.fired if one.job_id)
    for one in ledger.fired:
        table = tables.get(one.schedule_id)
        name = f"{table.name if table else one.schedule_id} at {_clock(one.fire_at)}"
        count = made[one.schedule_id, round(one.fire_at, 3)]
        if one.outcome == "started":
            job = jobs.get(one.job_id or "")
            if job is None or (job.schedule_id, round(job.fire_at, 3)) != (one.schedule_id, round(one.fire_at, 3)):
                yield Fault.NO_JOB, f"{name}: started, and its job {one.job_id} is not there"
            elif count > 1 or claimed[job.id] > 1:
                yield Fault.FIRED_TWICE, f"{name}: {count} jobs; {claimed[job.id]} firings name {job.id}"
            continue
        if count:
            yield Fault.GHOST_FIRING, f"{name}: {one.outcome}, and there is a job of it"
        if one.outcome not in _WITHOUT_JOB:
            yield Fault.NO_JOB, f"{name}: {one.outcome} at the end: {one.reason}"
        elif one.outcome == "skipped" and table is not None and table.overlap == "allow":
            yield Fault.OVERLAP, f"{name}: skipped, and its policy is allow"
        elif one.outcome == "misfired" and one.made_at - one.fire_at < rules.grace_seconds:
            yield Fault.NO_JOB, f"{name}: misfired {one.made_at - one.fire_at:.1f} s after its time"
    for job in ledger.jobs:
        if not claimed[job.id]:
            yield Fault.GHOST_FIRING, f"{job.id}: no firing of {_clock(job.fire_at)} names it"


def _of_lateness(ledger: RecurringLedger, rules: Punctuality) -> _Found:
    late = [(one, rules.counted(one.fire_at, one.made_at)) for one in ledger.fired]
    for window in rules.punctual:
        spread = Spread.of(seconds for one, seconds in late if window.holds(one.fire_at))
        if spread.p99 > rules.p99:
            yield Fault.LATE, f"{spread.count} that were due in {window.end - window.start:.0f} s: {spread} s late"
    for one, seconds in late:
        if rules.latest is not None and seconds > rules.latest:
            yield Fault.LATE, f"{one.schedule_id} at {_clock(one.fire_at)}: {seconds:.3f} s late"


# --- Jobs ------------------------------------------------------------------------------------------------------
def _of_job(job: MadeJob, table: Timetable | None) -> _Found:
    if job.status not in TERMINAL:
        yield Fault.UNFINISHED_JOB, f"{job.id}: {job.status} at the end"
    if table is None:
        return
    if table.overlap != "allow" and job.others_alive:
        yield Fault.OVERLAP, f"{table.name} at {_clock(job.fire_at)}: made beside {job.others_alive} others"
    is_direct = table.overlap != "queue_one"
    until = job.fire_at + table.jitter_seconds
    if job.due_at < job.fire_at - _MOST_TRUSTED_DRIFT:
        yield Fault.OUTSIDE_JITTER, f"{table.name} at {_clock(job.fire_at)}: due {job.fire_at - job.due_at:.3f} s early"
    if table.jitter_seconds and is_direct and job.due_at > max(until, job.made_at) + _MOST_TRUSTED_DRIFT:
        yield Fault.OUTSIDE_JITTER, f"{table.name} at {_clock(job.fire_at)}: due {job.due_at - until:.3f} s too late"
    if job.started_at is not None and job.started_at < job.due_at - _MOST_TRUSTED_DRIFT:
        yield Fault.OUTSIDE_JITTER, f"{table.name} at {_clock(job.fire_at)}: started before it was due"


def _of_hooks(ledger: RecurringLedger, tables: Mapping[str, Timetable]) -> _Found:
    yield from _of_attempts(ledger, [(one.job_id, one.task_id) for one in ledger.arrivals], "requests")
    answered = {one.task_id for one in ledger.arrivals if one.status == _ACCEPTED}
    for job in _completed(ledger, tables, "webhook"):
        if not any(task.id in answered and task.status == "COMPLETED" for task in job.tasks):
            yield Fault.NOT_DELIVERED, f"{job.id}: COMPLETED, and the receiver answered 200 to none of its attempts"


def _of_commands(ledger: RecurringLedger, tables: Mapping[str, Timetable]) -> _Found:
    begun = [(one.job_id, one.task_id) for one in ledger.signs if one.number == 0]
    yield from _of_attempts(ledger, begun, "starts")
    seen = {task_id for _, task_id in begun}
    for job in _completed(ledger, tables, "command"):
        if not any(task.id in seen and task.status == "COMPLETED" for task in job.tasks):
            yield Fault.NOT_DELIVERED, f"{job.id}: COMPLETED, and its command never ran"
        printed = job.result_data.get("stdout") if isinstance(job.result_data, dict) else None
        if printed != job.id:
            yield Fault.WRONG_RESULT, f"{job.id}: its command printed {printed!r}"


def _of_attempts(ledger: RecurringLedger, effects: Sequence[tuple[str, str]], what: str) -> _Found:
    """Each effect belongs to an attempt of its job, and no attempt has two."""
    known = {task.id: job.id for job in ledger.jobs for task in job.tasks}
    for (job_id, task_id), count in Counter(effects).items():
        if known.get(task_id) != job_id:
            yield Fault.REPEATED, f"{job_id}: {what} of {task_id}, which is no attempt of it"
        elif count > 1:
            yield Fault.REPEATED, f"{job_id}: {count} {what} of one attempt {task_id}"


def _of_executors(ledger: RecurringLedger, tables: Mapping[str, Timetable]) -> _Found:
    claims, told = defaultdict(list), defaultdict(list)
    for claim in ledger.claims:
        claims[claim.job_id].append(claim)
    for said in ledger.told:
        told[said.job_id].append(said)
    completed = {job.id for job in _completed(ledger, tables, "external")}
    for job in ledger.jobs:
        yield from _of_claims(job, claims[job.id])
        yield from _of_reports(job, claims[job.id], told[job.id], is_completed=job.id in completed)


def _of_claims(job: MadeJob, claims: Sequence[Claimed]) -> _Found:
    tasks = {task.token: task.executor_id for task in job.tasks}
    for token, count in Counter(claim.token for claim in claims).items():
        if count > 1:
            yield Fault.STALE, f"{job.id}: the lease {token} was given {count} times"
    for claim in claims:
        if tasks.get(claim.token) != claim.executor_id:
            yield Fault.STALE, f"{job.id}: {claim.executor_id} was given the lease {claim.token}, which is not its own"


def _of_reports(job: MadeJob, claims: Sequence[Claimed], told: Sequence[Told], *, is_completed: bool) -> _Found:
    for said in told:
        if said.status != _ACCEPTED or said.is_canceled:
            continue
        later = [claim for claim in claims if claim.token > said.token and claim.answered_at < said.at]
        if later:
            yield Fault.STALE, f"{job.id}: {said.verb} of the lease {said.token} was accepted after {later[0].token}"
    ends = [said for said in told if said.status == _ACCEPTED and said.verb in ("complete", "fail", "release")]
    for token, count in Counter(said.token for said in ends).items():
        if count > 1:
            yield Fault.STALE, f"{job.id}: {count} ends of the lease {token} were accepted"
    accepted = [said for said in ends if said.verb == "complete"]
    if accepted and job.status != "COMPLETED":
        yield Fault.WRONG_RESULT, f"{job.id}: a result was accepted, and it is {job.status}"
    if not is_completed:
        return
    ended_by = [task for task in job.tasks if task.status == "COMPLETED"]
    mark = job.result_data.get("mark") if isinstance(job.result_data, dict) else None
    if len(ended_by) != 1:
        yield Fault.STALE, f"{job.id}: COMPLETED by {len(ended_by)} attempts"
        return
    (last,) = ended_by
    possible = [said for said in told if said.verb == "complete" and _may_be_accepted(said)]
    if not any((said.mark, said.token, said.executor_id) == (mark, last.token, last.executor_id) for said in possible):
        yield Fault.WRONG_RESULT, f"{job.id}: its result {mark!r} is not what {last.executor_id} reported"
    if any((said.token, said.mark) != (last.token, mark) for said in accepted):
        yield Fault.WRONG_RESULT, f"{job.id}: the result of another attempt was accepted, too"


def _of_cancels(ledger: RecurringLedger, rules: Punctuality) -> _Found:
    canceled = {job.id: job.ended_at for job in ledger.jobs if job.status == "CANCELED" and job.ended_at}
    for one in ledger.withdrawn:
        if one.accepted_at is None:
            continue
        if one.job_id not in canceled:
            yield Fault.RAN_ON, f"{one.job_id}: DELETE was answered 200, and it is not CANCELED"
        else:
            canceled[one.job_id] = one.accepted_at
    effects = [
        *((one.job_id, one.at, "a request arrived") for one in ledger.arrivals),
        *((one.job_id, one.at, "its command ran") for one in ledger.signs),
        *(
            (said.job_id, said.at, f"{said.verb} was accepted")
            for said in ledger.told
            if said.status == _ACCEPTED and not said.is_canceled
        ),
    ]
    for job_id, at, what in effects:
        if job_id in canceled and (late := rules.counted(canceled[job_id], at)) > rules.cancel_seconds:
            yield Fault.RAN_ON, f"{job_id}: {what} {late:.3f} s after its cancel"


def _completed(ledger: RecurringLedger, tables: Mapping[str, Timetable], kind: str) -> list[MadeJob]:
    ids = {table.schedule_id for table in tables.values() if table.kind == kind}
    return [job for job in ledger.jobs if job.status == "COMPLETED" and job.schedule_id in ids]


def _may_be_accepted(said: Told) -> bool:
    """An accepted report may have had no answer, or the 503 of a connection that was lost at its commit."""
    return said.status is None or said.status == _ACCEPTED or said.status >= 500


def _begun(signs: Sequence[Sign]) -> int:
    return sum(one.number == 0 for one in signs)


def _ending(job: MadeJob) -> str:
    return f"{job.status}({job.error_code})" if job.error_code else job.status


def _clock(at: float) -> str:
    return f"{at % 86_400:.3f}"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"
