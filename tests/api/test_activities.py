"""`/services/activities`: what happened in an organisation, in the shape that clients read."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from agent_jobs.states import JobStatus
from tests import factories, rows

pytestmark = pytest.mark.django_db
ACTIVITIES = "/services/activities"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def notes(response):
    assert response.status_code == 200, response.content
    return "".join(activity["note"] for activity in response.json()["data"])


@pytest.fixture
def four(acme):
    first, second = rows.job(), rows.job()
    theirs = rows.job(org_id="rival")
    table = [
        (first, "a", {"code": "job.created"}),
        (first, "b", {"code": "message.out", "status": "submitted", "source_type": "process_module"}),
        (second, "c", {"code": "message.in", "source_type": "direct"}),
        (second, "d", {"code": "message.out", "status": "canceled"}),
    ]
    for minutes, (job, note, columns) in enumerate(table):
        at = NOON + timedelta(minutes=minutes)
        factories.activity(job, note=note, created_at=at, **columns)
        factories.activity(theirs, note="x", created_at=at, **columns)
    acme.first, acme.theirs = first, theirs
    return acme


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "dcba"),
        ("sort=created_at:asc", "abcd"),
        ("sort=-created_at", "dcba"),
        ("sort=activity_type_code,created_at", "acbd"),
        ("status=submitted", "b"),
        ("status=completed", "ca"),
        ("status=canceled", "d"),
        ("activity_type_code=message.out", "db"),
        ("activity_type_code=message", ""),
        ("source_type=dispatch", "da"),
        ("source_type=process_module", "b"),
        ("source_type=direct", "c"),
        ("created_at_gte=2026-03-01T12:02:00Z", "dc"),
        ("created_at_lte=2026-03-01T12:00:00Z", "a"),
        ("created_at_lte=2026-03-01", "dcba"),
        ("created_at_lte=2026-02-28", ""),
        ("org_id=acme", "dcba"),
        ("job_id={first}", "ba"),
        ("job_id={theirs}", ""),
        ("job_id=01930000-0000-7000-8000-000000000000", ""),
        ("limit=1&offset=1", "c"),
    ],
)
def test_a_filter_leaves_the_activities_that_fit(four, query, expected):
    assert notes(four.get(f"{ACTIVITIES}?{query.format(first=four.first.pk, theirs=four.theirs.pk)}")) == expected


@pytest.mark.parametrize(
    "query", ["job_id=1", "status=done", "status=SUBMITTED", "source_type=x", "sort=note", "limit=0", "actor=x"]
)
def test_a_bad_parameter_is_named(four, query):
    response = four.get(f"{ACTIVITIES}?{query}")

    assert response.status_code == 400
    assert factories.fields_of(response) == [query.partition("=")[0]]


def test_another_organizations_activities_are_a_403(four):
    assert four.get(f"{ACTIVITIES}?org_id=rival").status_code == 403


def test_the_meta_tells_where_the_page_stands(four):
    meta = four.get(f"{ACTIVITIES}?limit=3&offset=1").json()["meta"]

    assert meta.items() >= {"org_id": "acme", "count": 3, "limit": 3, "offset": 1, "total": 4}.items()


def test_a_record_has_the_shape_that_clients_read(acme):
    job = rows.job(JobStatus.RUNNING, thread="t1")
    activity = factories.activity(
        job,
        "model.call",
        note="asked",
        source_type="process_module",
        execution_id=UUID(int=5),
        allocated_credits=Decimal("1.5"),
        consumed_credits=2,
        credits_rule_id=3,
        input={"q": 1},
        output={"a": [2]},
        actor="system:worker",
        created_at=NOON,
        updated_at=NOON,
        processed_at=NOON,
    )

    at = "2026-03-01T12:00:00.000000Z"
    assert acme.get(ACTIVITIES).json()["data"] == [
        {
            "id": str(activity.pk),
            "org_id": "acme",
            "activity_type_code": "model.call",
            "status": "completed",
            "note": "asked",
            "actor": "system:worker",
            "allocated_credits": 1.5,
            "consumed_credits": 2,
            "credits_rule_id": 3,
            "payloads": {"input": {"q": 1}, "output": {"a": [2]}},
            "processed_at": at,
            "created_at": at,
            "updated_at": at,
            "source": {
                "type": "process_module",
                "job_id": str(job.pk),
                "execution_id": str(UUID(int=5)),
                "chat_id": "web:lobby:t1",
                "agent_job_type_id": "greet",
                "channel_code": "lobby",
            },
        }
    ]


def test_what_has_no_value_is_left_out(acme):
    factories.activity(rows.job())

    (record,) = acme.get(ACTIVITIES).json()["data"]

    assert record["payloads"] == {}
    assert not {"processed_at", "note", "actor"} & set(record)
    assert not {"chat_id", "execution_id"} & set(record["source"])
    assert (record["allocated_credits"], record["consumed_credits"], record["credits_rule_id"]) == (0, 0, 0)


def test_creating_and_canceling_a_job_leave_an_activity_each(acme):
    job_id = acme.post("/services/agent-jobs", factories.job_request()).json()["data"]["id"]
    acme.delete(f"/services/agent-jobs/{job_id}", {"reason": "enough"})

    records = acme.get(f"{ACTIVITIES}?job_id={job_id}&sort=created_at:asc").json()["data"]

    assert [record["activity_type_code"] for record in records] == ["job.created", "job.canceled"]
    assert all(record["actor"].startswith("token:ajt_live_") for record in records)


def test_a_page_of_20_costs_as_many_statements_as_one_of_1(acme, django_assert_num_queries):
    factories.activity(rows.job())
    acme.get(ACTIVITIES)
    with django_assert_num_queries(4):
        acme.get(ACTIVITIES)
    for _ in range(19):
        factories.activity(rows.job())
    with django_assert_num_queries(4):
        assert len(acme.get(ACTIVITIES).json()["data"]) == 20
