"""Overlap policies and steady firing in the real processes: web, beat and workers."""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from tests.live.processes import Service, stop
from tests.waiting import wait_for

pytestmark = pytest.mark.live
PATH = "/services/agent-schedules"


def test_overlap_policies_hold_and_firings_go_on_when_workers_and_beats_change(make_home: Callable[[], Path]) -> None:
    with Service(make_home()) as service:
        service.web()
        service.make_type("outside", "external", "unused")
        worker, beat = service.worker(), service.beat()
        # An external job does not end before somebody completes it, so each later firing meets it.
        made = {policy: _make(service, policy) for policy in ("allow", "forbid", "replace", "queue_one")}
        for found in made.values():
            _wait_for_firings(service, found, 4)
        worker.kill()
        beat.kill()
        stop(service.worker("second"))
        service.worker("third")
        service.beat("second-beat")
        for found in made.values():
            _wait_for_firings(service, found, 8)

        outcomes = {policy: _outcomes(service, found) for policy, found in made.items()}
        assert set(outcomes["allow"]) <= {"started", "misfired"}
        assert outcomes["forbid"]["started"] == 1
        assert outcomes["forbid"]["skipped"] >= 5
        assert outcomes["replace"]["started"] >= 5
        assert _alive(service, made["replace"]) <= 1
        assert (outcomes["queue_one"]["started"], outcomes["queue_one"]["queued"]) == (1, 1)
        for found in made.values():
            _has_every_second(service, found)

        _cancel_all(service, made["queue_one"])
        wait_for(lambda: _outcomes(service, made["queue_one"])["started"] >= 2, what="the queued firing has run")


def _make(service: Service, overlap: str) -> str:
    body = {"name": overlap, "every_seconds": 1, "overlap": overlap, "job": {"job_type_id": "outside"}}
    status, answer = service.request("POST", PATH, body)
    assert status == 201, answer
    return str(answer["data"]["id"])


def _outcomes(service: Service, schedule_id: str) -> Counter[str]:
    rows = service.sql("SELECT outcome FROM agent_jobs_schedulefiring WHERE schedule_id = %s", schedule_id)
    return Counter(outcome for (outcome,) in rows)


def _wait_for_firings(service: Service, schedule_id: str, count: int) -> None:
    wait_for(lambda: _outcomes(service, schedule_id).total() >= count, what=f"{count} firings")


def _alive(service: Service, schedule_id: str) -> int:
    counted = "SELECT count(*) FROM agent_jobs_job WHERE schedule_id = %s AND finished_at IS NULL"
    return int(service.sql(counted, schedule_id)[0][0])


def _has_every_second(service: Service, schedule_id: str) -> None:
    """Each time of the schedule has exactly one firing, also those for which no process was there."""
    rows = service.sql(
        "SELECT fire_at FROM agent_jobs_schedulefiring WHERE schedule_id = %s ORDER BY fire_at", schedule_id
    )
    assert all((later - earlier).total_seconds() == 1 for (earlier,), (later,) in pairwise(rows)), rows


def _cancel_all(service: Service, schedule_id: str) -> None:
    service.request("POST", f"{PATH}/{schedule_id}/pause")
    for (job_id,) in service.sql(
        "SELECT id FROM agent_jobs_job WHERE schedule_id = %s AND finished_at IS NULL", schedule_id
    ):
        assert service.request("DELETE", f"/services/agent-jobs/{job_id}")[0] == 200
