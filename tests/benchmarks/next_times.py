"""Measures how many next times of schedules one process computes in a second. Needs no database.

`walked` are firings of one walk, as in a preview; `asked` are single questions from a new moment each, as the duty asks
them; `parsed` are questions that parse an expression not seen before.

    python -m tests.benchmarks.next_times [--seconds 0.5]
"""

import argparse
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count

from agent_jobs import recurrence

EXPRESSIONS = ("* * * * *", "*/15 * * * *", "30 2 * * *", "0 9 * * 1-5", "0 0 L * *", "0 0 29 2 *", "@every 90s")
ZONE = "Europe/Berlin"
START = datetime(2026, 11, 27, tzinfo=UTC)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=0.5, help="how long to measure each")
    given = options.parse_args()
    print(f"{'expression':20}{'walked/s':>12}{'asked/s':>12}")
    for expression in EXPRESSIONS:
        walked, asked = next_times(expression, seconds=given.seconds)
        print(f"{expression:20}{walked:12,.0f}{asked:12,.0f}")
    print(f"{'parsed/s':20}{parsed(seconds=given.seconds):12,.0f}")


def next_times(expression: str, *, seconds: float) -> tuple[float, float]:
    """Walked and asked next times for each second of CPU time."""
    rule = recurrence.parse(expression, time_zone=ZONE, anchor=START)

    def walk() -> Iterator[object]:
        while True:
            yield from rule.after(START, limit=100)

    walker = walk()
    moments = (START + timedelta(minutes=7 * number) for number in count())
    return rate(lambda: next(walker), seconds=seconds), rate(lambda: rule.next_after(next(moments)), seconds=seconds)


def parsed(*, seconds: float) -> float:
    """First questions to new expressions for each second of CPU time."""
    texts = (f"{n % 60} {n // 60 % 24} {n // 1_440 % 28 + 1} {n // 40_320 % 12 + 1} *" for n in count())
    return rate(lambda: recurrence.parse(next(texts), time_zone=ZONE).next_after(START), seconds=seconds)


def rate(work: Callable[[], object], *, seconds: float) -> float:
    began, done = time.process_time(), 0
    while (passed := time.process_time() - began) < seconds:
        for _ in range(20):
            work()
        done += 20
    return done / passed


if __name__ == "__main__":
    main()
