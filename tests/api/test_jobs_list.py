"""The list of jobs: filters, order, pages, statistics, activities; no page costs more statements than another."""

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from agent_jobs.api import jobs, paging
from agent_jobs.models import Activity, Task
from agent_jobs.reads import queries
from agent_jobs.states import JobStatus
from tests import factories, rows

pytestmark = pytest.mark.django_db
JOBS = "/services/agent-jobs"
SOURCE = "01930000-0000-7000-8000-000000000001"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def names(response):
    assert response.status_code == 200, response.content
    return [job["params"]["called"] for job in response.json()["data"]]


@pytest.fixture
def five(acme):
    """Jobs a to e, created an hour apart, and one of the stranger's that fits every filter."""
    table = [
        ("a", JobStatus.SCHEDULED, {"channel_code": "C1", "tags": ["red"], "priority": 1, "waiting_for": "cooldown"}),
        ("b", JobStatus.WAITING, {"channel_code": "C2", "tags": ["red", "blue"], "job_type_key": "report"}),
        ("c", JobStatus.RUNNING, {"channel_code": "C1", "platform": "slack", "priority": 9}),
        (
            "d",
            JobStatus.FAILED,
            {
                "channel_code": "C3",
                "job_type_key": "report",
                "replay_of": SOURCE,
                "error_code": "model_timeout",
                "error_message": "Brightwave misses two pallets of INV-2041",
            },
        ),
        ("e", JobStatus.COMPLETED, {"channel_code": "C1", "tags": ["blue"], "replay_of": SOURCE}),
    ]
    for hours, (called, status, columns) in enumerate(table):
        at = NOON + timedelta(hours=hours)
        times = {"created_at": at, "updated_at": at + timedelta(days=1), "scheduled_at": at + timedelta(days=10)}
        rows.job(status, params={"called": called}, **times, **columns)
        rows.job(status, org_id="rival", params={"called": "theirs"}, **times, **columns)
    return acme


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "abcde"),
        ("status=RUNNING", "c"),
        ("status=running", "c"),
        ("status=Waiting,SCHEDULED", "ab"),
        ("status=waiting&status=failed&status=waiting", "bd"),
        ("status=waiting,%20failed", "bd"),
        ("status=CANCELED", ""),
        ("scheduled_at=2026-03-11T13:00:00Z", "b"),
        ("scheduled_at=2026-03-11T15:00:00%2B02:00", "b"),
        ("scheduled_at=2026-03-11", ""),
        ("scheduled_at_gte=2026-03-11T14:00:00Z", "cde"),
        ("scheduled_at_lte=2026-03-11T14:00:00Z", "abc"),
        ("scheduled_at_lte=2026-03-11", "abcde"),
        ("scheduled_at_lte=2026-03-10", ""),
        ("scheduled_at_gte=2026-03-11&scheduled_at_lte=2026-03-11", "abcde"),
        ("scheduled_at_gte=2026-03-12", ""),
        ("scheduled_at_gte=2026-03-11", "abcde"),
        ("scheduled_at_gte=2026-03-11T13:00:00Z&scheduled_at_lte=2026-03-11T14:00:00Z", "bc"),
        ("created_at_gte=2026-03-01T15:00:00Z", "de"),
        ("created_at_gte=2026-03-01T15:00:00.000001Z", "e"),
        ("created_at_lte=2026-03-01T13:00:00Z", "ab"),
        ("created_at_lte=2026-03-01", "abcde"),
        ("created_at_lte=2026-02-28", ""),
        ("created_at_gte=2026-03-01&created_at_lte=2026-03-01", "abcde"),
        ("created_at_lte=2026-03-01T00:00:00Z", ""),
        ("updated_at_gte=2026-03-02T16:00:00Z", "e"),
        ("updated_at_lte=2026-03-02T12:00:00Z", "a"),
        ("updated_at_lte=2026-03-02", "abcde"),
        ("updated_at_lte=2026-03-01", ""),
        ("job_type_id=report", "bd"),
        ("job_type_id=Report", ""),
        ("channel_code=C1", "ace"),
        ("channel_code=C", ""),
        ("channel_code=C1&status=COMPLETED&job_type_id=greet", "e"),
        ("platform=slack", "c"),
        ("priority=9", "c"),
        ("priority=0", ""),
        ("tags=red", "ab"),
        ("tags=blue,red", "b"),
        ("tags=green", ""),
        ("org_id=acme", "abcde"),
        (f"replay_of={SOURCE}", "de"),
        ("error_code=model_timeout", "d"),
        ("error_code=model", ""),
        ("waiting_for=cooldown", "a"),
        ("waiting_for=worker", "c"),
        ("waiting_for=Cooldown,worker", "ac"),
        ("waiting_for=approval", ""),
        ("q=INV-20", "d"),
        ("q=inv-2041 brightwave", "d"),
        ("q=pallets", "d"),
        ("q=a", "a"),
        ("q=nothing", ""),
        ("q=%27quoted%27%20%26%20%28odd%20%7C%20!words%29:*%5C", ""),
        (f"replay_of={SOURCE}&status=failed", "d"),
        ("replay_of=01930000-0000-7000-8000-000000000009", ""),
    ],
)
def test_a_filter_leaves_the_jobs_that_fit(five, query, expected):
    response = five.get(f"{JOBS}?{query}&sort=created_at:asc".replace("?&", "?"))

    assert "".join(names(response)) == expected
    assert response.json()["meta"]["total"] == len(expected)


