"""Many jobs at once: created, canceled and retried in one transaction, by ids or by filter."""

import json
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection

from agent_jobs.jobs import admission
from agent_jobs.models import Activity, Approval, Job, JobType, Org, Task
from agent_jobs.states import JobStatus
from channels_integration.models import OutboundMessage
from tests import factories, races, rows

pytestmark = pytest.mark.django_db
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "bulk.md"
JOBS = "/services/agent-jobs"
BULK = f"{JOBS}/bulk"
LIVING = [JobStatus.SCHEDULED, JobStatus.WAITING, JobStatus.RUNNING]
REOPENED = [JobStatus.FAILED, JobStatus.CANCELED]


def item(**fields: Any) -> dict[str, Any]:
    return factories.job_request(**fields)


def post(api, items, **fields):
    headers = {"Idempotency_Key": fields.pop("key")} if "key" in fields else {}
    return api.post(BULK, {"jobs": items, **fields}, **headers)


def outcomes(response):
    return [result["outcome"] for result in response.json()["data"]]


# --- Creating --------------------------------------------------------------------------------------------------
def test_all_are_created_in_their_order(acme):
    response = post(acme, [item(params={"name": f"n{place}"}, delay_minutes=place) for place in range(3)])

    assert response.status_code == 201, response.content
    results = response.json()["data"]
    assert [result["index"] for result in results] == [0, 1, 2]
    assert [result["job_status"] for result in results] == ["WAITING", "SCHEDULED", "SCHEDULED"]
    assert response.json()["meta"] == {"org_id": "acme", "count": 3, "created": 3, "existing": 0, "refused": 0}
    shown = [acme.get(f"{JOBS}/{result['job_id']}").json()["data"] for result in results]
    assert [job["params"]["name"] for job in shown] == ["n0", "n1", "n2"]
    assert [job["delay_minutes"] for job in shown] == [0, 1, 2]


def test_a_thousand_jobs_need_no_more_statements_than_ten(acme, django_assert_max_num_queries):
    post(acme, [item()])
    with django_assert_max_num_queries(60) as few:
        assert post(acme, [item(target_channel=place(f"a{n}")) for n in range(10)]).status_code == 201
    with django_assert_max_num_queries(60) as many:
        assert post(acme, [item() for n in range(1_000)]).status_code == 201

    assert len(many) <= len(few) + 2
    assert Job.objects.count() == 1_011


def place(code):
    return {"org_id": "acme", "platform": "web", "code": code}


@pytest.mark.parametrize(
    ("wrong", "status", "code", "fields"),
    [
        ({"params": {"name": 5}}, 400, "invalid", ["jobs.1.params.name"]),
        ({"params": []}, 400, "invalid", ["jobs.1.params"]),
        ({"config": {"max_follow_ups": -1}}, 400, "invalid", ["jobs.1.config.max_follow_ups"]),
        ({"priority": "soon"}, 400, "invalid", ["jobs.1.priority"]),
        ({"metadata": {"a": None}}, 400, "invalid", ["jobs.1.metadata.a"]),
        ({"target_channel": None}, 400, "invalid", ["jobs.1.target_channel"]),
        ({"target_channel": {"org_id": "acme", "platform": "web"}}, 400, "invalid", ["jobs.1.target_channel.code"]),
        ({"on_conflict": "return"}, 400, "invalid", ["jobs.1.on_conflict"]),
        ({"colour": "red"}, 400, "invalid", ["jobs.1.colour"]),
        ({"delay_minutes": 99_999}, 400, "invalid", ["jobs.1.delay_minutes"]),
        ({"job_type_id": "missing"}, 404, "job_type_not_found", ["jobs.1"]),
        ({"config": {"profile_id": "missing"}}, 404, "profile_not_found", ["jobs.1"]),
        ({"unique_key": "taken"}, 409, "duplicate_job", ["jobs.1"]),
        ({"target_channel": {"org_id": "rival", "platform": "web", "code": "c"}}, 404, "org_not_found", []),
    ],
)  # fmt: skip
def test_one_wrong_job_stops_all_and_is_named(acme, wrong, status, code, fields):
    JobType.objects.update(params_schema={"type": "object", "properties": {"name": {"type": "string"}}})
    acme.post(JOBS, item(unique_key="taken"))

    response = post(acme, [item(), item() | wrong, item()])

    assert (response.status_code, response.json()["code"]) == (status, code), response.content
    assert factories.fields_of(response) == fields
    assert Job.objects.count() == 1


