"""Webhook jobs, from the POST that makes them to the report of their attempts, against real servers on loopback."""

import json
import threading
import time
from typing import Any

import pytest
import standardwebhooks
from django.db import connection

from agent_jobs import lifecycle
from agent_jobs.models import Activity, AuditEntry, Job, Task
from agent_jobs.states import JobStatus
from agent_jobs.turns import calls_in_flight
from agent_jobs.worker.loop import Worker
from tests import factories, rows
from tests.conversations import QuietKeeper
from tests.fakes.webhook import FakeReceiver, Reply
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.django_db
SECRET = "s3cret-of-acme-42"


@pytest.fixture
def acme(db: None) -> factories.Api:
    rows.job_type(key="ping", runner="webhook", default_config={})
    return factories.api("acme", "SERVICES:WRITE")


def post(acme: factories.Api, work: dict[str, Any], **fields: Any) -> Any:
    return acme.post("/services/agent-jobs", {"job_type_id": "ping", "work": work, **fields})


def made(acme: factories.Api, work: dict[str, Any], **fields: Any) -> Job:
    answer = post(acme, work, **fields)
    assert answer.status_code == 201, answer.content
    return Job.objects.get(pk=answer.json()["data"]["id"])


def ran(acme: factories.Api, work: dict[str, Any], **fields: Any) -> tuple[Job, dict[str, Any]]:
    """The job after one attempt, and that attempt's report; {} if nothing was sent."""
    job = made(acme, work, **fields)
    assert Worker(QuietKeeper()).serve("webhooks") == 1
    job.refresh_from_db()
    return job, Task.objects.get(job=job).report or {}


