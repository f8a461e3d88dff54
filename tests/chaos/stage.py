"""One run of an experiment: the rig, the load, the faults, the wait until all is quiet, and the report."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.chaos import records, recurring_load
from tests.chaos.checker import Report, Rules, Window, check
from tests.chaos.ledgers import Chain, Sent
from tests.chaos.load import Load
from tests.chaos.recurring_checker import Punctuality, RecurringReport, check_recurring
from tests.chaos.recurring_load import RECURRING_ORG, RecurringLoad
from tests.chaos.rig import Rig
from tests.waiting import PATIENCE, wait_for

_PROGRESS_SECONDS = 10.0
_LOOK_SECONDS = 0.25
# Sealing takes a second, and a beat that is alive.
_SEALED_SECONDS = PATIENCE
# What the end of a run has to wait for in any case: the last people's answers, a grace, a lease.
_CALM_SECONDS = 2.0


@dataclass
class Scene:
    """The processes and ledgers of an experiment. It ends when `pause` says False. `rules` may change while it runs.

    `sent` takes what an experiment's own clients sent, beside the load's. `outages` takes the times in which nobody
    could reach the database. `recurring` is the second load, if the experiment has one.
    """

    rig: Rig
    load: Load
    rng: random.Random
    seconds: float
    rules: Rules = field(default_factory=Rules)
    sent: list[Sent] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    outages: list[Window] = field(default_factory=list)
    recurring: RecurringLoad | None = None
    _over: threading.Event = field(default_factory=threading.Event)
    _began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.still_open = records.Looks(lambda: self.rig.database(connect_timeout=5))

    def pause(self, seconds: float) -> bool:
        """Wait; False when the time of the faults is over."""
        left = self._began + self.seconds - time.monotonic()
        return not self._over.wait(max(0.0, min(seconds, left))) and seconds < left

    def act(self, seconds: float) -> Scene:
        """A part of this scene, with a time and rules of its own; what is counted in it is counted here."""
        return dataclasses.replace(self, seconds=min(seconds, self.seconds - self.elapsed), _began=time.monotonic())

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._began

    def did(self, fault: str, times: int = 1) -> None:
        self.faults[fault] += times

    def breaks(self, promise: str) -> None:
        """For what an experiment sees itself and the ledgers do not tell."""
        self.broken.append(promise)

    def over(self) -> None:
        self._over.set()

    @property
    def unanswered(self) -> int:
        return self.load.unanswered + (self.recurring.unanswered if self.recurring else 0)

    @property
    def failures(self) -> list[BaseException]:
        """Errors of the harness itself."""
        return [*self.load.agenda.failures, *(self.recurring.failures if self.recurring else ())]


@dataclass(frozen=True)
class Experiment:
    """`inject` makes the faults until `scene.pause` says that time is over; it runs in a thread of its own.

    `make_load` and `rig` (keyword arguments of `Rig`) are for experiments that need another load or other processes.
    `quiet_seconds`: how long after the faults all must have come to its end. `verify` looks, when all is quiet, at what
    the ledgers do not tell. `missing` names what this machine lacks for the experiment, if anything. `recurring`: the
    options of the second load; without any, there is none. `latest_firing`: how late a firing may be, outages apart.
    """

    name: str
    title: str
    promises: str
    inject: Callable[[Scene], None]
    rules: Rules = field(default_factory=Rules)
    environment: Mapping[str, str] = field(default_factory=dict)
    rig: Mapping[str, Any] = field(default_factory=dict)
    make_load: Callable[..., Load] = Load
    load: Mapping[str, Any] = field(default_factory=dict)
    quiet_seconds: float = 120.0
    verify: Callable[[Scene], None] = lambda scene: None
    missing: Callable[[], str] = str
    recurring: Mapping[str, Any] | None = None
    latest_firing: float | None = None


@dataclass(frozen=True)
class Result:
    experiment: Experiment
    seed: int
    seconds: float
    faults: Mapping[str, int]
    report: Report
    quiet_after: float | None
    broken: tuple[str, ...]
    answers: Mapping[str, int]
    logs: Path | None
    recurring: RecurringReport | None = None
    load: float = 0.0

    @property
    def is_clean(self) -> bool:
        is_kept = self.report.is_clean and (self.recurring is None or self.recurring.is_clean)
        return is_kept and not self.broken and self.quiet_after is not None

    def __str__(self) -> str:
        quiet = "never" if self.quiet_after is None else f"after {self.quiet_after:.1f} s"
        lines = [
            f"{self.experiment.name} {self.experiment.title}",
            f"seed {self.seed} · {self.seconds:g} s · quiet {quiet} · promises {self.experiment.promises}",
            f"load of the machine {self.load:.1f} on {os.cpu_count()} cores",
            f"faults {_listed(self.faults)}",
            f"answers {_listed(self.answers)}",
            str(self.report),
            *([str(self.recurring)] if self.recurring else ()),
            *(f"  {promise}" for promise in self.broken),
            "clean" if self.is_clean else f"BROKEN: logs and ledgers are in {self.logs}",
        ]
        return "\n".join(lines)


def run(
    experiment: Experiment,
    *,
    seconds: float,
    seed: int,
    rate: float = 15.0,
    keeps: bool = False,
    say: Callable[[str], None] = print,
) -> Result:
    """Raises what the harness itself stumbles over; a promise broken is in the result."""
    rng = random.Random(f"{experiment.name}-{seed}")
    home = Path(tempfile.mkdtemp(prefix="aj-chaos-", dir="/tmp"))
    home.chmod(0o711)  # as root, PostgreSQL runs as another account and has to pass through
    is_kept = True
    try:
        environment = dict(experiment.environment)
        if experiment.recurring is not None:
            environment |= recurring_load.environment()
        with Rig(home, seed=seed, environment=environment, **experiment.rig) as rig:
            settings = {"rate": rate, "delays_until": seconds - 60, **experiment.load}
            load = experiment.make_load(rig, rng=random.Random(rng.random()), **settings)
            load.prepare()
            with _second_load(experiment, rig, rng, seconds) as recurring:
                scene = Scene(rig, load, rng, seconds, rules=experiment.rules, recurring=recurring)
                try:
                    quiet_after = _play(experiment, scene, say)
                    result = _judge(experiment, scene, seed, quiet_after, home)
                finally:
                    load.close()
        is_kept = keeps or not result.is_clean
        return result
    finally:
        if not is_kept:
            shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _second_load(
    experiment: Experiment, rig: Rig, rng: random.Random, seconds: float
) -> Iterator[RecurringLoad | None]:
    if experiment.recurring is None:
        yield None
        return
    second = RecurringLoad(rig, rng=random.Random(rng.random()), seconds=seconds, **experiment.recurring)
    try:
        second.prepare()
        yield second
    finally:
        second.close()


def _play(experiment: Experiment, scene: Scene, say: Callable[[str], None]) -> float | None:
    """Returns the time to quiet, None if it never came."""
    failures: list[BaseException] = []

    def inject() -> None:
        try:
            experiment.inject(scene)
        except BaseException as error:
            failures.append(error)
            scene.over()

    scene.load.start()
    if scene.recurring:
        scene.recurring.start()
    injector = threading.Thread(target=inject, name=experiment.name, daemon=True)
    injector.start()
    while scene.pause(_PROGRESS_SECONDS):
        say(_progress(experiment, scene))
    scene.load.stop()
    if scene.recurring:
        scene.recurring.stop()
    injector.join(PATIENCE)
    if injector.is_alive():
        raise AssertionError(f"{experiment.name} does not stop making faults")
    scene.rig.mend()
    over_at = time.monotonic()
    say(f"{_progress(experiment, scene)} · the faults are over")
    quiet_after = _wait_quiet(experiment, scene, over_at, say)
    for error in (*failures, *scene.failures):
        raise error
    experiment.verify(scene)
    return quiet_after


def _wait_quiet(experiment: Experiment, scene: Scene, over_at: float, say: Callable[[str], None]) -> float | None:
    look = threading.Event()
    told_at = quiet_at = 0.0
    while (now := time.monotonic()) < over_at + experiment.quiet_seconds:
        open_rows = scene.still_open()
        if open_rows is not None and open_rows.is_quiet and not scene.unanswered:
            quiet_at = quiet_at or now
            if now - quiet_at >= _CALM_SECONDS:
                return quiet_at - over_at
        else:
            quiet_at = 0.0
        if now - told_at > _PROGRESS_SECONDS:
            told_at = now
            say(f"  {now - over_at:.0f} s after the faults: unanswered {scene.unanswered} · {open_rows}")
        look.wait(_LOOK_SECONDS)
    return None


def _judge(experiment: Experiment, scene: Scene, seed: int, quiet_after: float | None, home: Path) -> Result:
    chains = _chains(scene)
    posted = records.posted(scene.rig.slack.posts)
    with scene.rig.database() as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ  # one moment, also where it is not quiet
        with connection.transaction():
            recorded = records.recorded(connection)
    sent = [*scene.load.ledger(), *scene.sent]
    asked = [row for row in recorded if row.org != RECURRING_ORG]
    unasked = [row for row in recorded if row.org == RECURRING_ORG]
    report = check(sent, posted, asked, chains, rules=scene.rules, unasked=unasked)
    broken = [*scene.broken, *scene.load.broken(), *(f"refused: {answer}" for answer in scene.load.refused[:5])]
    for name, ledger in (("sent", sent), ("posted", posted), ("recorded", recorded), ("chains", chains)):
        lines = (json.dumps(dataclasses.asdict(entry)) for entry in ledger)  # type: ignore[call-overload]
        (home / f"{name}.jsonl").write_text("\n".join(lines))
    second = _judge_recurring(experiment, scene, home)
    return Result(
        experiment=experiment,
        seed=seed,
        seconds=scene.seconds,
        faults=dict(scene.faults),
        report=report,
        quiet_after=quiet_after,
        broken=tuple(broken),
        answers=dict(scene.load.answers),
        logs=home,
        recurring=second,
        load=max(os.getloadavg()),
    )


def _judge_recurring(experiment: Experiment, scene: Scene, home: Path) -> RecurringReport | None:
    if scene.recurring is None:
        return None
    ledger = scene.recurring.ledger()
    (home / "recurring.json").write_text(json.dumps(dataclasses.asdict(ledger), indent=1))
    rules = Punctuality(
        cancel_seconds=scene.rules.cancel_seconds,
        latest=experiment.latest_firing,
        punctual=scene.rules.punctual,
        outages=tuple(scene.outages),
    )
    scene.load.answers.update(
        {f"executor's {what}": times for what, times in scene.recurring.executors.answers.items()}
    )
    return check_recurring(ledger, rules)


def _chains(scene: Scene) -> list[Chain]:
    """Every organisation's audit, computed anew by the command that an operator has, when sealing has caught up."""
    with scene.rig.database() as connection:
        with contextlib.suppress(AssertionError):  # what is not sealed in this time is in the chain's figures
            wait_for(lambda: not records.unsealed(connection), seconds=_SEALED_SECONDS, what="all is sealed")
        return records.chains(scene.rig.manage("verify_audit", may_fail=True), records.unsealed(connection))


def _progress(experiment: Experiment, scene: Scene) -> str:
    return (
        f"{experiment.name} {scene.elapsed:4.0f} s · jobs {scene.load.posted} · unanswered {scene.unanswered}"
        f" · Slack {len(scene.rig.slack.posts)} · {scene.still_open()} · faults {_listed(scene.faults)}"
    )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"