def test_partial_creates_the_valid_ones_and_says_why_not_the_others(acme):
    wrong = [item(priority=77), "job", item(job_type_id="missing"), item(unique_key="k"), item(unique_key="k")]

    response = post(acme, [item(), *wrong, item()], partial=True)

    assert response.status_code == 200, response.content
    assert outcomes(response) == ["created", "refused", "refused", "refused", "created", "refused", "created"]
    results = response.json()["data"]
    assert [result["error"]["code"] for result in results if "error" in result] == [
        *("invalid", "invalid", "job_type_not_found", "duplicate_job"),
    ]
    assert results[1]["error"]["errors"][0]["field"] == "priority"
    assert results[5]["error"]["job_id"] == results[4]["job_id"]
    assert Job.objects.count() == 3


def test_an_existing_job_is_shown_in_its_place(acme):
    first = acme.post(JOBS, item(unique_key="k")).json()["data"]["id"]

    response = post(acme, [item(), item(unique_key="k", on_conflict="return")])

    assert response.status_code == 201
    assert outcomes(response) == ["created", "existing"]
    assert response.json()["data"][1]["job_id"] == first


def test_a_full_queue_stops_all(acme, monkeypatch):
    monkeypatch.setattr(admission, "_counts", {})
    Org.objects.filter(pk="acme").update(max_waiting_jobs=2)

    response = post(acme, [item() for _ in range(3)])

    assert (response.status_code, response.json()["code"]) == (429, "too_many_waiting_jobs")
    assert response["Retry-After"]
    assert Job.objects.count() == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"jobs": []}, "jobs"),
        ({"jobs": [{}] * 1_001}, "jobs"),
        ({"jobs": {}}, "jobs"),
        ({"jobs": "x"}, "jobs"),
        ({}, "jobs"),
        ({"jobs": [5]}, "jobs.0.item"),
        ({"jobs": [None]}, "jobs.0.item"),
        ({"jobs": [[]]}, "jobs.0.item"),
        ({"jobs": [{}], "partial": "yes"}, "partial"),
        ({"jobs": [{}], "all": True}, "all"),
    ],
)
def test_a_wrong_request_is_named(acme, body, field):
    response = acme.post(BULK, body)

    assert response.status_code == 400, response.content
    assert field in factories.fields_of(response)


def test_a_thousand_and_one_jobs_are_refused_with_a_sentence_and_none_is_made(acme):
    response = post(acme, [item() for _ in range(1_001)])

    assert (response.status_code, response.json()["code"]) == (400, "invalid")
    (error,) = response.json()["errors"]
    assert (error["field"], error["message"]) == ("jobs", "must have 1 to 1,000 jobs, and has 1,001")
    assert Job.objects.count() == 0


def test_a_body_may_have_four_mebibytes_and_not_more(acme):
    long = [item(params={"name": "Ann", "text": "x" * 1_000}) for _ in range(1_000)]
    assert len(json.dumps(long)) > 1024 * 1024
    assert post(acme, long).status_code == 201

    response = acme.send("POST", BULK, raw=b'{"jobs": ["' + b"x" * 4 * 1024 * 1024 + b'"]}')

    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
    assert "4194304 bytes" in response.json()["message"]
    assert acme.send("POST", JOBS, raw=b'{"a": "' + b"x" * 300_000 + b'"}').status_code == 413


def test_a_repeated_request_makes_the_jobs_once(acme):
    first, second = (post(acme, [item(), item()], key="k") for _ in range(2))

    assert first.content == second.content
    assert second["Idempotency-Replayed"] == "true"
    assert Job.objects.count() == 2
    assert post(acme, [item()], key="k").status_code == 422


# --- Canceling and retrying ------------------------------------------------------------------------------------
def change(api, verb, **fields):
    return api.post(f"{BULK}/{verb}", fields)


