"""Open answers of real web processes: events of a job, requests that wait for one, and what a stop does to both."""

import http.client
import json
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from config import embedded
from tests.live.events import Event, Following
from tests.live.processes import Service, next_year
from tests.waiting import PATIENCE, PAUSE, wait_for

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def service(make_home: Callable[[], Path]) -> Iterator[Service]:
    with Service(make_home(), AGENT_JOBS_WEB_PROCESSES="2") as service:
        service.web()
        service.make_type("greet", "message", "Hello")
        yield service


def new_job(service: Service) -> str:
    return service.post_job("greet", scheduled_at=next_year())


def happens(service: Service, job_id: str, *codes: str) -> list[str]:
    """An activity for each, as a worker would leave one that moves nothing."""
    rows = [
        service.sql(
            "INSERT INTO agent_jobs_activity (org_id, job_id, code) VALUES ('acme', %s, %s) RETURNING id", job_id, code
        )
        for code in codes
    ]
    return [str(found[0][0]) for found in rows]


def follow(service: Service, job_id: str, **options: Any) -> Following:
    return Following(service.port, f"/services/agent-jobs/{job_id}/events", service.token, **options)


def codes(events: list[Event]) -> list[str]:
    return [event.data["activity_type_code"] for event in events if event.kind == "activity"]


def cancel(service: Service, job_id: str) -> None:
    service.ok("DELETE", f"/services/agent-jobs/{job_id}")


# --- Events ----------------------------------------------------------------------------------------------------
def test_two_clients_are_told_everything_from_the_first_move_to_the_end(service: Service) -> None:
    job_id = new_job(service)
    with follow(service, job_id) as early:
        assert codes(early.take(1)) == ["job.created"]
        happens(service, job_id, "model.call")
        assert codes(early.take(1)) == ["model.call"]
        with follow(service, job_id) as late:
            assert codes(late.take(2)) == ["job.created", "model.call"]
            cancel(service, job_id)
            ends = [early.rest(), late.rest()]
    for (canceled, end), stream in zip(ends, (early, late), strict=True):
        assert canceled.data["activity_type_code"] == "job.canceled"
        assert (end.kind, end.data["job_id"], end.data["job_status"]) == ("end", job_id, "CANCELED")
        assert stream.answer.getheader("Content-Type") == "text/event-stream"
        assert stream.answer.getheader("Cache-Control") == "no-store"
        assert stream.answer.getheader("X-Accel-Buffering") == "no"
        assert stream.answer.getheader("X-Request-ID")
    shown = service.ok("GET", f"/services/activities?job_id={job_id}&sort=created_at:desc&limit=1")["data"]
    assert ends[0][0].data == shown[0]
    with follow(service, job_id, last_id=early.last_id) as again:
        assert again.status == 204, "a browser asks no more after a 204"
    with follow(service, job_id, last_id="2") as again:
        assert [event.kind for event in again.rest()] == ["activity", "end"]


def test_the_id_goes_as_a_parameter_too_and_the_header_before_it(service: Service) -> None:
    job_id = new_job(service)
    happens(service, job_id, "a", "b", "c")
    with follow(service, job_id) as stream:
        events = stream.take(4)
    path = f"/services/agent-jobs/{job_id}/events?last_event_id={events[1].id}"
    with Following(service.port, path, service.token) as stream:
        assert codes(stream.take(2)) == ["b", "c"]
    with Following(service.port, path, service.token, last_id=events[2].id) as stream:
        assert codes(stream.take(1)) == ["c"]


def test_a_writer_waits_for_one_that_began_earlier_and_clients_hear_of_both_in_order(service: Service) -> None:
    job_id = new_job(service)
    with (
        psycopg.connect(service.url_of(service.database)) as slow,
        follow(service, job_id) as stream,
        ThreadPoolExecutor(1) as pool,
    ):
        assert codes(stream.take(1)) == ["job.created"]
        insert = "INSERT INTO agent_jobs_activity (org_id, job_id, code) VALUES ('acme', %s, 'slow')"
        slow.execute(insert, [job_id])
        quick = pool.submit(happens, service, job_id, "quick")
        with pytest.raises(TimeoutError):
            quick.result(0.5)
        slow.commit()
        quick.result(PATIENCE)
        told = stream.take(2)
        assert [event.id for event in told] == ["2", "3"]
        assert codes(told) == ["slow", "quick"]