class TestTheRequest:
    def test_it_is_sent_as_the_work_says_with_the_params_filled_in(
        self, acme: factories.Api, receiver: FakeReceiver
    ) -> None:
        work = {
            "url": f"{receiver.address}/{{{{ name | urlencode }}}}?n={{{{ number }}}}",
            "method": "PUT",
            "headers": {"X-Team": "team {{ name }}"},
            "body": {"greeting": "Hello {{ name }}", "list": ["{{ number }}", 7, None], "as it is": True},
        }
        job, report = ran(acme, work, params={"name": "Ann B", "number": 3})

        (received,) = receiver.received
        assert (received.method, received.path) == ("PUT", "/in/Ann%20B?n=3")
        assert json.loads(received.body) == {"greeting": "Hello Ann B", "list": ["3", 7, None], "as it is": True}
        assert received.headers["content-type"] == "application/json"
        assert received.headers["x-team"] == "team Ann B"
        assert (job.status, job.result_data) == (JobStatus.COMPLETED, {"status_code": 200, "body": "ok"})
        assert str(job.result).startswith("200 OK in 0.")
        assert report["request"]["url"] == f"{receiver.address}/Ann%20B?n=3"
        assert json.loads(report["request"]["body"])["greeting"] == "Hello Ann B"
        assert report["response"]["status_code"] == 200
        assert report["response"]["body"] == "ok"
        assert report["error"] is None
        assert report["duration_ms"] >= 0

    def test_all_of_a_long_body_is_recorded(self, acme: factories.Api, receiver: FakeReceiver) -> None:
        body = "long " * 40_000
        _, report = ran(acme, {"url": receiver.address, "body": body})
        assert (receiver.received[0].body.decode(), report["request"]["body"]) == (body, body)

    @pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE", "HEAD"])
    def test_every_method_is_sent_without_a_body(
        self, acme: factories.Api, receiver: FakeReceiver, method: str
    ) -> None:
        job, _ = ran(acme, {"url": receiver.address, "method": method})
        assert [received.method for received in receiver.received] == [method]
        assert (receiver.received[0].body, job.status) == (b"", JobStatus.COMPLETED)

    def test_it_names_job_task_time_and_attempt(self, acme: factories.Api, receiver: FakeReceiver) -> None:
        job, _ = ran(acme, {"url": receiver.address})
        headers = receiver.received[0].headers
        assert headers["x-agent-jobs-job-id"] == str(job.pk)
        assert headers["x-agent-jobs-execution-id"] == str(Task.objects.get(job=job).pk)
        assert headers["x-agent-jobs-scheduled-time"] == job.scheduled_at.strftime("%Y-%m-%dT%H:%M:%SZ")
        assert headers["x-agent-jobs-attempt"] == "1"

    def test_under_a_prefix_of_its_own_the_schedule_is_the_job(
        self, acme: factories.Api, receiver: FakeReceiver
    ) -> None:
        job = made(acme, {"url": receiver.address, "header_prefix": "X-Chronos"})
        schedule, at = "11111111-2222-4333-8444-555555555555", "2026-11-01T10:00:00+00:00"
        Job.objects.filter(pk=job.pk).update(schedule_id=schedule, fire_at=at, failed_attempts=2)
        Worker(QuietKeeper()).serve("webhooks")
        headers = receiver.received[0].headers
        assert headers["x-chronos-job-id"] == schedule
        assert headers["x-chronos-execution-id"] == str(job.pk)
        assert headers["x-chronos-scheduled-time"] == "2026-11-01T10:00:00Z"
        assert headers["x-chronos-attempt"] == "3"

    def test_a_standard_webhooks_signature_can_be_verified(self, acme: factories.Api, receiver: FakeReceiver) -> None:
        secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
        ran(acme, {"url": receiver.address, "body": {"name": "é"}, "sign_with": secret})
        (received,) = receiver.received
        assert standardwebhooks.Webhook(secret).verify(received.body, received.headers) == {"name": "é"}

    @pytest.mark.parametrize(
        ("auth", "name", "value"),
        [
            ({"type": "basic", "username": "jane", "password": SECRET}, "authorization", "Basic "),
            ({"type": "bearer", "token": SECRET}, "authorization", f"Bearer {SECRET}"),
            ({"type": "api_key", "key": SECRET}, "x-api-key", SECRET),
            ({"type": "api_key", "key": SECRET, "header": "X-Place"}, "x-place", SECRET),
        ],
    )
    def test_credentials_are_sent_and_shown_nowhere(
        self,
        acme: factories.Api,
        receiver: FakeReceiver,
        caplog: pytest.LogCaptureFixture,
        auth: dict[str, str],
        name: str,
        value: str,
    ) -> None:
        receiver.replies = [Reply(500, body=f"you sent {SECRET}".encode(), headers={"X-Echo": SECRET})]
        work = {"url": receiver.address, "auth": auth, "headers": {"Cookie": f"id={SECRET}"}, "sign_with": SECRET}
        job, report = ran(acme, work)
        sent = receiver.received[0].headers
        assert sent[name].startswith(value)
        assert sent["cookie"] == f"id={SECRET}"
        shown = [
            acme.get(f"/services/agent-jobs/{job.pk}?include=activities").content.decode(),
            json.dumps(report),
            json.dumps(list(Activity.objects.values_list("note", "input", "output")), default=str),
            json.dumps(list(AuditEntry.objects.values_list("before", "after")), default=str),
            caplog.text,
            str(Job.objects.filter(pk=job.pk).values().get()),
        ]
        assert not [text for text in shown if SECRET in text]
        assert report["response"]["body"] == "you sent ******"
        assert job.work["auth"][{"basic": "password", "bearer": "token"}.get(auth["type"], "key")] == "******"

    def test_a_replay_sends_the_same_request(self, acme: factories.Api, receiver: FakeReceiver) -> None:
        work = {"url": receiver.address, "body": "{{ name }}", "auth": {"type": "bearer", "token": SECRET}}
        job, _ = ran(acme, work, params={"name": "Ann"})
        answer = acme.post(f"/services/agent-jobs/{job.pk}/replay")
        assert answer.status_code == 201
        Worker(QuietKeeper()).serve("webhooks")
        first, second = receiver.received
        assert (first.method, first.path, first.body) == (second.method, second.path, second.body)
        assert first.headers["authorization"] == second.headers["authorization"]