def statuses(jobs):
    return [Job.objects.get(pk=job.pk).status for job in jobs]


def ids(jobs):
    return [str(job.pk) for job in jobs]


def test_cancel_ends_what_has_not_ended_and_refuses_the_rest(acme):
    living, ended = [rows.job(status) for status in LIVING], rows.job(JobStatus.COMPLETED)
    task = Task.objects.create(job=living[2], number=1, lease_token=1)

    response = change(acme, "cancel", ids=ids([*living, ended]), reason="paused")

    assert response.status_code == 200, response.content
    assert sorted(response.json()["data"]["changed"]) == sorted(ids(living))
    assert response.json()["data"]["refused"] == [
        {"job_id": str(ended.pk), "code": "illegal_move", "message": "cannot cancel a COMPLETED job"}
    ]
    assert response.json()["meta"] == {"org_id": "acme", "count": 3, "dry_run": False}
    assert statuses(living) == ["CANCELED"] * 3
    moved = Activity.objects.filter(code="job.canceled").order_by("job_id")
    assert [(each.moved_from, each.moved_to) for each in moved] == [(status, "CANCELED") for status in LIVING]
    assert {each.note for each in moved} == {"CANCELED: paused"}
    task.refresh_from_db()
    assert task.status == "CANCELED"
    running = Job.objects.get(pk=living[2].pk)
    assert (running.lease_until, running.lease_token) == (None, 2)


def test_cancel_does_what_the_cancel_of_one_does(acme):
    """The rows of a job that was canceled alone and of one that was canceled with others differ in nothing."""
    alone, together = (rows.parked(config={"cancel_note": True}, started_at=None) for _ in range(2))
    for job in (alone, together):
        rows.approval(job, buttons=True)
    acme.delete(f"{JOBS}/{alone.pk}")
    change(acme, "cancel", ids=[str(together.pk)])

    def told(job):
        found = Job.objects.filter(pk=job.pk).values().get()
        times = {"id", "created_at", "updated_at", "state_since", "time_spent", "scheduled_at", "finished_at"}
        columns = ("code", "status", "note", "moved_from", "moved_to", "life")
        noted = job.activities.order_by("number").values_list(*columns)
        sent = OutboundMessage.objects.filter(owner_key=str(job.pk)).values_list("status", "text", "is_recalled")
        approvals = Approval.objects.filter(job=job).values_list("status")
        kept = {name: value for name, value in found.items() if name not in times}
        return kept, list(noted), sorted(sent), list(approvals)

    assert told(together) == told(alone)


def test_retry_reopens_as_the_retry_of_one_does(acme):
    alone, together = (
        rows.job(JobStatus.FAILED, result="x", error_code="y", config={"queue_ttl_minutes": 5}, attempt=3)
        for _ in range(2)
    )
    acme.post(f"{JOBS}/{alone.pk}/retry", {"reason": "again"})
    response = change(acme, "retry", ids=[str(together.pk)], reason="again")

    assert response.status_code == 200, response.content

    def told(job):
        found = Job.objects.filter(pk=job.pk).values().get()
        times = {"id", "created_at", "updated_at", "state_since", "scheduled_at", "queue_at", "expires_at"}
        assert found["expires_at"] is not None
        pairs = job.activities.order_by("number").values_list("code", "note", "moved_from", "moved_to", "life")
        return {name: value for name, value in found.items() if name not in times}, list(pairs)

    assert told(together) == told(alone)


