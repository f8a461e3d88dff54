"""Metadata of jobs: kept apart from the params, shown in every answer, and a filter of the list by an index."""

import pytest
from django.db import connection

from agent_jobs.api import filters
from agent_jobs.reads import queries
from tests import factories, rows

pytestmark = pytest.mark.django_db
JOBS = "/services/agent-jobs"
LABELS = {"region": "eu", "tier": 2, "ratio": 1.5, "vip": True, "ticket.id": "T-1"}


def post(api, metadata, **fields):
    return api.post(JOBS, factories.job_request(metadata=metadata, **fields))


def test_metadata_is_shown_and_no_param(acme):
    made = post(acme, LABELS).json()["data"]
    shown = acme.get(f"{JOBS}/{made['id']}").json()["data"]
    (listed,) = acme.get(JOBS).json()["data"]

    for answer in (made, shown, listed):
        assert answer["metadata"] == LABELS
        assert answer["params"] == {"name": "Ann"}


def test_a_job_without_metadata_shows_an_empty_object(acme):
    assert acme.post(JOBS, factories.job_request()).json()["data"]["metadata"] == {}


def test_a_replay_keeps_the_metadata_or_takes_another(acme):
    first = post(acme, LABELS).json()["data"]["id"]

    assert acme.post(f"{JOBS}/{first}/replay").json()["data"]["metadata"] == LABELS
    assert acme.post(f"{JOBS}/{first}/replay", {"metadata": {"a": 1}}).json()["data"]["metadata"] == {"a": 1}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("metadata.region=eu", ["a", "b"]),
        ("metadata.region=us", ["c"]),
        ("metadata.region=e", []),
        ("metadata.tier=2", ["a", "b"]),
        ("metadata.tier=2.0", ["a"]),
        ("metadata.vip=true", ["a"]),
        ("metadata.vip=false", ["b"]),
        ("metadata.ticket.id=T-1", ["c"]),
        ("metadata.region=eu&metadata.vip=true", ["a"]),
        ("metadata.region=eu&metadata.vip=true&status=FAILED", []),
        ("metadata.nothing=eu", []),
        ("metadata.region=a%2Cb", ["d"]),
        ("metadata.region=9e999", []),
        ("metadata.region=%7B%7D", []),
    ],
)
def test_the_list_is_filtered_by_metadata(acme, rival, query, expected):
    table = {
        "a": {"region": "eu", "tier": 2, "vip": True},
        "b": {"region": "eu", "tier": "2", "vip": False},
        "c": {"region": "us", "ticket.id": "T-1"},
        "d": {"region": "a,b"},
    }
    for name, metadata in table.items():
        rows.job(metadata=metadata, params={"called": name})
        rows.job(org_id="rival", metadata=metadata, params={"called": "theirs"})

    response = acme.get(f"{JOBS}?{query}")

    assert response.status_code == 200, response.content
    assert sorted(job["params"]["called"] for job in response.json()["data"]) == expected


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("metadata.region=", "metadata.region"),
        ("metadata.region=eu&metadata.region=us", "metadata.region"),
        ("metadata.=eu", "metadata."),
        ("metadata=eu", "metadata"),
        ("metadata.re gion=eu", "metadata.re gion"),
        (f"metadata.{'x' * 65}=eu", f"metadata.{'x' * 65}"),
        (f"metadata.region={'x' * 501}", "metadata.region"),
        ("metadata.region=%00", "metadata.region"),
        ("&".join(f"metadata.k{number}=1" for number in range(11)), "metadata.k9"),
    ],
)
def test_a_wrong_filter_is_named(acme, query, wrong):
    response = acme.get(f"{JOBS}?{query}")

    assert (response.status_code, factories.fields_of(response)) == (400, [wrong])


@pytest.mark.parametrize(
    ("metadata", "wrong"),
    [
        ("eu", "metadata"),
        (["eu"], "metadata"),
        ({"region": None}, "metadata.region"),
        ({"region": ["eu"]}, "metadata.region"),
        ({"region": {"a": 1}}, "metadata.region"),
        ({"region": "x" * 501}, "metadata.region"),
        ({"": "eu"}, "metadata"),
        ({"re gion": "eu"}, "metadata"),
        ({"x" * 65: "eu"}, "metadata"),
        ({f"k{number}": 1 for number in range(51)}, "metadata"),
    ],
)
def test_wrong_metadata_is_named(acme, metadata, wrong):
    response = post(acme, metadata)

    assert (response.status_code, factories.fields_of(response)) == (400, [wrong])


def test_the_filter_uses_the_index_of_metadata(acme):
    rows.job()
    with connection.cursor() as cursor:
        cursor.execute("""
            INSERT INTO agent_jobs_job SELECT (json_populate_record(j, json_build_object(
                'id', gen_random_uuid(), 'metadata', json_build_object('ticket', 'T-' || number)))).*
            FROM agent_jobs_job j, generate_series(1, 1000) number""")
        cursor.execute("ANALYZE agent_jobs_job")
    found, _ = filters.narrowed(queries.jobs("acme"), filters.JobFilters, {"metadata.ticket": "T-77"})

    plan = found.order_by().explain()

    assert "job_metadata" in plan, plan
    assert found.count() == 1