@pytest.mark.parametrize("org_id", ["rival", "unknown"])
def test_a_filter_by_another_organization_is_a_403(five, rival, org_id):
    response = five.get(f"{JOBS}?org_id={org_id}")

    assert response.status_code == 403
    assert response.json()["message"] == "the token belongs to a different organization"


@pytest.mark.parametrize(
    ("sort", "expected", "meta"),
    [
        (None, "edcba", [("created_at", "desc")]),
        ("created_at:desc", "edcba", [("created_at", "desc")]),
        ("created_at:asc", "abcde", [("created_at", "asc")]),
        ("created_at", "abcde", [("created_at", "asc")]),
        ("-created_at", "edcba", [("created_at", "desc")]),
        ("scheduled_at:DESC", "edcba", [("scheduled_at", "desc")]),
        ("job_status:desc", "bacde", [("job_status", "desc")]),
        ("-updated_at", "edcba", [("updated_at", "desc")]),
        ("channel_code,-created_at", "ecabd", [("channel_code", "asc"), ("created_at", "desc")]),
        (
            "job_type_id,priority:asc,created_at:asc",
            "aecbd",
            [("job_type_id", "asc"), ("priority", "asc"), ("created_at", "asc")],
        ),
        ("job_status", "edcab", [("job_status", "asc")]),
        ("-job_type_id,created_at", "bdace", [("job_type_id", "desc"), ("created_at", "asc")]),
    ],
)
def test_jobs_come_in_the_order_asked_for(five, sort, expected, meta):
    response = five.get(JOBS, {"sort": sort} if sort else None)

    assert "".join(names(response)) == expected
    assert [(by["field"], by["direction"]) for by in response.json()["meta"]["sort"]] == meta


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("name", sorted(set(jobs.SORTING.columns) - jobs.SORTING.not_first))
def test_an_index_serves_a_list_that_is_sorted_by_one_field(five, name, direction):
    """An organisation may have millions of jobs: they are not to be sorted for a page."""
    query = {"limit": 50, "offset": 0, "sort": jobs.SORTING.read(f"{name}:{direction}"), "cursor": None}
    window = paging.place(jobs.SORTING, query).window
    order = [f"-{by.column}" if by.is_descending else by.column for by in window.order]
    with transaction.atomic(), connection.cursor() as cursor:
        for way in ("seqscan", "bitmapscan", "sort"):  # what a small table takes
            cursor.execute(f"SET LOCAL enable_{way} = off")

        plan = jobs.sortable(queries.jobs("acme"), window).order_by(*order)[:51].explain()

    assert "Index" in plan
    assert not re.search(r"->\s+Sort ", plan), plan


