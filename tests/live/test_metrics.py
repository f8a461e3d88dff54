"""The page of metrics over the real processes: every web tells the same totals, whoever did the work."""

from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from config import embedded
from tests.live.processes import Service
from tests.waiting import wait_for

pytestmark = pytest.mark.live
JOBS = 30


def read(service: Service, port: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = service.text("/metrics", port=port, headers={"Authorization": "Bearer m3trics"})
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_two_webs_and_two_workers_tell_one_story(make_home: Callable[[], Path]) -> None:
    with Service(make_home(), AGENT_JOBS_METRICS_TOKEN="m3trics", AGENT_JOBS_WEB_PROCESSES="2") as service:
        service.web("web1")
        service.make_type("say", "message", "Number {{ n }}")
        service.worker("w1")
        service.worker("w2")
        service.beat()
        channel = {"platform": "web", "type": "channel", "code": "lobby"}
        jobs = [service.post_job("say", channel=channel, params={"n": number}) for number in range(JOBS)]
        first, service.port = service.port, embedded.free_port()
        service.web("web2")
        for job_id in jobs:
            service.wait_job(job_id, status="COMPLETED")

        def is_told(port: int) -> bool:
            page = read(service, port)
            ends = page.get(("agent_jobs_ends_total", (("code", ""), ("status", "COMPLETED"))), 0)
            sent = page.get(
                ("agent_jobs_deliveries_total", (("code", ""), ("outcome", "sent"), ("platform", "web"))), 0
            )
            starts = page.get(("agent_jobs_start_latency_seconds_count", (("lane", "messages"),)), 0)
            posts = page.get(
                (
                    "agent_jobs_http_request_seconds_count",
                    (("method", "POST"), ("route", "/services/agent-jobs"), ("status", "201")),
                ),
                0,
            )
            assert max(ends, sent, starts, posts) <= JOBS
            # One worker may do all the jobs before the other is there, and before a round of promotion is over.
            is_complete = page.get(("agent_jobs_workers_alive", ()), 0) == 2
            is_complete &= ("agent_jobs_duty_age_seconds", (("duty", "promote"),)) in page
            return bool(is_complete and ends == sent == starts == posts == JOBS)

        for port in (first, service.port):
            wait_for(lambda port=port: is_told(port), what="every process has told its counts")  # type: ignore[misc]
            page = read(service, port)
            assert page["agent_jobs_workers_alive", ()] == 2
            assert page["agent_jobs_duty_age_seconds", (("duty", "promote"),)] < 60
            assert page["agent_jobs_lane_ready_jobs", (("lane", "messages"),)] == 0
