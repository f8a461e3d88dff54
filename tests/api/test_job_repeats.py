"""Retry, replay and explanation over HTTP."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from agent_jobs.jobs import admission
from agent_jobs.models import Job, Org, Step, WorkerProcess
from agent_jobs.states import JobStatus
from tests import factories, rows
from tests.api.clients import at_once

pytestmark = pytest.mark.django_db
JOBS = "/services/agent-jobs"
HOUR = timedelta(hours=1)


def failed(**columns):
    defaults = {"error_code": "worker_lost", "error_message": "gone", "result": "worker_lost: gone"}
    return rows.job(JobStatus.FAILED, params={"name": "Ann"}, **defaults | columns)


# --- Retry -----------------------------------------------------------------------------------------------------
class TestRetry:
    def test_a_failed_job_waits_again(self, acme):
        job = failed()

        response = acme.post(f"{JOBS}/{job.pk}/retry", {"reason": "the provider is back"})

        body = response.json()
        assert response.status_code == 200
        assert body["message"] == f"Job with ID '{job.pk}' successfully reopened"
        assert body["meta"]["job_id"] == body["data"]["job_id"] == str(job.pk)
        shown = body["data"]
        assert (shown["job_status"], shown["retry_count"], shown["result"]) == ("WAITING", 1, None)
        assert not {"error_code", "error_message", "started_at", "finished_at", "deadline_at"} & set(shown)
        assert shown["execution_log"][-1].endswith("WAITING: retried: the provider is back")

    @pytest.mark.parametrize("body", [None, {}, {"reason": ""}])
    def test_the_body_is_optional(self, acme, body):
        job = rows.job(JobStatus.CANCELED)

        assert acme.post(f"{JOBS}/{job.pk}/retry", body).status_code == 200

    @pytest.mark.parametrize("status", [JobStatus.SCHEDULED, JobStatus.WAITING, JobStatus.RUNNING, JobStatus.COMPLETED])
    def test_any_other_job_is_a_409_that_says_its_status(self, acme, status):
        job = rows.job(status)

        response = acme.post(f"{JOBS}/{job.pk}/retry")

        assert (response.status_code, response.json()["code"]) == (409, "illegal_move")
        assert f"the job is {status} and cannot be retried" in response.json()["message"]
        assert Job.objects.get().retry_count == 0

    @pytest.mark.parametrize(
        ("body", "field"), [({"reason": 5}, "reason"), ({"reason": "x" * 1_001}, "reason"), ({"a": 1}, "a")]
    )
    def test_a_bad_body_is_a_400(self, acme, body, field):
        response = acme.post(f"{JOBS}/{failed().pk}/retry", body)

        assert response.status_code == 400
        assert factories.fields_of(response) == [field]
        assert Job.objects.get().retry_count == 0

    @pytest.mark.parametrize("job_id", ["x", "01930000-0000-7000-8000-000000000000"])
    def test_a_job_that_is_not_there_is_a_404(self, acme, job_id):
        assert acme.post(f"{JOBS}/{job_id}/retry").json()["code"] == "job_not_found"

    def test_another_organizations_job_is_a_403_with_a_constant_body(self, rival):
        response = rival.post(f"{JOBS}/{failed().pk}/retry")

        assert (response.status_code, response.json()["code"]) == (403, "job_of_another_organization")
        assert Job.objects.get().status == JobStatus.FAILED

    def test_reading_is_not_enough(self, reader):
        assert reader.post(f"{JOBS}/{failed().pk}/retry").status_code == 403

    def test_an_organization_without_room_is_a_429(self, acme):
        job = failed()
        Org.objects.update(max_waiting_jobs=0)
        admission._counts.clear()

        response = acme.post(f"{JOBS}/{job.pk}/retry")

        assert (response.status_code, response.json()["code"]) == (429, "too_many_waiting_jobs")
        assert int(response["Retry-After"]) > 0

    def test_a_channel_that_is_gone_is_a_409(self, acme):
        job = failed(platform="slack", channel_code="C123456", channel_data={"team_id": "T1"})

        assert acme.post(f"{JOBS}/{job.pk}/retry").json()["code"] == "channel_unreachable"

    def test_the_same_key_retries_once_and_gives_the_first_answer(self, acme):
        job = failed()

        answers = [acme.post(f"{JOBS}/{job.pk}/retry", Idempotency_Key="k1") for _ in range(2)]

        assert [answer.status_code for answer in answers] == [200, 200]
        assert answers[0].content == answers[1].content
        assert Job.objects.get().retry_count == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("headers", "expected"), [({}, [200] + [409] * 19), ({"Idempotency_Key": "k1"}, [200] * 20)])
def test_20_retries_at_once_are_one(headers, expected):
    job = failed()
    token = factories.token()

    answers = at_once(20, lambda _: factories.Api(token).post(f"{JOBS}/{job.pk}/retry", **headers))

    assert sorted(answer.status_code for answer in answers) == expected
    assert Job.objects.get().retry_count == 1


# --- Replay ----------------------------------------------------------------------------------------------------
class TestReplay:
    @pytest.fixture
    def source(self, acme):
        body = factories.job_request(
            tags=["a"], priority=7, config={"max_follow_ups": 2}, params={"name": "Ann", "n": 1}
        )
        return acme.post(JOBS, body).json()["data"]

    def test_a_new_job_is_made_from_the_same_input(self, acme, source):
        response = acme.post(f"{JOBS}/{source['id']}/replay")

        shown = response.json()["data"]
        assert response.status_code == 201
        assert response.json()["meta"]["id"] == shown["id"] != source["id"]
        assert shown["replay_of"] == source["id"]
        for name in ("params", "config", "tags", "priority", "platform", "channel_code", "job_type_id", "job_status"):
            assert shown[name] == source[name]
        assert "replay_of" not in source
        (detail, listed) = (
            acme.get(f"{JOBS}/{shown['id']}").json()["data"],
            acme.get(JOBS, {"replay_of": source["id"]}).json()["data"],
        )
        assert detail["replay_of"] == source["id"]
        assert [(job["id"], job["replay_of"]) for job in listed] == [(shown["id"], source["id"])]

    def test_the_body_says_what_shall_be_otherwise(self, acme, source):
        at = (datetime.now(UTC) + HOUR).replace(microsecond=0)
        body = {
            "target_channel": {"org_id": "acme", "platform": "web", "code": "attic"},
            "params": {"n": None, "m": {"deep": 1}},
            "config": {"max_follow_ups": None, "max_task_retries": 1},
            "scheduled_at": at.isoformat(),
            "tags": "b,c",
            "priority": 1,
        }

        shown = acme.post(f"{JOBS}/{source['id']}/replay", body).json()["data"]

        assert (shown["channel_code"], shown["tags"], shown["priority"]) == ("attic", "b,c", 1)
        assert shown["params"] == {"name": "Ann", "m": {"deep": 1}}
        assert shown["config"] == {"start_prompt": "Hello {{ name }}", "max_task_retries": 1}
        assert shown["job_status"] == "SCHEDULED"
        assert datetime.fromisoformat(shown["scheduled_at"]) == at

    def test_the_steps_below_a_number_are_taken_over(self, acme, source):
        kept = {"org_id": "acme", "job_id": source["id"], "life": 0, "turn": 0, "kind": "model", "name": "m"}
        for number in (1, 2):
            Step.objects.create(**kept, number=number, output={"text": str(number)})

        shown = acme.post(f"{JOBS}/{source['id']}/replay", {"from_step": 2}).json()["data"]

        assert list(Step.objects.filter(job_id=shown["id"]).values_list("number", "output")) == [(1, {"text": "1"})]

    def test_a_delay_is_drawn_as_for_a_new_job(self, acme, source):
        shown = acme.post(f"{JOBS}/{source['id']}/replay?delay=10").json()["data"]

        assert (shown["job_status"], shown["delay_minutes"]) == ("SCHEDULED", 10)
        assert 0 <= shown["delay_seconds"] <= 600

    @pytest.mark.parametrize(
        ("body", "query", "fields"),
        [
            ({"params": []}, "", ["params"]),
            ({"config": {"max_follow_ups": "3"}}, "", ["config.max_follow_ups"]),
            ({"config": {"colour": None}}, "", ["config.colour"]),
            ({"config": {"start_prompt": "{{ nobody }}"}}, "", ["config.start_prompt"]),
            ({"target_channel": {"org_id": "acme"}}, "", ["target_channel.platform", "target_channel.code"]),
            (
                {"target_channel": {"org_id": "acme", "platform": "pigeon", "code": "x"}},
                "",
                ["target_channel.platform"],
            ),
            ({"scheduled_at": "tomorrow"}, "", ["scheduled_at"]),
            ({"scheduled_at": "2100-01-01T00:00:00Z"}, "", ["scheduled_at"]),
            ({"tags": 5}, "", ["tags"]),
            ({"priority": 10}, "", ["priority"]),
            ({"job_type_id": "other"}, "", ["job_type_id"]),
            ({"from_step": 0}, "", ["from_step"]),
            ({"from_step": "2"}, "", ["from_step"]),
            ({"from_step": 10_001}, "", ["from_step"]),
            ({"from_step": 2}, "", ["from_step"]),
            (None, "?delay=10081", ["delay"]),
            (None, "?delya=1", ["delya"]),
        ],
    )
    def test_what_does_not_hold_is_a_400_and_makes_nothing(self, acme, source, body, query, fields):
        response = acme.post(f"{JOBS}/{source['id']}/replay{query}", body)

        assert response.status_code == 400, response.content
        assert factories.fields_of(response) == fields
        assert Job.objects.count() == 1

    @pytest.mark.parametrize("org_id", ["rival", "unknown"])
    def test_a_channel_of_another_organization_is_a_404(self, acme, rival, source, org_id):
        channel = {"org_id": org_id, "platform": "web", "code": "lobby"}

        response = acme.post(f"{JOBS}/{source['id']}/replay", {"target_channel": channel})

        assert (response.status_code, response.json()["code"]) == (404, "org_not_found")

    def test_another_organizations_job_is_a_403_and_a_missing_one_a_404(self, acme, rival, source):
        assert rival.post(f"{JOBS}/{source['id']}/replay").status_code == 403
        assert acme.post(f"{JOBS}/{uuid7()}/replay").status_code == 404
        assert Job.objects.count() == 1

    def test_a_job_type_that_is_gone_is_a_404(self, acme, source):
        acme.delete("/services/organizations/acme/agent-jobs-type/greet")

        assert acme.post(f"{JOBS}/{source['id']}/replay").json()["code"] == "job_type_not_found"

    def test_the_same_key_makes_one_job(self, acme, source):
        answers = [acme.post(f"{JOBS}/{source['id']}/replay", Idempotency_Key="k1") for _ in range(2)]

        assert answers[0].content == answers[1].content
        assert Job.objects.count() == 2

    def test_a_filter_by_what_is_no_id_is_a_400(self, acme):
        response = acme.get(JOBS, {"replay_of": "x"})

        assert (response.status_code, factories.fields_of(response)) == (400, ["replay_of"])


# --- Explanation -----------------------------------------------------------------------------------------------
class TestExplanation:
    def test_it_is_told_where_it_is_asked_for(self, acme):
        WorkerProcess.objects.create(name="w", worked_at=Now())
        rows.job_type()
        type(rows.job_type()).objects.update(max_running_per_channel=1)
        holder, waiting = rows.job(JobStatus.RUNNING), rows.job()

        shown = acme.get(f"{JOBS}/{waiting.pk}", {"include": "explanation"}).json()["data"]

        assert shown["explanation"] == {
            "state": "Only one of the jobs of type 'greet' in web:lobby may run at a time, and one does.",
            "rule": "channel_cap",
            "blocked_by": [{"kind": "job", "id": str(holder.pk), "state": "RUNNING"}],
            "place_in_queue": 1,
            "estimated_start": None,
            "unblocks": [f"job {holder.pk} ending"],
            "left_out_tools": [],
        }
        assert "Activities" not in shown
        assert "explanation" not in acme.get(f"{JOBS}/{waiting.pk}").json()["data"]

    def test_it_comes_with_activities_too(self, acme):
        shown = acme.get(f"{JOBS}/{failed().pk}", {"include": "explanation,activities"}).json()["data"]

        assert shown["explanation"]["rule"] == "ended"
        assert shown["Activities"] == []

    def test_a_list_has_none(self, acme):
        assert acme.get(JOBS, {"include": "explanation"}).status_code == 400