class TestTheAnswer:
    @pytest.mark.parametrize(
        ("reply", "work", "status", "code"),
        [
            (Reply(204, body=b""), {}, JobStatus.COMPLETED, ""),
            (Reply(404), {}, JobStatus.FAILED, "http_404"),
            (Reply(404), {"success_codes": [404]}, JobStatus.COMPLETED, ""),
            (Reply(202), {"success_codes": [200]}, JobStatus.FAILED, "http_202"),
            (Reply(302, headers={"Location": "http://127.0.0.1:9/"}), {}, JobStatus.FAILED, "http_302"),
            (Reply(503), {}, JobStatus.FAILED, "http_503"),
            (Reply(is_dropped=True), {}, JobStatus.FAILED, "no_answer"),
        ],
    )
    def test_its_status_decides(
        self,
        acme: factories.Api,
        receiver: FakeReceiver,
        reply: Reply,
        work: dict[str, Any],
        status: JobStatus,
        code: str,
    ) -> None:
        receiver.replies = [reply]
        job, report = ran(acme, {"url": receiver.address, **work})
        assert (job.status, job.error_code) == (status, code)
        assert bool(report["error"]) == bool(code)
        assert len(receiver.received) == 1

    @pytest.mark.parametrize(
        ("reply", "is_retried"),
        [
            (Reply(500), True),
            (Reply(429), True),
            (Reply(is_dropped=True), True),
            (Reply(400), False),
            (Reply(301), False),
        ],
    )
    def test_what_may_be_better_later_is_retried(
        self, acme: factories.Api, receiver: FakeReceiver, reply: Reply, is_retried: bool
    ) -> None:
        receiver.replies = [reply]
        config = {"retry_policy": {"max_attempts": 2, "initial_interval_seconds": 0}}
        job, _ = ran(acme, {"url": receiver.address}, config=config)
        assert job.waiting_for == ("retry" if is_retried else "")
        if is_retried:
            lifecycle.wake_due()
            Worker(QuietKeeper()).serve("webhooks")
            job.refresh_from_db()
            assert job.status == JobStatus.COMPLETED
            assert receiver.received[1].headers["x-agent-jobs-attempt"] == "2"

    def test_retry_after_of_a_429_is_kept_to(self, acme: factories.Api, receiver: FakeReceiver) -> None:
        receiver.replies = [Reply(429, headers={"Retry-After": "90"})]
        config = {"retry_policy": {"max_attempts": 3, "initial_interval_seconds": 1}}
        job, _ = ran(acme, {"url": receiver.address}, config=config)
        assert job.wake_at is not None
        assert 85 < (job.wake_at - job.updated_at).total_seconds() < 95

    def test_nobody_listening_is_a_failed_connection(self, acme: factories.Api) -> None:
        job, report = ran(acme, {"url": "http://127.0.0.1:1/"})
        assert job.error_code == "connection_failed"
        assert report["response"] is None

    @pytest.mark.parametrize(
        "reply",
        [Reply(hang=PATIENCE), Reply(drip=0.1), Reply(is_endless=True, pause=0.1)],
        ids=["silent", "head", "body"],
    )
    def test_an_answer_that_does_not_end_in_time_is_a_time_out(
        self, acme: factories.Api, receiver: FakeReceiver, reply: Reply
    ) -> None:
        receiver.replies = [reply]
        began = time.monotonic()
        job, report = ran(acme, {"url": receiver.address}, config={"attempt_timeout_seconds": 0.5})
        assert job.error_code == "attempt_timeout"
        assert "0.5 s" in report["error"]
        assert time.monotonic() - began < PATIENCE / 4

    def test_an_endless_answer_is_cut_and_its_status_counts(self, acme: factories.Api, receiver: FakeReceiver) -> None:
        receiver.replies = [Reply(is_endless=True)]
        job, report = ran(acme, {"url": receiver.address})
        assert job.status == JobStatus.COMPLETED
        assert job.result_data == {"status_code": 200}
        assert (len(report["response"]["body"]), report["response"]["is_truncated"]) == (65_536, True)

    def test_an_answer_of_ten_megabytes_is_cut(self, acme: factories.Api, receiver: FakeReceiver) -> None:
        receiver.replies = [Reply(body=b"x" * 10_000_000)]
        job, report = ran(acme, {"url": receiver.address})
        assert (job.status, len(report["response"]["body"])) == (JobStatus.COMPLETED, 65_536)

    def test_a_compressed_answer_is_not_unpacked(self, acme: factories.Api, receiver: FakeReceiver) -> None:
        receiver.replies = [Reply(headers={"Content-Encoding": "gzip"}, body=b"\x1f\x8b" + bytes(60_000))]
        job, report = ran(acme, {"url": receiver.address})
        assert job.status == JobStatus.COMPLETED
        assert report["response"]["body"] == "(60,002 bytes that are not text)"
        assert job.result_data == {"status_code": 200}

    def test_an_answer_that_is_no_text_is_no_result(self, acme: factories.Api, receiver: FakeReceiver) -> None:
        receiver.replies = [Reply(headers={"Content-Type": "image/png"}, body=b"\x89PNG")]
        job, report = ran(acme, {"url": receiver.address})
        assert job.result_data == {"status_code": 200}
        assert report["response"]["body"] == "(4 bytes that are not text)"

    def test_what_no_database_stores_is_replaced(self, acme: factories.Api, receiver: FakeReceiver) -> None:
        receiver.replies = [Reply(body=b'{"a": "x\\u0000\\ud800y"}\x00\xff', headers={"X-Odd": "a\xff"})]
        job, report = ran(acme, {"url": receiver.address})
        assert job.status == JobStatus.COMPLETED
        assert "\x00" not in report["response"]["body"]
        assert "\ufffd" in report["response"]["body"]

    @pytest.mark.parametrize(
        ("body", "kept"),
        [
            (b'{"id": [1]}', {"id": [1]}),
            (b"NaN", "NaN"),
            (b"[" * 200 + b"]" * 200, "[" * 200 + "]" * 200),
            (b'"\\u0000x"', "x"),
        ],
    )
    def test_a_small_body_becomes_the_result(
        self, acme: factories.Api, receiver: FakeReceiver, body: bytes, kept: Any
    ) -> None:
        receiver.replies = [Reply(201, body=body)]
        job, _ = ran(acme, {"url": receiver.address})
        assert job.result_data == {"status_code": 201, "body": kept}


