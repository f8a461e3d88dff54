"""Measures how late schedules fire: many at one second, and a steady stream of them.

The duty runs in this process, as a worker's thread runs it, on a database of its own. Lateness is the time from a
firing to the commit of its job. The burst is compared with a bare INSERT of the same rows of jobs and firings in the
same run, because a busy machine delays both alike.

On two cores a firing takes about 260 microseconds of CPU (180 in Python, 80 in PostgreSQL) and a bare INSERT of its two
rows about 90. So 10,000 firings need about 3 seconds of a quiet machine, and the goal of a p99 under 1 second for the
burst is not reached; with five other processes at work the last one came after 7 seconds.

    python -m tests.benchmarks.schedule_firing [--schedules 10000] [--per-minute 1000] [--seconds 20]
"""

import argparse
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.benchmarks.__main__ import prepare, servers


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--schedules", type=int, default=10_000, help="how many are due at one second")
    options.add_argument("--per-minute", type=int, default=1_000, help="how many fire a minute in steady state")
    options.add_argument("--seconds", type=float, default=20.0, help="how long the steady state is measured")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="aj-bench-", dir="/tmp") as folder, servers(Path(folder)):
        prepare()
        from agent_jobs.models import Org

        Org.objects.update(max_waiting_jobs=10_000_000)
        print(f"{'schedules':>28}{'p50 s':>9}{'p99 s':>9}{'max s':>9}")
        at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=8)
        _add(given.schedules, lambda number: at, every_seconds=86_400)
        burst = _late(at + timedelta(seconds=1), least=given.schedules)
        _show(f"{given.schedules:,} at one second", burst)
        print(f"{'a bare INSERT of their rows':>28}{'':18}{_bare_insert():9.3f}")
        _add(given.per_minute, lambda number: _spread(number, given.per_minute), every_seconds=60)
        _show(f"{given.per_minute:,} a minute", _late(datetime.now(UTC) + timedelta(seconds=given.seconds)))


def _add(count: int, next_at: Any, *, every_seconds: int) -> None:
    from agent_jobs.models import Schedule
    from agent_jobs.schedules import definition

    Schedule.objects.all().delete()  # with their firings
    job = {"job_type_id": "say", "target_channel": {"platform": "null", "code": "nowhere"}, "params": {"n": 1}}
    whole = definition.completed({"name": "bench", "every_seconds": every_seconds, "job": job})
    Schedule.objects.bulk_create(
        Schedule(
            org_id="bench",
            name="bench",
            job_type_key="say",
            runner="message",
            definition=whole,
            next_at=next_at(number),
            created_at=next_at(number),
        )
        for number in range(count)
    )


def _spread(number: int, count: int) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2 + 60 * number / count)


def _late(end: datetime, *, least: int = 0) -> list[float]:
    """Serve the duty until `end` and until `least` firings are made. Returns the seconds from each firing to the end of
    the transaction that made its job, sorted."""
    from agent_jobs.models import ScheduleFiring
    from agent_jobs.schedules import firing

    ends: list[datetime] = []
    fire_due = firing.fire_due

    def noting() -> int:
        fired = fire_due()
        ends.extend([datetime.now(UTC)] * fired)
        return fired

    firing.fire_due = noting  # type: ignore[assignment]
    limit = time.monotonic() + 120
    while time.monotonic() < limit and (datetime.now(UTC) < end or len(ends) < least):
        firing.serve_second()
    firing.fire_due = fire_due
    times = ScheduleFiring.objects.order_by("id").values_list("fire_at", flat=True)
    return sorted((end - at).total_seconds() for end, at in zip(ends, times, strict=True))


def _bare_insert() -> float:
    """Seconds to insert the jobs and firings that are there once more, in as many transactions."""
    from django.db import transaction

    from agent_jobs.models import Job, ScheduleFiring
    from agent_jobs.schedules import firing
    from infra import bulk_rows

    made, fired = list(Job.objects.all()), list(ScheduleFiring.objects.all())
    for job in made:
        job.pk = uuid4()
    for one in fired:
        one.pk, one.fire_at = None, one.fire_at + timedelta(seconds=1)
    begun_at = time.monotonic()
    for first in range(0, len(made), firing.BATCH):
        with transaction.atomic():
            bulk_rows.insert(made[first : first + firing.BATCH])
            bulk_rows.insert(fired[first : first + firing.BATCH])
    return time.monotonic() - begun_at


def _show(what: str, late: list[float]) -> None:
    found = [late[int(len(late) * share)] for share in (0.5, 0.99)] + [late[-1]]
    print(f"{what:>28}" + "".join(f"{one:9.3f}" for one in found))


if __name__ == "__main__":
    main()