def test_the_sort_by_time_in_the_queue_lists_only_what_is_in_a_queue(five):
    for called, minutes, columns in (("f", 3, {}), ("g", 9, {"priority": 9}), ("h", 1, {"lane": "agents"})):
        since = NOON - timedelta(minutes=minutes)
        rows.job(params={"called": called}, created_at=NOON - timedelta(days=1), state_since=since, **columns)
    again = rows.job(JobStatus.RUNNING, params={"called": "i"}, lease_until=None, queue_at=Now(), state_since=NOON)
    rows.job(JobStatus.RUNNING, "rival", lease_until=None, queue_at=Now(), state_since=NOON)

    response = five.get(JOBS, {"sort": "queued_at", "limit": 3})
    rest = five.get(JOBS, {"cursor": response.json()["meta"]["next_cursor"]})

    assert names(response) + names(rest) == ["g", "f", "h", "i", "b"]
    assert [response.json()["meta"]["total"], rest.json()["meta"]["total"]] == [5, 5]
    assert rest.json()["data"][0]["id"] == str(again.pk)
    assert names(five.get(JOBS, {"sort": "-queued_at", "status": "waiting"})) == ["b", "h", "f", "g"]


def test_a_cursor_of_another_order_is_refused(acme):
    old = jobs.SORTING.signer.sign_object({"sort": [["job_status", False]], "after": ["FAILED", str(UUID(int=0))]})

    response = acme.get(JOBS, {"cursor": old})

    assert (response.status_code, factories.fields_of(response)) == (400, ["cursor"])


def test_the_meta_of_a_page_tells_where_it_stands(five):
    body = five.get(f"{JOBS}?limit=2&offset=1").json()

    cursor = body["meta"].pop("next_cursor")
    assert isinstance(cursor, str)
    assert body["meta"] == {
        "org_id": "acme",
        "limit": 2,
        "offset": 1,
        "count": 2,
        "total": 5,
        "sort": [{"field": "created_at", "direction": "desc"}],
    }


def test_the_default_limit_is_50(acme):
    for _ in range(51):
        rows.job()

    body = acme.get(JOBS).json()

    assert (len(body["data"]), body["meta"]["limit"], body["meta"]["total"]) == (50, 50, 51)


@pytest.mark.parametrize(
    "sort",
    [
        "created_at:desc",
        "created_at:asc",
        "job_status",
        "-channel_code",
        "channel_code,-priority",
        "-job_status,created_at",
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 5])
def test_pages_by_offset_and_by_cursor_show_every_job_once(five, sort, limit):
    whole = names(five.get(JOBS, {"sort": sort}))
    by_offset = [
        name
        for offset in range(0, 5, limit)
        for name in names(five.get(JOBS, {"sort": sort, "limit": limit, "offset": offset}))
    ]
    by_cursor, query = [], {"sort": sort, "limit": limit}
    while query:
        response = five.get(JOBS, query)
        by_cursor += names(response)
        meta = response.json()["meta"]
        assert meta["total"] == 5
        query = {"cursor": meta["next_cursor"], "limit": limit} if "next_cursor" in meta else None

    assert by_offset == by_cursor == whole


def test_a_page_beyond_the_end_is_empty(five):
    body = five.get(f"{JOBS}?offset=5000").json()

    assert (body["data"], body["meta"]["total"], body["meta"]["count"]) == ([], 5, 0)


def test_a_page_begins_where_its_offset_says(acme):
    for number in range(6):
        rows.job(params={"called": str(number)}, created_at=NOON + timedelta(minutes=number))

    assert names(acme.get(f"{JOBS}?offset=3&limit=2&sort=created_at:asc")) == ["3", "4"]


def test_a_cursor_goes_with_its_own_list_alone(five):
    cursor = five.get(f"{JOBS}?limit=2").json()["meta"]["next_cursor"]

    for query in (
        {"cursor": cursor, "sort": "created_at:asc"},
        {"cursor": cursor, "offset": 1},
        {"cursor": cursor[:-2] + "xx"},
    ):
        assert five.get(JOBS, query).status_code == 400
    assert five.get("/services/activities", {"cursor": cursor}).status_code == 400
    assert five.get("/services/organizations/acme/agent-jobs-type", {"cursor": cursor}).status_code == 400