def test_the_attempts_and_their_reports_can_be_read(acme: factories.Api, receiver: FakeReceiver) -> None:
    receiver.replies = [Reply(503)]
    config = {"retry_policy": {"max_attempts": 2, "initial_interval_seconds": 0}}
    job, first = ran(acme, {"url": receiver.address}, config=config)
    lifecycle.wake_due()
    Worker(QuietKeeper()).serve("webhooks")

    listed = acme.get(f"/services/agent-jobs/{job.pk}/tasks", {"limit": 1}).json()
    assert (listed["meta"]["total"], [task["number"] for task in listed["data"]]) == (2, [1])
    assert (listed["data"][0]["status"], "report" in listed["data"][0]) == ("FAILED", False)
    latest = acme.get(f"/services/agent-jobs/{job.pk}/tasks", {"sort": "-number"}).json()["data"][0]
    assert (latest["number"], latest["status"]) == (2, "COMPLETED")
    one = acme.get(f"/services/agent-jobs/{job.pk}/tasks/{listed['data'][0]['task_id']}").json()["data"]
    assert one["report"] == first
    for unknown in ("x", str(job.pk)):
        answer = acme.get(f"/services/agent-jobs/{job.pk}/tasks/{unknown}")
        assert (answer.status_code, answer.json()["code"]) == (404, "task_not_found")


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("work", "field"),
        [
            ({}, "work.url"),
            ({"url": "ftp://example.com/"}, "work.url"),
            ({"url": "https://user:pw@example.com/"}, "work.url"),
            ({"url": "https://{{ host }}/"}, "work.url"),
            ({"url": "https://example.com{{ name }}/"}, "work.url"),
            ({"url": "https://example.com/{{ nobody }}"}, "work.url"),
            ({"url": 7}, "work.url"),
            ({"method": "TRACE"}, "work.method"),
            ({"headers": {"X-A": "a\r\nX-B: b"}}, "work.headers.X-A"),
            ({"headers": {"X A": "a"}}, "work.headers.X A"),
            ({"headers": {"X-A\r\nX-B": "a"}}, "work.headers.X-A\r\nX-B"),
            ({"headers": {"Host": "example.com"}}, "work.headers.Host"),
            ({"headers": {"Content-Length": "1"}}, "work.headers.Content-Length"),
            ({"headers": {"X-A": "a", "x-a": "b"}}, "work.headers.x-a"),
            ({"headers": {"X-A": 1}}, "work.headers.X-A"),
            ({"headers": {f"X-{n}": "a" for n in range(51)}}, "work.headers"),
            ({"headers": {f"X-{n}": "a" * 1_000 for n in range(20)}}, "work.headers"),
            ({"headers": []}, "work.headers"),
            ({"body": 7}, "work.body"),
            ({"body": "{{ nobody }}"}, "work.body"),
            ({"body": {"a": ["{% for %}"]}}, "work.body.a.0"),
            ({"body": ["{{ name }}"] * 21}, "work"),
            ({"auth": {"type": "digest"}}, "work.auth.type"),
            ({"auth": {"type": "basic", "username": "a"}}, "work.auth.password"),
            ({"auth": {"type": "basic", "username": "a:b", "password": "c"}}, "work.auth.username"),
            ({"auth": {"type": "bearer", "token": "a\nb"}}, "work.auth.token"),
            ({"auth": {"type": "bearer", "token": "******"}}, "work.auth.token"),
            ({"auth": {"type": "api_key", "key": "k", "header": "Host"}}, "work.auth.header"),
            ({"auth": {"type": "bearer", "token": "t", "user": "u"}}, "work.auth.user"),
            ({"success_codes": [99]}, "work.success_codes"),
            ({"success_codes": []}, "work.success_codes"),
            ({"success_codes": [True]}, "work.success_codes"),
            ({"sign_with": "short"}, "work.sign_with"),
            ({"sign_with": "whsec_not base64 at all"}, "work.sign_with"),
            ({"header_prefix": "X Bad"}, "work.header_prefix"),
            ({"follow_redirects": True}, "work.follow_redirects"),
        ],
    )
    def test_bad_work_is_a_400_that_names_the_field(
        self, acme: factories.Api, work: dict[str, Any], field: str
    ) -> None:
        given = work if field == "work.url" and not work else {"url": "https://example.com/", **work}
        answer = post(acme, given, params={"name": "Ann"})
        assert answer.status_code == 400, answer.content
        assert factories.fields_of(answer) == [field]
        assert Job.objects.count() == 0

    def test_a_body_of_ten_megabytes_is_refused(self, acme: factories.Api) -> None:
        assert post(acme, {"url": "https://example.com/", "body": "x" * 10_000_000}).status_code == 413
        assert Job.objects.count() == 0

    def test_a_long_body_and_a_long_time_out_are_refused(self, acme: factories.Api) -> None:
        assert post(acme, {"url": "https://example.com/", "body": "x" * 263_000}).status_code == 413
        answer = post(acme, {"url": "https://example.com/"}, config={"attempt_timeout_seconds": 301})
        assert factories.fields_of(answer) == ["config.attempt_timeout_seconds"]

    @pytest.mark.parametrize(
        "url", ["https://127.0.0.1/", "https://[::1]/", "https://localhost/", "https://10.0.0.1/{{ name }}"]
    )
    def test_a_private_address_is_refused_when_the_job_is_made(
        self, acme: factories.Api, settings: Any, url: str
    ) -> None:
        settings.ALLOW_PRIVATE_ADDRESSES = False
        answer = post(acme, {"url": url}, params={"name": "Ann"})
        assert (answer.status_code, factories.fields_of(answer)) == (400, ["work.url"])

    def test_a_private_address_is_refused_at_each_attempt(
        self, acme: factories.Api, receiver: FakeReceiver, settings: Any
    ) -> None:
        job = made(acme, {"url": receiver.address})
        settings.ALLOW_PRIVATE_ADDRESSES = False
        Worker(QuietKeeper()).serve("webhooks")
        job.refresh_from_db()
        assert (job.status, job.error_code, receiver.received) == (JobStatus.FAILED, "address_refused", [])

    def test_a_placeholder_reaches_neither_another_host_nor_another_header(
        self, acme: factories.Api, receiver: FakeReceiver
    ) -> None:
        job, _ = ran(acme, {"url": f"{receiver.address}/x{{{{ name }}}}"}, params={"name": "@example.com/\r\nX-A: b"})
        assert (job.error_code, receiver.received) == ("address_refused", [])
        work = {"url": receiver.address, "headers": {"X-Team": "{{ name }}"}}
        job, _ = ran(acme, work, params={"name": "a\r\nX-Evil: b"})
        assert (job.error_code, receiver.received) == ("template_invalid", [])

    def test_a_webhook_job_takes_no_channel(self, acme: factories.Api, receiver: FakeReceiver) -> None:
        channel = {"org_id": "acme", "platform": "web", "code": "lobby"}
        answer = post(acme, {"url": receiver.address}, target_channel=channel)
        assert (answer.status_code, factories.fields_of(answer)) == (400, ["target_channel"])


@pytest.mark.django_db(transaction=True)
def test_a_cancel_aborts_the_request_within_two_seconds(receiver: FakeReceiver) -> None:
    rows.job_type(key="ping", runner="webhook", default_config={})
    acme = factories.api("acme", "SERVICES:WRITE")
    receiver.replies = [Reply(hang=PATIENCE)]
    job = made(acme, {"url": receiver.address})
    worker = Worker(QuietKeeper())

    def serve() -> None:
        worker.serve("webhooks")
        connection.close()

    serving = threading.Thread(target=serve)
    serving.start()
    wait_for(lambda: receiver.received, what="the request is under way")
    assert acme.delete(f"/services/agent-jobs/{job.pk}").status_code == 200
    began = time.monotonic()
    while serving.is_alive() and time.monotonic() - began < PATIENCE:
        calls_in_flight.CALLS.look()  # what the keeper does each second
        serving.join(0.1)
    assert time.monotonic() - began < 2
    job.refresh_from_db()
    assert job.status == JobStatus.CANCELED
