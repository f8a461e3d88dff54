"""Counters and histograms of all processes, added up in Redis. `/metrics` of any web process shows the totals.

(prometheus_client would need a port or a shared folder for each process.)

Counting takes a dictionary and a lock. Once a second a thread adds the counts to one Redis hash, in one round trip. A
killed process loses its last second. An emptied Redis starts at zero, as Prometheus expects of counters. Counts are
kept while Redis does not answer. If the answer is lost, they may be added twice.

Labels are our own words (queues, codes, platforms), never an organisation's: operators read the page.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
from bisect import bisect_left
from collections import defaultdict
from typing import Any

from infra import redis, threads

log = logging.getLogger(__name__)
KEY = "agent-jobs:tally"
FLUSH_SECONDS = 1.0
# Upper bounds of the histograms, in seconds; longer times fall into an unbounded last bucket.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
BOUNDS = [f"{bound:g}" for bound in BUCKETS] + ["+Inf"]
# Against a label with unlimited values: a process stops counting new series of that name, and logs that once.
# HTTP requests have the most: buckets times methods, routes and statuses.
_MOST_SERIES = 5_000

Series = tuple[str, tuple[tuple[str, str], ...]]


class _Counters:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: defaultdict[Series, float] = defaultdict(float)
        self.known: defaultdict[str, set[Series]] = defaultdict(set)  # all series that it has ever counted, by name
        self.thread: threading.Thread | None = None
        self.full: set[str] = set()  # names with too many series


_counters = _Counters()


def add(name: str, amount: float = 1, **labels: str) -> None:
    """Add to a counter. Never raises, never waits."""
    _add({(name, tuple(sorted(labels.items()))): amount})


def observe(name: str, seconds: float, **labels: str) -> None:
    """Add to a histogram: the count per bucket, and the sum of seconds."""
    bucket = {**labels, "le": BOUNDS[bisect_left(BUCKETS, seconds)]}
    _add(
        {
            (f"{name}_bucket", tuple(sorted(bucket.items()))): 1,
            (f"{name}_sum", tuple(sorted(labels.items()))): max(seconds, 0.0),
        }
    )


def flush() -> bool:
    """Add the counts since the last flush to the totals. Returns False, and keeps them, if Redis did not take them."""
    counters = _counters
    with counters.lock:
        counts, counters.counts = counters.counts, defaultdict(float)
    if not counts:
        return True
    try:
        with redis.background.client() as client:
            pipeline = client.pipeline(transaction=False)
            for (name, labels), amount in counts.items():
                field = json.dumps([name, dict(labels)], separators=(",", ":"))
                pipeline.hincrbyfloat(KEY, field, amount)  # `hincrby` refuses a field that holds a fraction
            pipeline.execute()
    except redis.Unavailable as error:
        log.debug("could not add counts: %s", error)
        with counters.lock:
            for series, amount in counts.items():
                counters.counts[series] += amount
        return False
    return True


def totals() -> dict[Series, float] | None:
    """All totals, with this process's latest counts; None if Redis does not answer."""
    flush()
    try:
        with redis.background.client() as client:
            found: Any = client.hgetall(KEY)
    except redis.Unavailable:
        return None
    totals: dict[Series, float] = {}
    for field, amount in found.items():
        name, labels = json.loads(field)
        totals[name, tuple(sorted(labels.items()))] = float(amount)
    return totals


def _add(amounts: dict[Series, float]) -> None:
    counters = _counters
    with counters.lock:
        for series, amount in amounts.items():
            name = series[0]
            known = counters.known[name]
            if series not in known:
                if len(known) >= _MOST_SERIES:
                    if name not in counters.full:
                        log.error("too many label combinations of the metric %s: new ones are not counted", name)
                    counters.full.add(name)
                    continue
                known.add(series)
            counters.counts[series] += amount
        if counters.thread is None:
            counters.thread = threads.start_vital("meters", _flush_for_ever)


def _flush_for_ever() -> None:
    while not threading.Event().wait(FLUSH_SECONDS):
        flush()


def _begin_anew() -> None:
    """A fork does not inherit its parent's thread, and must not add its parent's counts."""
    global _counters
    _counters = _Counters()


os.register_at_fork(after_in_child=_begin_anew)
atexit.register(flush)
