"""The page of metrics: who may read it, and that it tells what happened, in numbers and in nobody's name."""

import os
import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from prometheus_client.parser import text_string_to_metric_families

from agent_jobs import prometheus_page
from agent_jobs.duties import recovery
from agent_jobs.models import DutyRun, WorkerProcess
from agent_jobs.reads import gauges
from agent_jobs.states import JobStatus
from agent_jobs.worker.loop import Worker
from channels_integration.models import Channel, InboundEvent, OutboundMessage
from infra import meters, redis
from tests import factories, rows
from tests.conversations import QuietKeeper

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parents[2]
BEARER = {"Authorization": "Bearer s3cret"}


@pytest.fixture(autouse=True)
def _fresh(settings) -> None:
    settings.METRICS_TOKEN = "s3cret"
    meters.flush()
    with redis.background.client() as client:
        client.delete(meters.KEY)
    gauges.forget()


def read(client: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    response = client.get("/metrics", headers=BEARER)
    assert response.status_code == 200
    families = text_string_to_metric_families(response.content.decode())
    return {
        (sample.name.removeprefix("agent_jobs_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def value(page: dict[Any, float], name: str, **labels: str) -> float:
    return page.get((name, tuple(sorted(labels.items()))), 0.0)


class TestAccess:
    def test_without_a_setting_there_is_no_such_page(self, client, settings) -> None:
        settings.METRICS_TOKEN = ""
        response = client.get("/metrics")
        assert (response.status_code, response.json()["code"]) == (404, "not_found")

    @pytest.mark.parametrize(
        ("header", "status"),
        [(None, 401), ("Bearer wrong", 401), ("Bearer s3cret", 200), ("bearer s3cret", 200), ("Basic s3cret", 401)],
    )
    def test_the_token_of_the_setting_opens_it(self, client, header, status) -> None:
        response = client.get("/metrics", headers={"Authorization": header} if header else {})
        assert response.status_code == status
        assert (status == 401) == ("WWW-Authenticate" in response)

    def test_an_app_token_does_not_open_it(self) -> None:
        assert factories.api().get("/metrics").status_code == 401

    def test_it_can_only_be_read(self, client) -> None:
        assert client.post("/metrics").status_code == 405


class TestRows:
    def test_lag_and_number_of_what_is_ready_by_lane(self, client) -> None:
        now = datetime.now(UTC)
        rows.job(queue_at=now - timedelta(seconds=30))
        rows.job(org_id="rival", queue_at=now - timedelta(seconds=70))
        rows.job(lane="agents", queue_at=now - timedelta(seconds=5))
        page = read(client)
        assert 70 <= value(page, "lane_lag_seconds", lane="messages") < 100
        assert 5 <= value(page, "lane_lag_seconds", lane="agents") < 35
        assert value(page, "lane_ready_jobs", lane="messages") == 2

    def test_a_head_start_is_no_lag(self, client) -> None:
        from agent_jobs.lifecycle.queue_order import PRIORITY_STEP

        rows.job(priority=7, queue_at=datetime.now(UTC) - 2 * PRIORITY_STEP - timedelta(seconds=3))
        assert 3 <= value(read(client), "lane_lag_seconds", lane="messages") < 33

    def test_an_idle_service_lags_by_nothing(self, client) -> None:
        page = read(client)
        assert value(page, "lane_lag_seconds", lane="agents") == 0
        assert value(page, "database_up") == value(page, "redis_up") == 1

    def test_leases_waits_and_what_is_overdue(self, client) -> None:
        now = datetime.now(UTC)
        rows.job(JobStatus.RUNNING)
        for kind in ("reply", "reply", "delivery"):
            rows.job(JobStatus.RUNNING, lease_until=None, waiting_for=kind, deadline_at=now + timedelta(hours=1))
        rows.job(JobStatus.SCHEDULED, scheduled_at=now - timedelta(seconds=9))
        rows.job(JobStatus.SCHEDULED)
        page = read(client)
        assert value(page, "leases") == 1
        assert value(page, "waiting_jobs", waiting_for="reply") == 2
        assert value(page, "waiting_jobs", waiting_for="delivery") == 1
        assert value(page, "scheduled_overdue_jobs") == 1
        assert 9 <= value(page, "scheduled_overdue_seconds") < 39

    def test_workers_and_duties(self, client) -> None:
        now = datetime.now(UTC)
        WorkerProcess.objects.create(name="alive")
        WorkerProcess.objects.create(name="silent", seen_at=now - timedelta(minutes=1))
        WorkerProcess.objects.create(name="lost", lost_at=now)
        DutyRun.objects.create(duty="promote", done_at=now - timedelta(seconds=40))
        page = read(client)
        assert value(page, "workers_alive") == 1
        assert 40 <= value(page, "duty_age_seconds", duty="promote") < 70

    def test_outbox_and_inbox(self, client) -> None:
        past = datetime.now(UTC) - timedelta(seconds=20)
        common = {"org_id": "acme", "platform": "web", "code": "lobby", "text": "x", "lane": "l"}
        OutboundMessage.objects.create(**common, due_at=past)
        OutboundMessage.objects.create(**common, status="unknown", due_at=datetime.now(UTC) + timedelta(hours=1))
        InboundEvent.objects.create(
            org_id="acme", platform="web", event_id="1", code="lobby", text="x", sent_at=past, lane="l", due_at=past
        )
        page = read(client)
        assert value(page, "outbox_messages", status="pending") == 1
        assert 20 <= value(page, "outbox_late_seconds", status="pending") < 25
        assert (
            value(page, "outbox_messages", status="unknown"),
            value(page, "outbox_late_seconds", status="unknown"),
        ) == (
            1,
            0,
        )
        assert value(page, "inbox_waiting_events") == 1
        assert 20 <= value(page, "inbox_late_seconds") < 25

    def test_many_who_ask_cost_the_database_once(self, client, django_assert_num_queries) -> None:
        read(client)
        with django_assert_num_queries(0):
            read(client)

    def test_without_the_database_the_page_says_so(self, client, monkeypatch) -> None:
        def fail() -> Any:
            raise OperationalError("gone")

        monkeypatch.setattr(gauges, "_of_jobs", fail)
        page = read(client)
        assert value(page, "database_up") == 0
        assert not [name for name, _ in page if name == "lane_lag_seconds"]


@pytest.mark.django_db(transaction=True)
class TestCounts:
    def test_a_job_from_its_post_to_its_end(self, client) -> None:
        Channel.objects.create(org_id="acme", platform="null", code="nowhere")
        rows.job_type()
        acme = factories.api()
        target = {"org_id": "acme", "platform": "null", "code": "nowhere"}
        for _ in range(2):
            posted = acme.post(
                "/services/agent-jobs", factories.job_request(target_channel=target), idempotency_key="k"
            )
            assert posted.status_code == 201
        Worker(QuietKeeper()).serve("messages")
        page = read(client)
        assert value(page, "turns_total", lane="messages") == 1
        assert value(page, "ends_total", status="COMPLETED", code="") == 1
        assert value(page, "duplicates_refused_total", kind="key_repeated") == 1
        assert value(page, "start_latency_seconds_count", lane="messages") == 1
        assert 0 < value(page, "start_latency_seconds_sum", lane="messages") < 10
        assert value(page, "start_latency_seconds_bucket", lane="messages", le="30") == 1
        assert value(page, "turn_seconds_count", runner="message") == 1
        posts = {"method": "POST", "route": "/services/agent-jobs", "status": "201"}
        assert value(page, "http_request_seconds_count", **posts) == 2

    def test_a_label_without_an_end_fills_nothing(self, client, monkeypatch) -> None:
        monkeypatch.setattr(meters, "_counters", meters._Counters())
        monkeypatch.setattr(meters, "_MOST_SERIES", 5)
        for number in range(20):
            meters.add("platform_429s", platform=f"p{number}")
            meters.flush()
        meters.add("retries")

        page = read(client)
        assert len([name for name, _ in page if name == "platform_429s_total"]) == 5
        assert value(page, "retries_total") == 1

    def test_a_cancel_and_a_lost_worker(self, client) -> None:
        rows.job(JobStatus.RUNNING, lease_until=datetime.now(UTC) - timedelta(seconds=1))
        rows.job(JobStatus.RUNNING, lease_until=datetime.now(UTC) - timedelta(seconds=1), crash_count=2)
        given_back = rows.job(JobStatus.RUNNING, lease_token=4)
        recovery.take_back_lost()
        recovery.give_back({given_back.pk: 4})
        factories.api().delete(f"/services/agent-jobs/{given_back.pk}")
        page = read(client)
        assert value(page, "taken_back_total", reason="lost") == 2
        assert value(page, "taken_back_total", reason="stopped") == 1
        assert value(page, "ends_total", status="CANCELED", code="") == 1
        assert value(page, "ends_total", status="FAILED", code="worker_lost") == 1

    def test_what_is_undone_is_not_counted(self, client) -> None:
        from django.db import transaction

        from agent_jobs import lifecycle
        from agent_jobs.legal_moves import Event

        job = rows.job()
        with transaction.atomic():
            lifecycle.move_one(Event.CANCEL, job, actor=rows.TESTER)
            transaction.set_rollback(True)
        assert value(read(client), "ends_total", status="CANCELED", code="") == 0

    def test_addresses_are_counted_by_their_template_and_name_nobody(self, client) -> None:
        job = rows.job(org_id="canary-org", channel_code="canary-channel", job_type_key="canary-type")
        canary = factories.api("canary-org")
        canary.get(f"/services/agent-jobs/{job.pk}")
        canary.get("/services/organizations/canary-org/agent-jobs-type/canary-type")
        canary.get("/canary-nowhere?canary=1")
        canary.send("CANARY", "/services/agent-jobs")
        page = client.get("/metrics", headers=BEARER).content.decode()
        assert 'route="/services/agent-jobs/<str:job_id>",status="200"' in page
        assert 'route="unknown",status="404"' in page
        assert "canary" not in page.lower()
        assert str(job.pk) not in page


class TestTheTally:
    def test_it_adds_up_over_processes(self) -> None:
        for _ in range(2):
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                meters.add("turns", lane="agents")
                os.write(writing, b"1" if meters.flush() else b"0")
                os._exit(0)
            assert os.read(reading, 1) == b"1"
            os.waitpid(child, 0)
        meters.add("turns", 3, lane="agents")
        totals = meters.totals()
        assert totals is not None
        assert totals["turns", (("lane", "agents"),)] == 5

    def test_it_keeps_what_redis_did_not_take(self, settings) -> None:
        real = settings.REDIS_URL
        settings.REDIS_URL = "redis://127.0.0.1:1/0"
        meters.add("retries")
        assert meters.flush() is False
        assert meters.totals() is None
        settings.REDIS_URL = real
        totals = meters.totals()
        assert totals is not None
        assert totals["retries", ()] == 1

    def test_whole_seconds_are_added_to_fractions(self) -> None:
        for seconds in (0.25, 2.0, 0.0):
            meters.observe("turn_seconds", seconds, runner="message")
            assert meters.flush()
        totals = meters.totals()
        assert totals is not None
        assert totals["turn_seconds_sum", (("runner", "message"),)] == 2.25

    def test_threads_lose_nothing(self) -> None:
        def count() -> None:
            for _ in range(2_000):
                meters.add("retries")

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            meters.flush()
        for thread in threads:
            thread.join()
        totals = meters.totals()
        assert totals is not None
        assert totals["retries", ()] == 8_000

    def test_without_redis_the_page_says_so(self, client, settings) -> None:
        settings.REDIS_URL = "redis://127.0.0.1:1/0"
        page = read(client)
        assert (value(page, "redis_up"), value(page, "database_up")) == (0, 1)


def test_everything_that_is_counted_has_a_line_on_the_page() -> None:
    counted = {"add": set(), "observe": set()}
    for package in ("agent_jobs", "channels_integration", "infra", "config"):
        for path in (ROOT / package).rglob("*.py"):
            for how, name in re.findall(r'meters\.(add|observe)\(\s*"(\w+)"', path.read_text()):
                counted[how].add(name)
    assert counted["add"] == set(prometheus_page.COUNTERS)
    assert counted["observe"] == set(prometheus_page.HISTOGRAMS)


def test_everything_that_is_read_has_a_line_on_the_page(client) -> None:
    DutyRun.objects.create(duty="promote")
    assert {gauge.name for gauge in gauges.read()} | {"database_up", "redis_up"} == set(prometheus_page.GAUGES)