def test_statistics_count_every_status_under_the_same_filters(five):
    def counts(query):
        return five.get(f"{JOBS}?include=stats{query}").json()["meta"]["stats"]["status"]

    none = {"waiting": 0, "scheduled": 0, "running": 0, "completed": 0, "failed": 0, "canceled": 0}
    assert counts("") == none | {"waiting": 1, "scheduled": 1, "running": 1, "completed": 1, "failed": 1}
    assert counts("&channel_code=C1&limit=1&offset=1") == none | {"scheduled": 1, "running": 1, "completed": 1}
    assert counts("&status=failed") == none | {"failed": 1}
    assert "stats" not in five.get(JOBS).json()["meta"]


def test_statistics_count_what_running_jobs_wait_for(acme):
    for columns in (
        {},
        {"queue_at": Now(), "lease_until": None},
        *({"waiting_for": "reply", "lease_until": None},) * 2,
    ):
        rows.job(JobStatus.RUNNING, **columns)
    rows.job(JobStatus.RUNNING, "rival")

    stats = acme.get(f"{JOBS}?include=stats").json()["meta"]["stats"]

    assert stats["waiting_for"] == {"worker": 1, "queue": 1, "reply": 2}


def test_activities_are_added_within_their_limits(acme):
    for number in range(3):
        job = rows.job(params={"called": str(number)}, created_at=NOON + timedelta(minutes=number))
        for step in range(4):
            factories.activity(job, note=f"step {step}", created_at=NOON + timedelta(seconds=step))

    def asked(query):
        body = acme.get(f"{JOBS}?sort=created_at:asc&include=activities{query}").json()
        meta = body["meta"]
        notes = [[activity["note"][-1] for activity in job["Activities"]] for job in body["data"]]
        return notes, (
            meta["activities_total_returned"],
            meta["activities_total_available"],
            meta["activities_truncated"],
        )

    assert asked("") == ([["3", "2", "1", "0"]] * 3, (12, 12, False))
    assert asked("&activities_limit_per_job=2") == ([["3", "2"]] * 3, (6, 12, True))
    assert asked("&activities_limit_per_job=2&activities_sort=created_at") == ([["0", "1"]] * 3, (6, 12, True))
    assert asked("&activities_total_limit=5") == ([["3", "2", "1", "0"], ["3"], []], (5, 12, True))
    assert asked("&limit=1") == ([["3", "2", "1", "0"]], (4, 4, False))
    assert asked(",stats")[1] == (12, 12, False)
    assert "Activities" not in acme.get(JOBS).json()["data"][0]


def test_a_page_of_20_costs_as_many_statements_as_one_of_1(acme, django_assert_num_queries):
    def fill(count):
        for _ in range(count):
            job = rows.job()
            Task.objects.create(job=job, number=1, lease_token=1)
            factories.activity(job, note="created")

    fill(1)
    acme.get(JOBS)  # notes the use of the token
    with django_assert_num_queries(7):  # token, count, page, channels, tasks, activities
        acme.get(JOBS)
    with django_assert_num_queries(10) as one:
        acme.get(f"{JOBS}?include=activities,stats")
    fill(19)
    with django_assert_num_queries(7):
        assert len(acme.get(JOBS).json()["data"]) == 20
    with django_assert_num_queries(len(one)):
        assert len(acme.get(f"{JOBS}?include=activities,stats").json()["data"]) == 20


def test_tasks_and_activities_of_another_job_are_not_mixed_in(acme):
    first, second = rows.job(params={"called": "1"}), rows.job(params={"called": "2"})
    Task.objects.create(job=first, number=1, lease_token=1, status="COMPLETED", result="done")
    Activity.objects.all().delete()
    factories.activity(second, note="only mine")

    shown = {job["params"]["called"]: job for job in acme.get(JOBS).json()["data"]}

    assert [task["result"] for task in shown["1"]["tasks"]] == ["done"]
    assert shown["2"]["tasks"] == []
    assert (shown["1"]["activities_count"], shown["2"]["activities_count"]) == (0, 1)
    assert shown["2"]["execution_log"][0].endswith("Z only mine")
