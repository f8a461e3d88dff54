"""One job through the API: posted, shown, canceled, in every field that the document promises."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.db.models.functions import Now

from agent_jobs.models import Activity, Job, Message, Task
from agent_jobs.states import JobStatus
from tests import factories, rows

pytestmark = pytest.mark.django_db
JOBS = "/services/agent-jobs"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
DOCUMENTED = {
    *("job_id", "org_id", "channel_code", "job_type_id", "job_status", "created_at", "updated_at", "scheduled_at"),
    *("tasks", "result", "params", "config"),
}
ALWAYS = DOCUMENTED | {
    *("id", "job_config", "platform", "channel_data", "tags", "flags", "last_task_created_at", "execution_log"),
    *("activities_count", "priority", "time_spent", "state_since"),
}
MAY_BE_NULL = {"result", "last_task_created_at"}


def created(api, **fields):
    response = api.post(JOBS, factories.job_request(**fields))
    assert response.status_code == 201, response.content
    return response.json()


def test_a_posted_job_answers_with_every_documented_field(acme):
    body = created(acme)

    job = Job.objects.get()
    shown = body["data"]
    assert set(shown) >= ALWAYS
    assert shown["job_id"] == shown["id"] == body["meta"]["id"] == str(job.pk)
    assert body["meta"] == {"org_id": "acme", "id": str(job.pk)}
    assert (shown["org_id"], shown["channel_code"], shown["job_type_id"]) == ("acme", "lobby", "greet")
    assert (shown["job_status"], shown["tasks"], shown["result"]) == ("WAITING", [], None)
    assert shown["params"] == {"name": "Ann"}
    assert shown["config"] == shown["job_config"] == {"start_prompt": "Hello {{ name }}"}
    assert all(TIME.fullmatch(shown[field]) for field in ("created_at", "updated_at", "scheduled_at"))
    assert shown["flags"] == {
        "is_new_channel": True,
        "has_human_reply": False,
        "first_reply_at": None,
        "ignore_cooldown": False,
    }
    assert shown["last_task_created_at"] is None
    assert shown["activities_count"] == 1
    assert len(shown["execution_log"]) == 1


def test_what_was_posted_is_what_is_shown(acme):
    target = {"org_id": "acme", "platform": "web", "code": "desk", "type": "channel", "data": {"a": [1, None]}}

    posted = created(
        acme, target_channel=target, tags=["x", "y"], priority=7, config={"max_follow_ups": 2}, params={"name": "Bö"}
    )["data"]

    shown = acme.get(f"{JOBS}/{posted['id']}").json()["data"]
    assert shown == posted
    assert (shown["channel_code"], shown["channel_type"], shown["channel_data"]) == (
        "desk",
        "channel",
        {"a": [1, None], "platform": "web", "channel_id": "desk"},
    )
    assert (shown["tags"], shown["priority"]) == ("x,y", 7)
    assert shown["config"] == {"start_prompt": "Hello {{ name }}", "max_follow_ups": 2}


def test_channel_data_says_the_platform_and_what_else_is_known(acme, admin):
    admin.post("/services/channels", {"platform": "web", "code": "desk", "name": "Front desk"})
    rows.job(channel_code="desk", thread="17.5", channel_data={"b": 1, "a": 2})
    known = {"b": 1, "a": 2, "platform": "web", "channel_id": "desk", "name": "Front desk", "thread_id": "17.5"}

    (listed,) = acme.get(JOBS).json()["data"]

    assert list(listed["channel_data"].items()) == list(known.items())
    assert acme.get(f"{JOBS}/{listed['id']}").json()["data"]["channel_data"] == known


def test_what_a_client_says_in_channel_data_is_not_changed(acme):
    rows.job(channel_data={"platform": "irc", "channel_id": 5, "name": "n", "thread_id": None}, thread="1")

    (listed,) = acme.get(JOBS).json()["data"]

    assert listed["channel_data"] == {"platform": "irc", "channel_id": 5, "name": "n", "thread_id": None}


def test_the_strangers_name_of_a_channel_is_not_shown(acme, rival_admin):
    rival_admin.post("/services/channels", {"platform": "web", "code": "lobby", "name": "Theirs"})
    rows.job()

    assert "Theirs" not in acme.get(JOBS).content.decode()


def test_nothing_is_null_but_what_the_document_says(acme):
    created(acme)
    job = rows.job(JobStatus.RUNNING)
    Task.objects.create(job=job, number=1, lease_token=1)
    factories.activity(job)

    def nulls(value, path=""):
        if value is None:
            yield path
        for key, inner in value.items() if isinstance(value, dict) else ():
            yield from nulls(inner, f"{path}.{key}")
        for inner in value if isinstance(value, list) else ():
            yield from nulls(inner, path)

    shown = acme.get(f"{JOBS}?include=activities,stats").json()
    allowed = {".data.result", ".data.last_task_created_at", ".data.flags.first_reply_at", ".data.tasks.result"}
    assert set(nulls(shown)) <= allowed


@pytest.mark.parametrize(("sent", "shown"), [("a, b,a", "a,b"), (["b", "a"], "b,a"), ([], ""), ("", "")])
def test_tags_are_a_list_or_a_text_with_commas(acme, sent, shown):
    assert created(acme, tags=sent)["data"]["tags"] == shown


def test_a_time_ahead_makes_a_scheduled_job(acme):
    at = (datetime.now(UTC) + timedelta(days=2)).replace(microsecond=0)

    shown = created(acme, scheduled_at=at.strftime("%Y-%m-%dT%H:%M:%SZ"))["data"]

    assert shown["job_status"] == "SCHEDULED"
    assert shown["scheduled_at"] == shown["requested_scheduled_at"] == at.strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    assert (shown["delay_minutes"], shown["delay_seconds"]) == (0, 0)


def test_an_offset_and_a_plain_date_are_times_too(acme):
    day = datetime.now(UTC).date() + timedelta(days=2)

    with_offset = created(acme, scheduled_at=f"{day}T01:30:00+02:00")["data"]
    plain = created(acme, scheduled_at=str(day))["data"]

    assert with_offset["scheduled_at"] == f"{day - timedelta(days=1)}T23:30:00.000000Z"
    assert plain["scheduled_at"] == f"{day}T00:00:00.000000Z"


def test_a_time_in_the_past_runs_now(acme):
    shown = created(acme, scheduled_at="2023-12-31T09:00:00Z")["data"]

    assert shown["job_status"] == "WAITING"
    assert shown["requested_scheduled_at"] == "2023-12-31T09:00:00.000000Z"
    assert shown["scheduled_at"] == shown["created_at"]


def test_a_delay_is_drawn_within_its_bounds(acme):
    response = acme.post(f"{JOBS}?delay=10", factories.job_request())

    shown = response.json()["data"]
    assert response.status_code == 201
    assert shown["job_status"] == "SCHEDULED"
    assert shown["delay_minutes"] == 10
    assert 0 <= shown["delay_seconds"] <= 600
    waits = datetime.fromisoformat(shown["scheduled_at"]) - datetime.fromisoformat(shown["created_at"])
    assert waits == timedelta(seconds=shown["delay_seconds"])


def test_the_detail_shows_tasks_log_and_outcome(acme):
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    job = rows.job(
        JobStatus.COMPLETED,
        result="done",
        result_data={"n": 1},
        thread="t1",
        inbox_count=1,
        first_reply_at=at,
        started_at=at,
        finished_at=at,
        deadline_at=at,
    )
    for number in (1, 2):
        status = "FAILED" if number == 1 else "COMPLETED"
        times = {"created_at": at + timedelta(minutes=number)}
        Task.objects.create(job=job, number=number, lease_token=number, status=status, result=f"r{number}", **times)
        factories.activity(job, note=f"n{number}", **times)

    shown = acme.get(f"{JOBS}/{job.pk}").json()["data"]

    assert [(task["status"], task["result"]) for task in shown["tasks"]] == [("FAILED", "r1"), ("COMPLETED", "r2")]
    assert set(shown["tasks"][0]) == {"task_id", "created_at", "status", "result"}
    assert shown["last_task_created_at"] == "2026-03-01T12:02:00.000000Z"
    assert shown["execution_log"] == ["2026-03-01T12:01:00.000000Z n1", "2026-03-01T12:02:00.000000Z n2"]
    assert (shown["result"], shown["result_data"], shown["chat_id"]) == ("done", {"n": 1}, "web:lobby:t1")
    assert shown["started_at"] == shown["finished_at"] == shown["deadline_at"] == "2026-03-01T12:00:00.000000Z"
    assert shown["flags"]["has_human_reply"]
    assert shown["flags"]["first_reply_at"] == "2026-03-01T12:00:00.000000Z"


def test_a_log_has_the_last_100_lines(acme):
    job = rows.job()
    for number in range(105):
        factories.activity(job, note=f"n{number}" if number != 50 else "")

    shown = acme.get(f"{JOBS}/{job.pk}").json()["data"]

    assert shown["activities_count"] == 105
    assert len(shown["execution_log"]) == 100
    assert [line.split()[1] for line in shown["execution_log"]] == [f"n{n}" for n in range(4, 105) if n != 50]


def test_what_a_job_waits_for_is_shown_while_it_waits(acme):
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    waits = {"waiting_for": "reply", "wake_at": at}
    outside = rows.job(JobStatus.RUNNING, lease_until=None, **waits)
    leased = rows.job(JobStatus.RUNNING, **waits)

    assert (
        acme.get(f"{JOBS}/{outside.pk}").json()["data"].items()
        >= {
            "waiting_for": "reply",
            "wake_at": "2026-03-01T12:00:00.000000Z",
        }.items()
    )
    assert not {"waiting_for", "wake_at"} & set(acme.get(f"{JOBS}/{leased.pk}").json()["data"])


def test_a_failed_job_says_why(acme):
    job = rows.job(JobStatus.FAILED, error_code="deadline_exceeded", error_message="too late")

    shown = acme.get(f"{JOBS}/{job.pk}").json()["data"]

    assert (shown["job_status"], shown["error_code"], shown["error_message"]) == (
        "FAILED",
        "deadline_exceeded",
        "too late",
    )


def test_the_detail_adds_activities_when_asked(acme):
    job = rows.job()
    at = datetime(2026, 3, 1, tzinfo=UTC)
    for number in range(60):
        factories.activity(job, note=str(number), created_at=at + timedelta(seconds=number))

    def asked(query):
        body = acme.get(f"{JOBS}/{job.pk}?{query}").json()
        return [int(activity["note"]) for activity in body["data"]["Activities"]], body["meta"]["activities_meta"]

    assert asked("include=activities") == (list(range(59, 9, -1)), {"count": 60, "limit": 50})
    assert asked("include=activities&include_limit=2") == ([59, 58], {"count": 60, "limit": 2})
    assert asked("include=activities&include_limit=2&include_sort=created_at")[0] == [0, 1]
    assert asked("include=activities&include_limit=100")[1] == {"count": 60, "limit": 100}
    plain = acme.get(f"{JOBS}/{job.pk}").json()
    assert "Activities" not in plain["data"]
    assert "activities_meta" not in plain["meta"]


@pytest.mark.parametrize("status", [JobStatus.SCHEDULED, JobStatus.WAITING, JobStatus.RUNNING])
@pytest.mark.parametrize("body", [None, {}, {"reason": "No longer needed"}])
def test_a_job_that_has_not_ended_is_canceled(acme, status, body):
    job = rows.job(status)

    response = acme.delete(f"{JOBS}/{job.pk}", body)

    assert response.status_code == 200
    answer = response.json()
    assert answer["meta"] == {"org_id": "acme", "job_id": str(job.pk)}
    assert answer["message"] == f"Job with ID '{job.pk}' successfully canceled"
    assert answer["data"]["job_status"] == "CANCELED"
    assert answer["data"] == acme.get(f"{JOBS}/{job.pk}").json()["data"]
    reason = (body or {}).get("reason", "")
    assert reason in Activity.objects.get(code="job.canceled").note


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED])
def test_a_job_that_has_ended_is_a_409(acme, status):
    job = rows.job(status)

    response = acme.delete(f"{JOBS}/{job.pk}")

    assert response.status_code == 409
    assert response.json()["code"] == "illegal_move"
    job.refresh_from_db()
    assert job.status == status


def test_people_are_told_by_which_app_a_job_was_stopped_and_not_by_which_token(acme):
    job = rows.job(JobStatus.RUNNING, config={"cancel_note": True})
    Message.objects.create(job=job, is_human=False, author="agent", text="Hi", delivered_at=Now())

    acme.delete(f"{JOBS}/{job.pk}", {"reason": "not needed"})

    assert Message.objects.latest("id").text == "I was stopped by test: not needed."


def test_a_second_cancel_is_refused(acme):
    job = rows.job()

    assert [acme.delete(f"{JOBS}/{job.pk}").status_code for _ in range(2)] == [200, 409]


def test_an_unknown_job_is_a_404(acme):
    unknown = "01930000-0000-7000-8000-000000000000"

    for response in (acme.get(f"{JOBS}/{unknown}"), acme.delete(f"{JOBS}/{unknown}")):
        assert (response.status_code, response.json()["code"]) == (404, "job_not_found")


def test_another_organizations_job_is_a_403_that_says_nothing_of_it(acme):
    answers = []
    for status in (JobStatus.WAITING, JobStatus.COMPLETED):
        job = rows.job(status, org_id="rival")
        for response in (acme.get(f"{JOBS}/{job.pk}"), acme.delete(f"{JOBS}/{job.pk}")):
            body = response.json()
            del body["meta"]
            answers.append((response.status_code, body))

    assert answers == [answers[0]] * 4
    assert answers[0][0] == 403


def test_both_prefixes_serve_the_same(acme):
    job = created(acme)["data"]

    assert acme.get(f"/api/v0{JOBS}/{job['id']}").json() == acme.get(f"{JOBS}/{job['id']}").json()
    assert acme.post(f"/api/v0{JOBS}", factories.job_request()).status_code == 201


def test_a_post_needs_few_statements(acme, django_assert_max_num_queries):
    created(acme)

    with django_assert_max_num_queries(12):
        created(acme)


def test_a_transcript_belongs_to_its_job_alone(acme):
    job = rows.job()
    Message.objects.create(job=job, is_human=True, author="eve", text="secret")

    assert "secret" not in acme.get(JOBS).content.decode()


# --- The document's examples -----------------------------------------------------------------------------------
EXAMPLE = {
    "target_channel": {
        "org_id": "org123",
        "platform": "slack",
        "type": "channel",
        "code": "C123456",
        "data": {"channel_id": "C123456", "team_id": "T123456"},
    },
    "job_type_id": "daily-report",
    "config": {
        "max_follow_ups": 3,
        "max_task_retries": 2,
        "task_retry_interval": 5,
        "max_time_to_complete": 60,
        "profile_id": "profile123",
    },
    "params": {"report_type": "daily", "include_metrics": True},
}


@pytest.fixture
def org123(db):
    api = factories.api("org123", "SERVICES:WRITE")
    slack = {"team_id": "T123456", "bot_token": "xoxb-1", "signing_secret": "0123456789abcdef"}
    admin = factories.api("org123", "SERVICES:ADMIN")
    assert admin.post("/services/channels/slack/installations", slack).status_code == 201
    types = "/services/organizations/org123/agent-jobs-type"
    made = api.post(types, {"id": "daily-report", "name": "Daily report", "default_config": {"start_prompt": "Hi"}})
    assert made.status_code == 201, made.content
    assert api.post("/services/organizations/org123/profiles", {"id": "profile123", "name": "P"}).status_code == 201
    return api


def test_the_documents_example_for_immediate_execution_holds(org123):
    response = org123.post(JOBS, EXAMPLE)

    assert response.status_code == 201, response.content
    shown = response.json()["data"]
    assert set(shown) >= DOCUMENTED
    assert shown["job_status"] == "WAITING"
    assert shown["config"] == {"start_prompt": "Hi"} | EXAMPLE["config"]
    assert shown["channel_data"] == {**EXAMPLE["target_channel"]["data"], "platform": "slack"}


def test_the_documents_example_for_a_scheduled_job_holds(org123):
    response = org123.post(JOBS, EXAMPLE | {"scheduled_at": "2023-12-31T09:00:00Z"})

    assert response.status_code == 201, response.content
    assert response.json()["data"]["requested_scheduled_at"] == "2023-12-31T09:00:00.000000Z"


def test_the_documents_example_for_filtering_holds(org123):
    org123.post(JOBS, EXAMPLE)

    query = "status=RUNNING&job_type_id=daily-report&limit=10&offset=0&sort=created_at:desc"
    body = org123.get(f"{JOBS}?{query}").json()

    assert body["data"] == []
    assert body["meta"].items() >= {"org_id": "org123", "limit": 10, "offset": 0, "total": 0}.items()
    assert body["meta"]["sort"] == [{"field": "created_at", "direction": "desc"}]


def test_the_documents_example_for_canceling_holds(org123):
    job_id = org123.post(JOBS, EXAMPLE).json()["data"]["job_id"]

    response = org123.delete(f"{JOBS}/{job_id}", {"reason": "No longer needed"})

    assert response.status_code == 200
    assert response.json()["message"] == f"Job with ID '{job_id}' successfully canceled"
