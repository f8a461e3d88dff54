"""How attempts of executors end: heartbeats, results, failures, releases, and everything that comes too late."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.db.models.functions import Now

from agent_jobs.duties import recovery
from agent_jobs.executors import attempts, claiming, reporting
from agent_jobs.executors.claiming import Claimant
from agent_jobs.executors.reporting import AttemptReport
from agent_jobs.lifecycle import wake_due
from agent_jobs.models import Activity, Executor, Job, Task
from tests import factories, rows
from tests.executors.conftest import claim, claimed, tell
from tests.races import in_threads

pytestmark = pytest.mark.django_db
Posted = Callable[..., str]


def lapse(job_id: str) -> None:
    """The lease is over, and the sweep takes the job back."""
    Job.objects.filter(pk=job_id).update(lease_until=Now() - timedelta(seconds=1))
    assert recovery.take_back_lost() == 1


def states() -> list[tuple[Any, ...]]:
    columns = ("status", "result", "error_code", "lease_token", "attempt", "updated_at", "lease_until")
    return [*Job.objects.values_list(*columns), *Task.objects.order_by("number").values_list("status", "report")]


def test_a_completed_job_has_the_result_and_its_attempt_the_output(
    acme: factories.Api, executor: factories.Api, posted: Posted
) -> None:
    job_id = posted()
    job = claimed(executor)
    answer = tell(
        executor, "complete", job, exit_code=3, stdout="out", stderr="err", result="42", result_data={"n": [1]}
    )
    assert answer.status_code == 200
    assert answer.json()["data"] == {"job_id": job_id, "job_status": "COMPLETED"}
    shown = acme.get(f"/services/agent-jobs/{job_id}").json()["data"]
    assert (shown["job_status"], shown["result"], shown["result_data"]) == ("COMPLETED", "42", {"n": [1]})
    assert shown["tasks"][0]["status"] == "COMPLETED"
    report = Task.objects.get().report
    assert (report["exit_code"], report["stdout"], report["stderr"]) == (3, "out", "err")
    assert (Executor.objects.get().jobs_done, Executor.objects.get().jobs_failed) == (1, 0)
    assert Activity.objects.get(code="job.completed").actor.startswith("token:")


def test_without_a_stated_result_the_output_is_the_result(executor: factories.Api, posted: Posted) -> None:
    posted()
    tell(executor, "complete", claimed(executor), stdout="  all well\n", exit_code=0)
    posted()
    tell(executor, "complete", claimed(executor), exit_code=7)
    assert list(Job.objects.order_by("created_at").values_list("result", flat=True)) == ["all well", "exit code 7"]


def test_a_failure_without_retries_fails_the_job(acme: factories.Api, executor: factories.Api, posted: Posted) -> None:
    job_id = posted()
    fields = {"error_message": "no disk", "error_code": "disk", "exit_code": 1, "stderr": "E"}
    answer = tell(executor, "fail", claimed(executor), **fields)
    assert answer.json()["data"] == {"job_id": job_id, "job_status": "FAILED"}
    shown = acme.get(f"/services/agent-jobs/{job_id}").json()["data"]
    assert (shown["error_code"], shown["error_message"], shown["result"]) == ("disk", "no disk", "disk: no disk")
    assert Task.objects.get().report["message"] == "no disk"
    assert (Executor.objects.get().jobs_done, Executor.objects.get().jobs_failed) == (0, 1)


def test_a_failure_is_retried_as_the_policy_says(executor: factories.Api, posted: Posted) -> None:
    policy = {"max_attempts": 2, "initial_interval_seconds": 60, "max_interval_seconds": 60}
    posted(config={"retry_policy": policy})
    answer = tell(executor, "fail", claimed(executor), error_message="first")
    assert answer.json()["data"]["job_status"] == "RUNNING"
    assert "next_attempt_at" in answer.json()["data"]
    assert claim(executor).status_code == 204
    Job.objects.update(wake_at=Now() - timedelta(seconds=1))
    wake_due()
    second = claimed(executor, "e2")
    assert second["attempt"] == 2
    answer = tell(executor, "fail", second, "e2", error_message="second")
    assert answer.json()["data"]["job_status"] == "FAILED"
    kept = list(Task.objects.order_by("number").values_list("executor_id", "status"))
    assert kept == [("e1", "FAILED"), ("e2", "FAILED")]


def test_a_failure_that_would_come_again_is_not_retried(executor: factories.Api, posted: Posted) -> None:
    posted(config={"max_task_retries": 5})
    tell(executor, "fail", claimed(executor), error_message="wrong hash", is_retryable=False)
    assert Job.objects.get().status == "FAILED"


def test_a_heartbeat_extends_the_lease_and_keeps_the_progress(
    acme: factories.Api, executor: factories.Api, posted: Posted
) -> None:
    job_id = posted()
    job = claimed(executor)
    Job.objects.update(lease_until=Now() + timedelta(seconds=1))
    answer = tell(executor, "heartbeat", job, progress_percent=40, progress_message="step 2")
    assert answer.json()["data"] == {"job_id": job_id, "is_canceled": False, "lease_seconds": 30.0}
    assert Job.objects.filter(lease_until__gt=Now() + timedelta(seconds=25)).exists()
    tell(executor, "heartbeat", job)
    shown = acme.get(f"/services/agent-jobs/{job_id}").json()["data"]
    assert (shown["progress_percent"], shown["progress_message"]) == (40, "step 2")
    assert "progress_at" in shown


def test_progress_changes_the_etag_and_a_bare_heartbeat_does_not(
    acme: factories.Api, executor: factories.Api, posted: Posted
) -> None:
    job_id = posted()
    job = claimed(executor)
    tags = [acme.get(f"/services/agent-jobs/{job_id}")["ETag"]]
    for fields in ({}, {"progress_percent": 1}):
        tell(executor, "heartbeat", job, **fields)
        tags.append(acme.get(f"/services/agent-jobs/{job_id}")["ETag"])
    assert tags[0] == tags[1] != tags[2]


def test_the_next_attempt_begins_without_the_progress_of_the_last(executor: factories.Api, posted: Posted) -> None:
    posted()
    job = claimed(executor)
    tell(executor, "heartbeat", job, progress_percent=90, progress_message="nearly")
    tell(executor, "release", job)
    claimed(executor)
    assert Job.objects.values_list("progress_percent", "progress_message").get() == (None, "")


def test_a_cancel_reaches_the_executor_in_its_next_heartbeat(
    acme: factories.Api, executor: factories.Api, posted: Posted
) -> None:
    job_id = posted()
    job = claimed(executor)
    assert acme.delete(f"/services/agent-jobs/{job_id}").status_code == 200
    answer = tell(executor, "heartbeat", job)
    assert answer.json()["data"] == {"job_id": job_id, "is_canceled": True, "lease_seconds": 0.0}


def test_a_released_job_is_ready_at_once_and_nothing_is_counted(executor: factories.Api, posted: Posted) -> None:
    job_id = posted()
    answer = tell(executor, "release", claimed(executor), reason="going down")
    assert answer.json()["data"] == {"job_id": job_id, "job_status": "WAITING"}
    again = claimed(executor, "e2")
    assert (again["job_id"], again["lease_token"] > 1) == (job_id, True)
    job = Job.objects.get()
    assert (job.crash_count, job.failed_attempts) == (0, 0)
    assert Task.objects.get(number=1).status == "RELEASED"
    assert "released by executor e1: going down" in Activity.objects.get(code="job.taken_back").note


def test_a_lapsed_lease_gives_the_job_to_another_executor(executor: factories.Api, posted: Posted) -> None:
    job_id = posted()
    first = claimed(executor)
    lapse(job_id)
    second = claimed(executor, "e2")
    assert Task.objects.get(number=1).status == "TIMEOUT"
    late = tell(executor, "complete", first, stdout="late")
    assert (late.status_code, late.json()["code"]) == (409, "lease_lost")
    assert tell(executor, "complete", second, "e2", result="mine").status_code == 200
    assert Job.objects.get().result == "mine"


def test_three_lost_executors_fail_the_job(executor: factories.Api, posted: Posted) -> None:
    job_id = posted()
    for number in range(3):
        claimed(executor, f"e{number}")
        lapse(job_id)
    job = Job.objects.get()
    assert (job.status, job.error_code) == ("FAILED", "executor_lost")
    assert claim(executor).status_code == 204


def test_clocks_of_executors_do_not_matter(executor: factories.Api, posted: Posted) -> None:
    """Requests carry no time that counts; a Date header that is an hour off changes nothing."""
    posted()
    job = claimed(executor)
    body = {"executor_id": "e1", "lease_token": job["lease_token"]}
    path = f"/services/executors/jobs/{job['job_id']}/heartbeat"
    for date in ("Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"):
        assert executor.put(path, body, Date=date).status_code == 200
    assert Job.objects.filter(lease_until__lt=Now() + timedelta(seconds=31)).exists()


LEASE_OVER = "the lease of this attempt is over: the job was taken back or released"
TOO_LATE: dict[str, tuple[Callable[[factories.Api, factories.Api, dict[str, Any]], object], str, str]] = {
    "completed twice": (
        lambda acme, executor, job: tell(executor, "complete", job, result="1"),
        "already_reported",
        "the end of this attempt has been reported already",
    ),
    "completed after it failed": (
        lambda acme, executor, job: tell(executor, "fail", job, error_message="x"),
        "already_reported",
        "the end of this attempt has been reported already",
    ),
    "after a cancel": (
        lambda acme, executor, job: acme.delete(f"/services/agent-jobs/{job['job_id']}"),
        "job_canceled",
        "the job is CANCELED",
    ),
    "after the deadline": (
        lambda acme, executor, job: (Job.objects.update(deadline_at=Now()), recovery.fail_overdue()),
        "job_ended",
        "the job is FAILED: deadline_exceeded",
    ),
    "after a release": (lambda acme, executor, job: tell(executor, "release", job), "lease_lost", LEASE_OVER),
    "after the lease": (lambda acme, executor, job: lapse(job["job_id"]), "lease_lost", LEASE_OVER),
}


@pytest.mark.parametrize("case", TOO_LATE)
@pytest.mark.parametrize("verb", ["complete", "fail", "release"])
def test_a_report_that_comes_too_late_is_a_409_and_changes_nothing(
    acme: factories.Api, executor: factories.Api, posted: Posted, case: str, verb: str
) -> None:
    happens, code, sentence = TOO_LATE[case]
    posted()
    job = claimed(executor)
    happens(acme, executor, job)
    before = states()
    answer = tell(executor, verb, job, **({"error_message": "x"} if verb == "fail" else {}))
    assert (answer.status_code, answer.json()["code"], answer.json()["message"]) == (409, code, sentence)
    assert states() == before


@pytest.mark.parametrize("verb", ["heartbeat", "complete", "fail", "release"])
@pytest.mark.parametrize(("executor_id", "shift"), [("e2", 0), ("e1", 1), ("e1", -1)])
def test_another_executor_or_another_token_changes_nothing(
    executor: factories.Api, posted: Posted, verb: str, executor_id: str, shift: int
) -> None:
    posted()
    job = claimed(executor)
    before = states()
    other = {**job, "lease_token": job["lease_token"] + shift}
    answer = tell(executor, verb, other, executor_id, **({"error_message": "x"} if verb == "fail" else {}))
    assert (answer.status_code, answer.json()["code"]) == (409, "lease_lost")
    assert answer.json()["message"] == "this executor does not hold the job under this lease token"
    assert states() == before


@pytest.mark.parametrize("verb", ["heartbeat", "complete", "fail", "release"])
def test_a_job_of_nobody_or_of_another_runner_is_a_404(executor: factories.Api, verb: str) -> None:
    rows.job_type()
    of_worker = rows.job(org_id="acme")
    for job_id in (of_worker.pk, "01930000-0000-7000-8000-000000000000", "x"):
        job = {"job_id": job_id, "lease_token": 0}
        answer = tell(executor, verb, job, **({"error_message": "x"} if verb == "fail" else {}))
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


@pytest.mark.parametrize(
    ("verb", "fields", "named"),
    [
        ("heartbeat", {"lease_token": None}, "lease_token"),
        ("heartbeat", {"lease_token": "1"}, "lease_token"),
        ("heartbeat", {"progress_percent": 101}, "progress_percent"),
        ("heartbeat", {"progress_percent": 50.5}, "progress_percent"),
        ("heartbeat", {"progress_message": "x" * 1_001}, "progress_message"),
        ("complete", {"exit_code": "0"}, "exit_code"),
        ("complete", {"exit_code": 2**31}, "exit_code"),
        ("complete", {"stdout": ["x"]}, "stdout"),
        ("complete", {"result": "x" * (1024 * 1024 + 1)}, "result"),
        ("complete", {"result_data": {"x": "y" * 1024 * 1024}}, "result_data"),
        ("complete", {"output": "x"}, "output"),
        ("fail", {}, "error_message"),
        ("fail", {"error_message": ""}, "error_message"),
        ("fail", {"error_message": "x", "error_code": "no blanks"}, "error_code"),
        ("fail", {"error_message": "x", "is_retryable": "no"}, "is_retryable"),
        ("release", {"reason": "x" * 1_001}, "reason"),
    ],
)
def test_a_malformed_report_is_a_400_that_names_the_field(
    executor: factories.Api, posted: Posted, verb: str, fields: dict[str, Any], named: str
) -> None:
    posted()
    job = claimed(executor)
    before = states()
    answer = executor.put(
        f"/services/executors/jobs/{job['job_id']}/{verb}",
        {"executor_id": "e1", "lease_token": job["lease_token"], **fields},
    )
    assert answer.status_code == 400
    assert factories.fields_of(answer) == [named]
    assert states() == before


def test_output_of_any_bytes_is_kept_readable_and_capped(executor: factories.Api, posted: Posted) -> None:
    posted()
    job = claimed(executor)
    head = json.dumps({"executor_id": "e1", "lease_token": job["lease_token"]})[:-1].encode()
    noisy = b'"NUL \\u0000, half \\ud800, raw \xff\xc3 end"'
    huge = b'"' + "é".encode() * 1_500_000 + b'"'
    body = head + b', "stdout": ' + huge + b', "stderr": ' + noisy + b', "result_data": {"k": "\\u0000\\udfff"}}'
    answer = executor.send("PUT", f"/services/executors/jobs/{job['job_id']}/complete", raw=body)
    assert answer.status_code == 200, answer.content
    report = Task.objects.get().report
    assert len(report["stdout"].encode()) <= 1024 * 1024
    assert "bytes left out" in report["stdout"]
    assert "\ufffd" not in report["stdout"]
    assert report["stdout_bytes_total"] == 3_000_000
    assert report["stderr"].startswith("NUL \ufffd, half \ufffd")
    assert report["stderr"].endswith(" end")
    assert Job.objects.get().result_data == {"k": "\ufffd\ufffd"}


@pytest.mark.parametrize(("verb", "size", "status"), [("complete", 16, 413), ("fail", 16, 413), ("heartbeat", 0, 413)])
def test_a_body_that_is_too_long_is_a_413(
    executor: factories.Api, posted: Posted, verb: str, size: int, status: int
) -> None:
    posted()
    job = claimed(executor)
    most = size * 1024 * 1024 or 256 * 1024
    raw = b'{"executor_id": "e1", "x": "' + b"x" * most + b'"}'
    answer = executor.send("PUT", f"/services/executors/jobs/{job['job_id']}/{verb}", raw=raw)
    assert (answer.status_code, answer.json()["code"]) == (status, "body_too_large")


def test_executor_calls_are_exempt_from_the_rate_limits(
    executor: factories.Api, acme: factories.Api, posted: Posted, settings: Any
) -> None:
    posted()
    settings.RATE_TOKEN = settings.RATE_ORG = "1/minute"
    job = claimed(executor)
    for _ in range(5):
        assert tell(executor, "heartbeat", job).status_code == 200
    assert tell(executor, "complete", job).status_code == 200
    assert [acme.get("/services/executors").status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("verb", ["complete", "fail"])
def test_secrets_of_the_job_are_blotted_from_what_its_executor_says(
    executor: factories.Api, acme: factories.Api, posted: Posted, verb: str
) -> None:
    key, longer = "abc-123-xyz", "abc-123-xyz-long"
    job_id = posted(work={"environment": {"KEY": key, "LONGER": longer, "SHORT": "abc"}})
    job = claimed(executor)
    assert tell(executor, "heartbeat", job, progress_message=f"with {key}").status_code == 200
    assert acme.get(f"/services/agent-jobs/{job_id}").json()["data"]["progress_message"] == "with ******"
    result = {"result": f"the abc of {key}", "result_data": {"of": [key, {key: 1}]}}
    told = {"complete": result, "fail": {"error_message": f"no {key}", "is_retryable": False}}
    output = {"stdout": f"{longer},{key}", "stderr": f"key={key}!"}

    assert tell(executor, verb, job, **output, **told[verb]).status_code == 200

    (task,) = acme.get(f"/services/agent-jobs/{job_id}/tasks").json()["data"]
    report = acme.get(f"/services/agent-jobs/{job_id}/tasks/{task['task_id']}").json()["data"]["report"]
    assert (report["stdout"], report["stderr"]) == ("******,******", "key=******!")
    shown = acme.get(f"/services/agent-jobs/{job_id}").json()["data"]
    assert shown.get("result_data") == ({"of": ["******", {"******": 1}]} if verb == "complete" else None)
    assert shown["result"] == {"complete": "the abc of ******", "fail": "executor_failed: no ******"}[verb]
    assert key not in str([*Job.objects.values(), *Task.objects.values(), *Activity.objects.values()])


def test_a_job_may_let_outputs_show_all_variables_but_credentials(
    executor: factories.Api, acme: factories.Api, posted: Posted
) -> None:
    environment = {"MONTH": "2024-01", "DB_PASSWORD": "hunter-22", "QUEUE": "redis://ann:s3cret@host/0"}
    job_id = posted(work={"environment": environment}, config={"output_masks": "credentials"})
    job = claimed(executor)

    said = "2024-01-15: hunter-22 at redis://ann:s3cret@host/0"
    assert tell(executor, "complete", job, stdout=said).status_code == 200

    assert acme.get(f"/services/agent-jobs/{job_id}").json()["data"]["result"] == "2024-01-15: ****** at ******"


def test_a_job_whose_secrets_cannot_be_opened_fails_and_the_next_one_is_given(
    executor: factories.Api, posted: Posted
) -> None:
    broken, fine = posted({"environment": {"K": "v"}}), posted()
    Job.objects.filter(pk=broken).update(sealed_work="k1:AAAA")
    jobs = claim(executor, max_jobs=2).json()["data"]
    assert [job["job_id"] for job in jobs] == [fine]
    assert Job.objects.get(pk=broken).error_code == "secret_unavailable"


def test_the_newest_attempt_of_an_executor_is_found_without_a_token(executor: factories.Api, posted: Posted) -> None:
    job_id = posted()
    first = claimed(executor)
    lapse(job_id)
    second = claimed(executor)
    found = attempts.newest("acme", Job.objects.get().pk, "e1")
    assert found.lease_token == second["lease_token"] > first["lease_token"]
    with pytest.raises(Exception, match="has not claimed"):
        attempts.newest("acme", Job.objects.get().pk, "e2")
    with pytest.raises(Exception, match="there is no job"):
        attempts.newest("rival", Job.objects.get().pk, "e1")


def test_a_door_without_heartbeats_begins_a_certain_job_with_a_long_lease(posted: Posted) -> None:
    posted()
    job_id = posted({"labels": ["none-has-it"]})
    begun = claiming.begin(
        "acme", Job.objects.get(pk=job_id).pk, Claimant("door"), actor=rows.TESTER, lease=timedelta(hours=2)
    )
    assert Job.objects.filter(pk=job_id, lease_until__gt=Now() + timedelta(minutes=110)).exists()
    reporting.complete("acme", begun.attempt, AttemptReport(result="ok"), actor=rows.TESTER)
    assert Job.objects.get(pk=job_id).status == "COMPLETED"
    with pytest.raises(Exception, match="COMPLETED"):
        claiming.begin("acme", Job.objects.get(pk=job_id).pk, Claimant("door"), actor=rows.TESTER)


@pytest.mark.django_db(transaction=True)
class TestRaces:
    def test_of_a_cancel_and_a_claim_exactly_one_comes_first(
        self, acme: factories.Api, executor: factories.Api, posted: Posted
    ) -> None:
        for _ in range(10):
            job_id = posted()
            canceled, given = in_threads(
                lambda job_id=job_id: acme.delete(f"/services/agent-jobs/{job_id}"), lambda: claim(executor)
            )
            assert canceled.status_code == 200
            job = Job.objects.get(pk=job_id)
            assert job.status == "CANCELED"
            if given.status_code == 200:
                (job_given,) = given.json()["data"]
                assert tell(executor, "complete", job_given).json()["code"] == "job_canceled"
            else:
                assert not Task.objects.filter(job_id=job_id).exists()

    def test_of_many_reports_one_is_written(self, executor: factories.Api, posted: Posted) -> None:
        posted()
        job = claimed(executor)
        works = [lambda n=n: tell(executor, "complete", job, result=str(n)) for n in range(6)]
        works += [lambda: tell(executor, "fail", job, error_message="x") for _ in range(2)]
        codes = sorted(answer.status_code for answer in in_threads(*works))
        assert codes == [200] + [409] * 7
        assert Activity.objects.filter(moved_to__in=["COMPLETED", "FAILED"]).count() == 1

    def test_a_report_and_the_sweep_of_a_lapsed_lease_never_both_win(
        self, executor: factories.Api, posted: Posted
    ) -> None:
        for _ in range(10):
            job_id = posted()
            job = claimed(executor)
            Job.objects.filter(pk=job_id).update(lease_until=Now() - timedelta(seconds=1))
            answer, taken = in_threads(
                lambda job=job: tell(executor, "complete", job, result="1"), recovery.take_back_lost
            )
            row = Job.objects.get(pk=job_id)
            assert (answer.status_code, taken, row.status) in {(200, 0, "COMPLETED"), (409, 1, "WAITING")}
            Job.objects.filter(status="WAITING").update(queue_at=F("queue_at") + timedelta(days=1), lane="elsewhere")