def test_a_retry_refuses_single_jobs_for_reasons_of_their_own(acme):
    gone = rows.job(JobStatus.FAILED, platform="webhook", channel_code="gone")
    twins = [rows.job(JobStatus.FAILED, unique_key="k", unique_scope="type") for _ in range(2)]
    plain = rows.job(JobStatus.CANCELED)

    response = change(acme, "retry", ids=ids([gone, *twins, plain]), expected_count=4)

    assert response.status_code == 200, response.content
    codes = sorted(one["code"] for one in response.json()["data"]["refused"])
    assert codes == ["channel_unreachable", "duplicate_job"]
    assert sorted(statuses([gone, *twins, plain])) == ["FAILED", "FAILED", "WAITING", "WAITING"]


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_a_filter_takes_what_the_list_shows(acme, verb):
    status = {"cancel": JobStatus.WAITING, "retry": JobStatus.FAILED}[verb]
    hit = [rows.job(status, tags=["q4"], metadata={"region": "eu"}, priority=9) for _ in range(2)]
    others = [rows.job(status, tags=["q4"]), rows.job(JobStatus.COMPLETED, tags=["q4"], metadata={"region": "eu"})]
    theirs = rows.job(status, org_id="rival", tags=["q4"], metadata={"region": "eu"}, priority=9)
    asked = {"tags": "q4", "metadata.region": "eu", "priority": "urgent"}
    before = statuses([*others, theirs])

    dry = change(acme, verb, filter=asked, dry_run=True)
    untouched = statuses(hit)
    done = change(acme, verb, filter=asked, expected_count=dry.json()["meta"]["count"])

    assert (dry.status_code, dry.json()["meta"]) == (200, {"org_id": "acme", "count": 2, "dry_run": True})
    assert untouched == [status] * 2
    assert done.status_code == 200, done.content
    assert sorted(done.json()["data"]["changed"]) == sorted(ids(hit))
    assert statuses([*others, theirs]) == before


@pytest.mark.parametrize("verb", ["cancel", "retry"])
@pytest.mark.parametrize("expected", [0, 2, 4])
def test_another_count_than_expected_changes_nothing(acme, verb, expected):
    status = {"cancel": JobStatus.WAITING, "retry": JobStatus.FAILED}[verb]
    found = [rows.job(status, tags=["q4"]) for _ in range(3)]

    by_filter = change(acme, verb, filter={"tags": "q4"}, expected_count=expected)
    by_ids = change(acme, verb, ids=ids(found), expected_count=expected)

    for response in (by_filter, by_ids):
        assert (response.status_code, response.json()["code"]) == (409, "count_changed")
        assert response.json()["meta"]["count"] == 3
        assert response.json()["message"] == f"3 jobs match now; {expected} did when you looked"
    assert statuses(found) == [status] * 3


def test_more_than_a_thousand_are_not_changed_at_once(acme):
    job = rows.job()
    with connection.cursor() as cursor:
        cursor.execute("""
            INSERT INTO agent_jobs_job SELECT (json_populate_record(j, json_build_object('id', gen_random_uuid()))).*
            FROM agent_jobs_job j, generate_series(1, 1000)""")

    dry = change(acme, "cancel", filter={"status": "waiting"}, dry_run=True)
    done = change(acme, "cancel", filter={"status": "waiting"}, expected_count=1_000)

    assert dry.json()["meta"]["count"] == 1_001
    assert (done.status_code, done.json()["code"]) == (409, "too_many_at_once")
    assert statuses([job]) == ["WAITING"]


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_an_unknown_id_and_a_strangers_are_the_same_404(acme, verb):
    ours, theirs, unknown = rows.job(), rows.job(org_id="rival"), str(uuid4())

    answers = [change(acme, verb, ids=[str(ours.pk), other]) for other in (str(theirs.pk), unknown)]

    assert [answer.status_code for answer in answers] == [404, 404]
    told = [
        answer.json()["message"].replace(name, "X")
        for answer, name in zip(answers, (str(theirs.pk), unknown), strict=True)
    ]
    assert told[0] == told[1]
    assert statuses([ours, theirs]) == ["WAITING"] * 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "ids"),
        ({"ids": [], "filter": {"tags": "a"}}, "ids"),
        ({"ids": [str(uuid4())], "filter": {"tags": "a"}}, "ids"),
        ({"ids": []}, "ids"),
        ({"ids": "x"}, "ids"),
        ({"ids": ["x"]}, "ids.0"),
        ({"ids": [5]}, "ids.0"),
        ({"ids": [str(uuid4())] * 1_001}, "ids"),
        ({"filter": {}, "expected_count": 1}, "filter"),
        ({"filter": [], "expected_count": 1}, "filter"),
        ({"filter": {"tags": "a"}}, "expected_count"),
        ({"filter": {"colour": "a"}, "expected_count": 1}, "filter.colour"),
        ({"filter": {"status": "flying"}, "expected_count": 1}, "filter.status"),
        ({"filter": {"status": None}, "expected_count": 1}, "filter.status"),
        ({"filter": {"status": {"a": 1}}, "expected_count": 1}, "filter.status"),
        ({"filter": {"priority": 10}, "expected_count": 1}, "filter.priority"),
        ({"filter": {"metadata.": "x"}, "expected_count": 1}, "filter.metadata."),
        ({"filter": {"limit": 5}, "expected_count": 1}, "filter.limit"),
        ({"filter": {"tags": "a"}, "expected_count": -1}, "expected_count"),
        ({"filter": {"tags": "a"}, "expected_count": 1_001}, "expected_count"),
        ({"filter": {"tags": "a"}, "expected_count": "1"}, "expected_count"),
        ({"filter": {"tags": "a"}, "dry_run": 1}, "dry_run"),
        ({"filter": {"tags": "a"}, "expected_count": 1, "reason": 5}, "reason"),
    ],
)
def test_a_wrong_change_is_named(acme, body, field):
    response = acme.post(f"{BULK}/cancel", body)

    assert (response.status_code, factories.fields_of(response)) == (400, [field]), response.content


