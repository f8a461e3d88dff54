"""Caps: never more jobs RUNNING than an organisation, a job type or a channel allows, whoever claims."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection

from agent_jobs import jobs, lifecycle
from agent_jobs.lifecycle import Claim, OrgRotation, Settlement, running_caps
from agent_jobs.models import Job
from agent_jobs.states import JobStatus, TaskStatus
from agent_jobs.worker.lease_keeper import Keeper
from agent_jobs.worker.loop import Worker
from infra import doorbell
from tests import rows

pytestmark = pytest.mark.django_db


def claim(
    turn: OrgRotation | None = None, *, batch: int = 10, settlements: list[Settlement] | None = None
) -> lifecycle.ClaimResult:
    return lifecycle.settle_and_claim(
        settlements or [], lane="messages", turn=turn or OrgRotation(), worker_id=7, batch=batch
    )


def ended(claimed: Claim) -> Settlement:
    return Settlement(
        id=claimed.id,
        token=claimed.token,
        task_id=claimed.task_id,
        status=JobStatus.COMPLETED,
        task_status=TaskStatus.COMPLETED,
        result="done",
    )


def test_an_organisation_runs_no_more_jobs_than_its_cap() -> None:
    rows.org("acme", max_running_jobs=3)
    for _ in range(5):
        rows.job()
    first = claim()
    assert len(first.claimed) == 3
    assert claim().claimed == ()
    assert claim().is_full
    assert len(claim(settlements=[ended(first.claimed[0])]).claimed) == 1  # the place that it frees is taken at once


def test_a_cap_of_a_job_type_leaves_the_others_alone() -> None:
    rows.job_type(key="slow", max_running=2)
    rows.job_type(key="greet")
    for _ in range(4):
        rows.job(job_type_key="slow")
    for _ in range(3):
        rows.job()
    kinds = [Job.objects.get(pk=entry.id).job_type_key for entry in claim().claimed + claim().claimed]
    assert sorted(kinds) == ["greet", "greet", "greet", "slow", "slow"]


def test_a_cap_by_channel_is_of_one_job_type_in_one_channel() -> None:
    rows.job_type(key="greet", max_running_per_channel=1)
    for channel in ["lobby", "lobby", "kitchen", "lobby"]:
        rows.job(channel_code=channel)
    rows.job(job_type_key="other")
    claimed = [Job.objects.get(pk=entry.id) for entry in claim().claimed + claim().claimed]
    assert sorted((job.job_type_key, job.channel_code) for job in claimed) == [
        ("greet", "kitchen"),
        ("greet", "lobby"),
        ("other", "lobby"),
    ]


def test_a_full_type_at_the_head_of_the_queue_does_not_hide_what_is_behind_it() -> None:
    rows.job_type(key="slow", max_running=1)
    for _ in range(30):
        rows.job(job_type_key="slow")
    behind = rows.job()
    assert len(claim(batch=1).claimed) == 1
    assert [entry.id for entry in claim(batch=1).claimed] == [behind.pk]


def test_a_job_that_goes_on_needs_no_new_place() -> None:
    rows.org("acme", max_running_jobs=1)
    for _ in range(2):
        rows.job()
    (claimed,) = claim().claimed
    waits = Settlement(
        id=claimed.id,
        token=claimed.token,
        task_id=claimed.task_id,
        status=JobStatus.RUNNING,
        task_status=TaskStatus.COMPLETED,
        waiting_for="reply",
        wake_seconds=60,
    )
    assert claim(settlements=[waits]).claimed == ()  # it is RUNNING still, so the other one waits
    lifecycle.ready_again(Job.objects.get(pk=claimed.id))
    assert [entry.id for entry in claim().claimed] == [claimed.id]


def test_a_full_organisation_does_not_keep_another_one_waiting() -> None:
    for org_id in ["acme", "bmce", "rival"]:
        rows.org(org_id, max_running_jobs=None if org_id == "rival" else 1)
        for _ in range(3):
            rows.job(org_id=org_id)
    for org_id in ["acme", "bmce"]:
        rows.job(JobStatus.RUNNING, org_id=org_id)
    worker = Worker(Keeper())
    worker.keeper.worker_id = 7
    assert worker.serve("messages") == 3
    assert not Job.objects.filter(org_id="rival", status=JobStatus.WAITING).exists()
    assert Job.objects.exclude(org_id="rival").filter(attempt__gt=0).count() == 0


def test_a_cancelled_job_rings_for_the_one_that_waited_for_its_place(
    monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    rows.org("acme", max_running_jobs=1)
    running_caps._has_caps.cache_clear()  # another test's acme had none
    running = rows.job(JobStatus.RUNNING)
    rung: list[str] = []
    monkeypatch.setattr(doorbell, "ring", lambda queue, *_, **__: rung.append(queue))
    with django_capture_on_commit_callbacks(execute=True):
        jobs.cancel("acme", running.pk, actor=rows.TESTER)
    assert rung == ["messages"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("capped", ["org", "type", "channel"])
def test_many_workers_at_once_stay_below_the_cap(capped: str) -> None:
    rows.org("acme", max_running_jobs=4 if capped == "org" else None)
    rows.job_type(
        max_running=4 if capped == "type" else None, max_running_per_channel=4 if capped == "channel" else None
    )
    for _ in range(60):
        rows.job()
    barrier = threading.Barrier(6)
    most: list[int] = []
    done: list[str] = []

    def drain() -> None:
        barrier.wait()
        turn, settlements, misses = OrgRotation(), [], 0
        while misses < 50 and len(done) < 60:
            answer = claim(turn, batch=3, settlements=settlements)
            settlements = [ended(entry) for entry in answer.claimed]
            done.extend(str(entry.id) for entry in answer.claimed)
            most.append(Job.objects.filter(status=JobStatus.RUNNING).count())
            misses = 0 if answer.claimed else misses + 1
        if settlements:
            lifecycle.settle_and_claim(settlements)
        connection.close()

    with ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(drain) for _ in range(6)]:
            future.result()
    assert max(most) == 4
    assert len(done) == len(set(done)) == 60
