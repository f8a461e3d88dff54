import json

import pytest

from agent_jobs.models import Job, JobType
from tests import rows

NEW = "/console/acme/jobs/new"
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "times": {"type": "integer", "minimum": 1}},
    "required": ["name"],
}


@pytest.fixture
def greet(db):
    return rows.job_type(params_schema=SCHEMA)


def sent(**changes):
    return {
        "job_type_id": "greet",
        "platform": "web",
        "code": "lobby",
        "priority": "5",
        "arg.name": "Ann",
        "arg.times": "2",
        **changes,
    }


def test_a_person_chooses_a_type_and_gets_a_form_of_its_schema(admin, greet):
    rows.job_type("rival", key="theirs")

    chosen = admin.get(NEW).content.decode()
    form = admin.get(NEW, {"type": "greet"}).content.decode()

    assert "?type=greet" in chosen
    assert "theirs" not in chosen
    assert 'name="arg.name"' in form
    assert 'name="arg.times"' in form


def test_the_form_makes_a_job(admin, greet):
    answer = admin.post(NEW, sent(delay="10", tags="q4, eu", priority="8"))

    job = Job.objects.get()
    assert answer["Location"] == f"/console/acme/jobs/{job.pk}"
    assert job.params == {"name": "Ann", "times": 2}
    assert (job.status, job.delay_minutes, job.tags, job.priority) == ("SCHEDULED", 10, ["q4", "eu"], 8)


def test_a_type_without_a_schema_takes_json(admin, greet):
    JobType.objects.update(params_schema={})

    assert admin.post(NEW, sent(params_json='{"name": "Bo"}')).status_code == 302
    assert Job.objects.get().params == {"name": "Bo"}
    answer = admin.post(NEW, sent(params_json="{name"))
    assert answer.status_code == 400
    assert "is not JSON" in answer.content.decode() or "Is not JSON" in answer.content.decode()


def test_the_form_takes_a_config_and_who_is_told_the_outcome(admin, greet):
    more = {"config_json": '{"max_task_retries": 3}', "outcome_platform": "web", "outcome_code": "lobby"}

    admin.post(NEW, sent(**more, outcome_template="{{ status }}"))

    job = Job.objects.get()
    assert job.config["max_task_retries"] == 3
    told = {name: job.outcome_channel[name] for name in ("platform", "code", "template")}
    assert told == {"platform": "web", "code": "lobby", "template": "{{ status }}"}


def test_a_job_with_work_needs_no_channel(admin, db):
    rows.job_type(key="probe", runner="webhook", default_config={})
    work = {"url": "https://shop.example/health", "method": "GET"}
    answer = admin.post(NEW, {"job_type_id": "probe", "work_json": json.dumps(work), "priority": "0"})

    assert answer.status_code == 302, answer.content.decode()
    job = Job.objects.get()
    assert (job.work["url"], job.platform, job.priority) == (work["url"], "", 0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"arg.times": "0"}, "times"),
        ({"code": ""}, "blank"),
        ({"platform": "pigeon"}, "platform"),
        ({"delay": "soon"}, "whole number"),
        ({"delay": "99999"}, "at most"),
        ({"scheduled_at": "tomorrow"}, "date and a time"),
        ({"job_type_id": "nothing"}, "nothing"),
        ({"config_json": '{"max_follow_ups": -1}'}, "config.max_follow_ups"),
        ({"work_json": "[1]"}, "Must be a JSON object"),
        ({"work_json": '{"url": "https://shop.example"}'}, "work"),
        ({"outcome_code": "lobby"}, "outcome_channel.platform"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_made(admin, greet, wrong, words):
    answer = admin.post(NEW, sent(**wrong))

    assert answer.status_code == 400
    assert words in answer.content.decode()
    assert not Job.objects.exists()


def test_a_member_and_a_stranger_make_no_job(member, stranger, greet):
    assert member.post(NEW, sent()).status_code == 403
    assert stranger.post(NEW, sent()).status_code == 404
    assert not Job.objects.exists()


def test_the_form_takes_few_queries(admin, greet, django_assert_max_num_queries):
    with django_assert_max_num_queries(12):
        admin.get(NEW, {"type": "greet"})