def test_a_client_that_is_cut_off_again_and_again_misses_nothing_and_hears_nothing_twice(service: Service) -> None:
    """Four writers whose transactions overlap, and a client that breaks off after a few events, each time anew."""
    job_id, rng = new_job(service), random.Random(7)
    pauses = [[rng.random() * 0.02 for _ in range(75)] for _ in range(4)]

    def write(mine: list[float]) -> None:
        with psycopg.connect(service.url_of(service.database)) as connection:
            for pause in mine:
                insert = "INSERT INTO agent_jobs_activity (org_id, job_id, code) VALUES ('acme', %s, 'x')"
                connection.execute(insert, [job_id])
                PAUSE.wait(pause)
                connection.commit()

    told: list[str] = []
    last_id, cuts = "", 0

    def write_all() -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, pauses))
        cancel(service, job_id)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_all)
        while True:
            with follow(service, job_id, last_id=last_id) as stream:
                for _ in range(rng.randrange(1, 40)):
                    event = stream.next()
                    if event is None or event.kind == "end":
                        break
                    told.append(event.data["id"])
                    last_id = stream.last_id
                cuts += 1
            if event is not None and event.kind == "end":
                break
        writing.result()
    stored = [str(row[0]) for row in service.sql("SELECT id FROM agent_jobs_activity WHERE job_id = %s", job_id)]
    assert len(stored) == 302
    assert sorted(told) == sorted(stored)
    assert cuts > 10


def test_a_revoked_token_ends_its_streams_and_waits(service: Service) -> None:
    job_id = new_job(service)
    path = f"/services/agent-jobs/{job_id}"
    quickest = PATIENCE
    with Following(service.port, f"{path}/events", service.token) as other:
        other.take(1)
        for number in range(5):  # the promise is a second; a busy machine keeps it now and then
            plain = service.manage("create_token", "--org", "acme", "--scope", "SERVICES:READ", "--name", "s").strip()
            with (
                Following(service.port, f"{path}/events", plain) as stream,
                Waiting(service.port, f"{path}?wait=60", plain) as waiting,
            ):
                stream.take(1)
                if number == 0:
                    PAUSE.wait(1)  # so that it does wait; a busy machine may refuse it as it comes, which is as well
                service.sql("UPDATE agent_jobs_apptoken SET revoked_at = now() WHERE public_id = %s", plain[:16])
                began = time.monotonic()
                (closed,) = stream.rest()
                quickest = min(quickest, time.monotonic() - began)
                assert (closed.kind, closed.data["code"]) == ("closed", "unauthenticated")
                assert waiting.read()[0] == 401
                assert time.monotonic() - began < 30, "it was not waited for to the end"
            if quickest < 1.5:
                break
        assert quickest < 1.5
        happens(service, job_id, "still.here")
        assert codes(other.take(1)) == ["still.here"]


def test_strangers_are_refused_as_elsewhere(service: Service) -> None:
    job_id = new_job(service)
    service.manage("create_org", "rival", "--name", "Rival")
    rival = service.manage("create_token", "--org", "rival", "--scope", "SERVICES:READ", "--name", "r").strip()
    nobodys = "01930000-0000-7000-8000-000000000000"
    for path, token, status in (
        (job_id, rival, 403),
        (nobodys, rival, 404),
        (job_id, "nonsense", 401),
    ):
        for rest in ("/events", "?wait=20"):
            with Following(service.port, f"/services/agent-jobs/{path}{rest}", token) as stream:
                assert stream.status == status
                assert "job.created" not in stream.answer.read().decode()
    with follow(service, job_id, last_id="AAAA") as stream:
        assert stream.status == 400
        assert json.load(stream.answer)["errors"][0]["field"] == "Last-Event-ID"


# --- Waiting ---------------------------------------------------------------------------------------------------
def test_a_wait_ends_with_the_change_and_shows_it(service: Service) -> None:
    job_id = new_job(service)
    path = f"/services/agent-jobs/{job_id}?wait=60&include=activities"
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        waits = [pool.submit(service.request, "GET", path) for _ in range(2)]
        with pytest.raises(TimeoutError):
            waits[0].result(1)

        def has_ended() -> bool:
            happens(service, job_id, "model.call")  # again: what came before a wait had begun does not end it
            return all(wait.done() for wait in waits)

        wait_for(has_ended, what="both are answered", pause=1)
        for wait in waits:
            status, answer = wait.result()
            told = [activity["activity_type_code"] for activity in answer["data"]["Activities"]]
            assert (status, set(told[:-1]), told[-1]) == (200, {"model.call"}, "job.created")
        wait = pool.submit(service.request, "GET", path)
        with pytest.raises(TimeoutError):
            wait.result(0.6)
        cancel(service, job_id)
        assert wait.result()[1]["data"]["job_status"] == "CANCELED"
    assert service.ok("GET", path)["data"]["job_status"] == "CANCELED", "nothing is waited for of one that has ended"
    assert time.monotonic() - began < 50, "no wait was for its whole time"