def test_a_change_is_made_once_for_each_key(acme):
    job = rows.job()
    body = {"ids": [str(job.pk)]}
    first, second = (acme.post(f"{BULK}/cancel", body, Idempotency_Key="k") for _ in range(2))

    assert (first.content, second["Idempotency-Replayed"]) == (second.content, "true")
    assert Activity.objects.filter(code="job.canceled").count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_cancels_at_once_each_job_is_canceled_by_one():
    rows.job_type()
    jobs = ids([rows.job() for _ in range(200)])
    clients = [factories.api("acme", "SERVICES:WRITE") for _ in range(2)]
    orders = zip(clients, (jobs, jobs[::-1]), strict=True)
    works = [lambda api=api, order=order: change(api, "cancel", ids=order) for api, order in orders]

    answers = races.in_threads(*works)

    changed = [len(answer.json()["data"]["changed"]) for answer in answers]
    assert sum(changed) == 200
    assert Activity.objects.filter(code="job.canceled").count() == 200


# --- The document ----------------------------------------------------------------------------------------------
def examples():
    """(request line, body, status, answer) of each example of the guide, in its order."""
    pattern = r"```http\n(POST \S+)\n\n(.*?)```\n.*?```json (\d+)\n(.*?)```"
    return re.findall(pattern, GUIDE.read_text(), re.DOTALL)


def fits(stated, found):
    """Whether an answer has what the guide shows of it; "…" stands for any value."""
    if stated == "…":
        return found is not None
    if isinstance(stated, dict):
        return isinstance(found, dict) and all(name in found and fits(stated[name], found[name]) for name in stated)
    if isinstance(stated, list):
        return isinstance(found, list) and len(stated) == len(found) and all(map(fits, stated, found))
    return stated == found


def test_every_example_of_the_guide_answers_what_it_shows(db):
    rows.job_type("demo", "announcement", default_config={"start_prompt": "{{ text }}"})
    api, made = factories.api("demo", "SERVICES:WRITE"), []
    assert len(examples()) == GUIDE.read_text().count("```http") >= 7

    for line, body, status, answer in examples():
        for number, job_id in enumerate(made, 1):
            body = body.replace(f"<job {number}>", job_id)
        response = api.post(line.removeprefix("POST "), json.loads(body))

        assert response.status_code == int(status), (line, response.content)
        assert fits(json.loads(answer), response.json()), (line, body, response.content)
        if line.endswith(("/bulk", "agent-jobs")) and response.status_code < 300:
            found = response.json()["data"]
            made += [one["job_id"] for one in (found if isinstance(found, list) else [found]) if "job_id" in one]

    (query,) = re.findall(r"`GET (\S+)`", GUIDE.read_text())
    (found,) = api.get(query).json()["data"]
    assert found["metadata"] == {"campaign": "spring", "wave": 2}
