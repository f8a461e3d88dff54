"""The Prometheus metrics and their page: values read from rows (`gauges`) and values that processes counted (`meters`).

Every web process serves the same page, because the values are not its own: scrape any one process, and only one. A
metric without a line here is not shown; a test compares this list with the code.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from infra import meters

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "agent_jobs_"


@dataclass(frozen=True, slots=True)
class Known:
    about: str
    labels: tuple[str, ...] = ()


GAUGES: Mapping[str, Known] = {
    "lane_lag_seconds": Known("Waiting time of the job that has been ready for a worker the longest.", ("lane",)),
    "lane_ready_jobs": Known("Jobs that are ready for a worker; 10000 means at least.", ("lane",)),
    "leases": Known("Running turns; 10000 means at least."),
    "waiting_jobs": Known("Started jobs that wait without a worker; 10000 means at least.", ("waiting_for",)),
    "scheduled_overdue_jobs": Known("SCHEDULED jobs that are due; 10000 means at least."),
    "scheduled_overdue_seconds": Known("Lateness of the most overdue SCHEDULED job."),
    "workers_alive": Known("Worker processes that reported in the last 15 s."),
    "duty_age_seconds": Known("Seconds since a periodic duty last ran.", ("duty",)),
    "bells_waiting": Known("Doorbell messages in Celery that no worker has taken.", ("queue",)),
    "outbox_messages": Known("Messages that are not delivered; 10000 means at least.", ("status",)),
    "outbox_late_seconds": Known("Lateness of the most overdue delivery attempt or history check.", ("status",)),
    "outbox_age_seconds": Known("Age of the oldest undelivered message.", ("status",)),
    "inbox_waiting_events": Known("People's messages that are not routed to a job yet; 10000 means at least."),
    "inbox_late_seconds": Known("Lateness of the most overdue of these messages."),
    "database_up": Known("Whether the database answered; 0: every other gauge is missing."),
    "redis_up": Known("Whether Redis answered; 0: every counter and histogram is missing."),
}
COUNTERS: Mapping[str, Known] = {
    "turns": Known("Turns begun, that is, claims.", ("lane",)),
    "ends": Known("Jobs ended, with the error's code where they failed.", ("status", "code")),
    "retries": Known("Failed turns that will be retried."),
    "taken_back": Known("Jobs taken back from a lost worker or released by a stopping one.", ("reason",)),
    "model_tokens": Known(
        "Tokens that models reported; a model that is not in the price table is `provider:other`.", ("model", "kind")
    ),
    "model_cost": Known("Cost of these tokens, in the currency of the price table.", ("model",)),
    "budget_refusals": Known("Model calls refused because a cap leaves too little.", ("scope",)),
    "lease_losses": Known("Outcomes of turns dropped because the worker had lost the lease."),
    "denied_accesses": Known(
        "Requests for objects that the organisation does not own, whether they exist or not.", ("kind",)
    ),
    "duty_failures": Known("Errors of periodic duties; other duties continued.", ("duty",)),
    "rows_set_aside": Known("Rows that a duty skips for five minutes after an error.", ("duty",)),
    "duplicates_refused": Known(
        "POSTs with a known Idempotency-Key or unique_key, and events that a platform sent again.", ("kind",)
    ),
    "deliveries": Known("Delivery attempts by outcome.", ("platform", "outcome", "code")),
    "webhook_attempts": Known("Attempts to send an event to a webhook endpoint, by outcome.", ("outcome",)),
    "open_answers": Known("Ended event streams and waits, by reason.", ("kind", "end")),
    "platform_429s": Known("Requests that a platform answered with 429.", ("platform",)),
}
HISTOGRAMS: Mapping[str, Known] = {
    "start_latency_seconds": Known("Time from a job's due time to its first start.", ("lane",)),
    "turn_seconds": Known("Duration of turns, without their commit.", ("runner",)),
    "model_call_seconds": Known("Duration of language model calls.", ("model",)),
    "http_request_seconds": Known("Duration of HTTP requests by URL template.", ("method", "route", "status")),
}
Values = Iterable[tuple[str, float, tuple[tuple[str, str], ...]]]


def page(gauges: Values | None) -> bytes:
    """The whole page: without gauges if the database is down, without counters if Redis is down."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Everything(gauges, meters.totals()))
    return generate_latest(registry)


class _Everything(Collector):
    def __init__(self, gauges: Values | None, totals: Mapping[meters.Series, float] | None) -> None:
        self._gauges, self._totals = gauges, totals

    def collect(self) -> Iterator[Metric]:
        ups = [("database_up", self._gauges is not None, ()), ("redis_up", self._totals is not None, ())]
        values: dict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
        for name, value, labels in [*ups, *(self._gauges or ())]:
            values[name].append((dict(labels), float(value)))
        for name, known in GAUGES.items():
            gauge = GaugeMetricFamily(PREFIX + name, known.about, labels=known.labels)
            for named, value in values[name]:
                gauge.add_metric([named[label] for label in known.labels], value)
            yield gauge
        if self._totals is not None:
            yield from _counters(self._totals)
            yield from _histograms(self._totals)


def _counters(totals: Mapping[meters.Series, float]) -> Iterator[Metric]:
    for name, known in COUNTERS.items():
        counter = CounterMetricFamily(PREFIX + name, known.about, labels=known.labels)
        for labels, value in _of(totals, name):
            counter.add_metric([labels.get(label, "") for label in known.labels], value)
        if not known.labels and not counter.samples:
            counter.add_metric([], 0)  # a rate of a zero counter exists, of a missing one it does not
        yield counter


def _histograms(totals: Mapping[meters.Series, float]) -> Iterator[Metric]:
    for name, known in HISTOGRAMS.items():
        histogram = HistogramMetricFamily(PREFIX + name, known.about, labels=known.labels)
        sums = {tuple(sorted(labels.items())): value for labels, value in _of(totals, f"{name}_sum")}
        counts: dict[tuple[tuple[str, str], ...], dict[str, float]] = defaultdict(dict)
        for labels, value in _of(totals, f"{name}_bucket"):
            bound = labels.pop("le")
            counts[tuple(sorted(labels.items()))][bound] = value
        for series, buckets in counts.items():
            labels, total, cumulated = dict(series), 0.0, []
            for bound in meters.BOUNDS:
                total += buckets.get(bound, 0.0)
                cumulated.append((bound, total))
            histogram.add_metric([labels.get(label, "") for label in known.labels], cumulated, sums.get(series, 0.0))
        yield histogram


def _of(totals: Mapping[meters.Series, float], name: str) -> Iterator[tuple[dict[str, str], float]]:
    for (counted, labels), value in sorted(totals.items()):
        if counted == name:
            yield dict(labels), value