def test_nothing_is_missed_between_one_answer_and_the_next_wait(service: Service) -> None:
    job_id = new_job(service)
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)

    def ask(query: str) -> tuple[dict[str, Any], Any, float]:
        began = time.monotonic()
        connection.request(
            "GET", f"/services/agent-jobs/{job_id}{query}", headers={"Authorization": f"Bearer {service.token}"}
        )
        answer = connection.getresponse()
        return json.load(answer)["data"], answer, time.monotonic() - began

    job, answer, _ = ask("")
    known = str(answer.getheader("ETag"))
    happens(service, job_id, "x")
    again, answer, seconds = ask(f"?wait=60&since={known.strip(chr(34))}")
    assert seconds < 30
    assert again["activities_count"] == job["activities_count"] + 1
    known = str(answer.getheader("ETag"))
    assert ask("?wait=60&since=2026-01-01")[2] < 30
    _, answer, seconds = ask(f"?wait=1&since={known.replace(chr(34), '%22')}")
    assert 0.9 < seconds < 30
    assert answer.getheader("ETag") == known
    assert ask(f"?wait=1&since={job['updated_at']}")[2] > 0.9


# --- Threads, limits, stops ------------------------------------------------------------------------------------
@pytest.fixture
def small(service: Service) -> Iterator[Service]:
    """A web process with two threads and little room, on the same database."""
    port, service.port = service.port, embedded.free_port()
    limits = {"TEST_STREAMS": "60", "TEST_STREAMS_PER_ORG": "50", "TEST_WEB_THREADS": "2"}
    web = service.web("small", AGENT_JOBS_WEB_PROCESSES="1", **limits)
    try:
        yield service
    finally:
        web.send_signal(signal.SIGTERM)
        assert web.wait(PATIENCE) == 0
        service.port = port


def test_open_answers_hold_no_thread_and_are_bounded(small: Service) -> None:
    jobs = [new_job(small) for _ in range(5)]
    streams: list[Following] = []
    waits = [
        Waiting(small.port, f"/services/agent-jobs/{jobs[number % 5]}?wait=60", small.token) for number in range(25)
    ]
    try:
        while (stream := follow(small, jobs[len(streams) % 5])).status == 200:
            streams.append(stream)
        with stream as refused:
            assert refused.status == 429
            assert int(refused.answer.getheader("Retry-After") or 0) > 0
            assert json.load(refused.answer)["code"] == "too_many_streams"
        assert 25 <= len(streams) < 50, "fifty together, those who wait and those who are told"
        for stream in streams:
            assert codes(stream.take(1)) == ["job.created"]
        began = time.monotonic()
        new_job(small)
        assert time.monotonic() - began < 30, "it waited for no place of theirs"
        streams.pop().__exit__(None, None, None)

        def has_room() -> bool:
            with follow(small, jobs[0]) as one_more:
                return one_more.status == 200

        wait_for(has_room, what="who leaves makes room")
    finally:
        for open_answer in (*streams, *waits):
            open_answer.__exit__(None, None, None)


class Waiting:
    """A request whose answer nobody has read yet."""

    def __init__(self, port: int, path: str, token: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self.connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})

    def read(self) -> tuple[int, dict[str, Any]]:
        answer = self.connection.getresponse()
        return answer.status, json.load(answer)

    def __enter__(self) -> "Waiting":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()


def in_hand(port: int) -> int:
    """Connections whose request the web process has read, as the kernel sees it."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established, nothing_unread = "01", "00000000"
    return sum(
        (int(local.rpartition(":")[2], 16), status, queues.partition(":")[2]) == (port, established, nothing_unread)
        for _, local, _, status, queues, *_ in lines
    )


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a socket has unread")
def test_a_stop_ends_streams_and_answers_waits_at_once(service: Service) -> None:
    port, service.port = service.port, embedded.free_port()
    try:
        web = service.web("stopped")
        job_id = new_job(service)
        with follow(service, job_id) as stream:
            stream.take(1)
            path = f"/services/agent-jobs/{job_id}?wait=60"
            waits = [Waiting(service.port, path, service.token) for _ in range(8)]
            wait_for(lambda: in_hand(service.port) == 9, what="all are heard")
            began = time.monotonic()
            web.send_signal(signal.SIGTERM)
            assert stream.rest() == []
            for wait in waits:
                status, answer = wait.read()
                assert (status, answer["data"]["job_id"]) == (200, job_id)
            assert web.wait(PATIENCE) == 0
            assert time.monotonic() - began < 40, "nobody waited for their whole time"
        happens(service, job_id, "meanwhile")
        web = service.web("started")
        with follow(service, job_id, last_id=stream.last_id) as again:
            assert codes(again.take(1)) == ["meanwhile"]
        web.send_signal(signal.SIGTERM)
        assert web.wait(PATIENCE) == 0
    finally:
        service.port = port


def test_each_request_is_told_of_once_in_the_log(service: Service) -> None:
    job_id = new_job(service)
    request_id = f"waits-{job_id}"
    service.ok("GET", f"/services/agent-jobs/{job_id}?wait=1", headers={"X-Request-ID": request_id})
    line = wait_for(lambda: [line for line in service.log("web").splitlines() if request_id in line], what="its line")
    service.ok("GET", f"/services/agent-jobs/{job_id}?wait=1")  # whatever else would be told of it is told by now
    assert [line for line in service.log("web").splitlines() if request_id in line] == line
    assert len(line) == 1
    assert "Traceback" not in service.log("web")
