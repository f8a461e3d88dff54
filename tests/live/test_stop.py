"""TERM: what is under way is finished, what cannot be is handed on, and nobody is turned away half-way."""

import http.client
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config import embedded
from tests.live.processes import Service, next_year, stop
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.live
# Long enough that a busy machine ends within it what need not wait for its end.
GRACE = 60
SHORT_GRACE = 8


@pytest.fixture(scope="module")
def service(make_home: Callable[[], Path]) -> Iterator[Service]:
    with Service(make_home(), "tests.live.slow", AGENT_JOBS_STOP_GRACE_SECONDS=str(GRACE)) as service:
        service.web()
        for seconds in (1, 3, 60):
            profile = {"id": f"slow-{seconds}", "name": "Slow"}
            service.ok("POST", "/services/organizations/acme/profiles", profile)
            service.make_type(f"think-{seconds}", "conversation", "Thinking", profile_id=f"slow-{seconds}")
        # Models that only the workers of these tests know.
        service.sql("UPDATE agent_jobs_profile SET model = replace(key, '-', ' ')")
        service.sql(
            "INSERT INTO channels_integration_channel (id, org_id, platform, code, name, address, sealed_secret,"
            " last_position, updated_at) VALUES (uuidv7(), 'acme', 'null', 'nowhere', '', '', '', 0, now())"
        )
        yield service


NOWHERE = {"platform": "null", "type": "channel", "code": "nowhere"}


def test_a_turn_under_way_is_finished_and_nothing_new_is_begun(service: Service) -> None:
    worker = service.worker("w1")
    first = service.post_job("think-3", channel=NOWHERE)
    wait_for(lambda: service.job(first)["lease_until"], what="the turn has begun")
    began = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    wait_for(lambda: "shutdown (MainProcess)" in service.log("w1"), what="it has heard it")
    second = service.post_job("think-1", channel=NOWHERE)
    assert worker.wait(PATIENCE) == 0
    assert time.monotonic() - began < GRACE
    assert service.job(first) | {"status": "COMPLETED", "attempt": 1, "result": "after 3 s"} == service.job(first)
    assert service.job(second)["attempt"] == 0
    other = service.worker("w2")
    service.beat()
    service.wait_job(second, status="COMPLETED")
    assert stop(other) == 0


def test_a_turn_that_outlasts_the_grace_is_handed_to_another_worker(service: Service) -> None:
    worker = service.worker("w3", AGENT_JOBS_STOP_GRACE_SECONDS=str(SHORT_GRACE))
    job_id = service.post_job("think-60", channel=NOWHERE)
    taken = wait_for(lambda: service.job(job_id)["lease_until"] and service.job(job_id), what="begun")
    other = service.worker("w4")
    began = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE) == 0
    assert time.monotonic() - began >= SHORT_GRACE
    again = service.wait_job(job_id, attempt=2)
    assert again["worker_id"] not in (None, taken["worker_id"])
    assert (again["status"], again["crash_count"]) == ("RUNNING", 0)
    activities = service.sql(
        "SELECT note FROM agent_jobs_activity WHERE job_id = %s AND code = 'job.taken_back'", job_id
    )
    assert activities == [("WAITING: its worker was stopped",)]
    service.ok("DELETE", f"/services/agent-jobs/{job_id}")
    other.kill()


def test_an_idle_worker_and_beat_end_at_once(service: Service) -> None:
    worker, beat = service.worker("w5"), service.beat("beat2")
    wait_for(lambda: list(service.folder.glob("beat2-schedule*")), what="beat has begun")
    began = time.monotonic()
    assert stop(beat) == 0
    assert stop(worker) == 0
    assert time.monotonic() - began < GRACE


def test_a_web_that_is_stopped_while_it_loads_ends_at_once(service: Service) -> None:
    web = service.spawn("web-loading", "-m", "config.serve", "--port", str(embedded.free_port()))
    children = Path(f"/proc/{web.pid}/task/{web.pid}/children")
    wait_for(lambda: len(children.read_text().split()) == 2, what="both worker processes are forked")
    assert stop(web) == 0
    assert "refused to gracefully stop" not in service.log("web-loading")


def test_a_web_that_stops_under_load_drops_no_request(service: Service) -> None:
    """A client is refused before it sends anything, or it gets its whole answer."""
    service.port, first_port = embedded.free_port(), service.port
    body = json.dumps(
        {
            "job_type_id": "think-1",
            "target_channel": {"org_id": "acme", **NOWHERE},
            "scheduled_at": next_year(),
        }
    )
    headers = {"Authorization": f"Bearer {service.token}", "Content-Type": "application/json"}
    seen: Counter[str] = Counter()
    posted: set[str] = set()
    is_over = threading.Event()

    def load(is_kept: bool) -> None:
        connection: http.client.HTTPConnection | None = None
        while not is_over.is_set():
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)
                try:
                    connection.connect()
                except ConnectionRefusedError:
                    seen["refused"] += 1
                    connection = None
                    is_over.wait(0.05)
                    continue
            try:
                connection.request(
                    "POST", "/services/agent-jobs", body, headers | ({} if is_kept else {"Connection": "close"})
                )
                answer = connection.getresponse()
                job_id = json.loads(answer.read())["data"]["job_id"]
            except (OSError, http.client.HTTPException) as error:
                seen[f"dropped: {error!r}"] += 1
                connection = None
                continue
            seen[str(answer.status)] += 1
            posted.add(job_id)
            if answer.getheader("Connection") == "close":
                connection.close()
                connection = None

    def poll() -> None:
        while not is_over.is_set():
            try:
                answer = service.ok("GET", "/services/channels/web/silent/messages?wait=30")
            except OSError as error:
                is_refused = "refused" in str(error)
                seen["poll refused" if is_refused else f"poll dropped: {error!r}"] += 1
                is_over.wait(0.1)
            else:
                seen["polled"] += 1
                assert answer["data"] == []

    try:
        web = service.web("web1")
        threads = [threading.Thread(target=load, args=(number % 2 == 0,)) for number in range(6)]
        threads.append(threading.Thread(target=poll))
        for thread in threads:
            thread.start()
        for number in (2, 3, 4):
            wait_for(lambda number=number: len(posted) > 60 * number, what="load")  # type: ignore[misc]
            assert stop(web) == 0
            web = service.web(f"web{number}")
        is_over.set()
        stop(web)
        for thread in threads:
            thread.join(PATIENCE)
    finally:
        is_over.set()
        service.port = first_port
    assert [word for word in seen if "dropped" in word] == [], seen
    assert seen["201"] == len(posted) > 240
    (count,) = service.sql("SELECT count(*) FROM agent_jobs_job WHERE status = 'SCHEDULED'")
    assert count == (len(posted),)
