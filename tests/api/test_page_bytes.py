"""An answer has a bound in bytes, whatever its limit: it ends early, and says where to go on."""

import pytest

from agent_jobs.models import Announcement, Message, WebhookDelivery, WebhookEndpoint
from agent_jobs.reads import pages
from tests import factories, rows

pytestmark = pytest.mark.django_db
JOBS = "/services/agent-jobs"
KIB = 1024


def texts(count, kib):
    return [f"{number:03}" + "x" * (kib * KIB) for number in range(count)]


@pytest.fixture
def small(monkeypatch):
    """A bound that tests reach with little data."""
    monkeypatch.setattr(pages, "MAX_BYTES", 100 * KIB)


def walk(api, path):
    """Every page's count, and all rows, by the cursors."""
    counts, shown, separator = [], [], "&" if "?" in path else "?"
    address = path
    while True:
        body = api.get(address).json()
        counts.append(body["meta"]["count"])
        shown += body["data"]
        assert body["meta"]["count"] == len(body["data"])
        if "next_cursor" not in body["meta"]:
            return counts, shown, body["meta"]["total"]
        address = f"{path}{separator}cursor={body['meta']['next_cursor']}"


def test_an_answer_at_the_largest_limit_stays_within_its_bound(acme):
    for text in texts(40, 250):
        rows.job(params={"text": text})

    answer = acme.get(f"{JOBS}?limit=1000")

    assert len(answer.content) < pages.MAX_BYTES + 300 * KIB
    assert 10 < answer.json()["meta"]["count"] < 40


@pytest.mark.parametrize("sort", ["created_at", "-created_at", "job_type_id,-created_at"])
@pytest.mark.parametrize("limit", [5, 7, 1000])
def test_the_cursor_goes_on_where_an_answer_ended(acme, small, sort, limit):
    made = [str(rows.job(params={"text": text}).pk) for text in texts(20, 15)]

    counts, shown, total = walk(acme, f"{JOBS}?limit={limit}&sort={sort}")

    assert sorted(job["id"] for job in shown) == sorted(made)
    assert total == 20
    assert max(counts) == min(limit, 7)


def test_by_offset_one_goes_on_by_the_count(acme, small):
    made = [str(rows.job(params={"text": text}).pk) for text in texts(20, 15)]

    shown, offset = [], 0
    while offset < 20:
        body = acme.get(f"{JOBS}?limit=1000&offset={offset}&sort=created_at").json()
        shown += [job["id"] for job in body["data"]]
        offset += body["meta"]["count"]

    assert shown == made


def test_a_row_beyond_the_bound_is_shown_alone(acme, small):
    for text in texts(3, 150):
        rows.job(params={"text": text})

    assert walk(acme, f"{JOBS}?limit=1000")[0] == [1, 1, 1]


@pytest.mark.parametrize("column", ["params", "config", "channel_data", "result", "result_data", "error_message"])
def test_every_large_column_counts(acme, small, column):
    for text in texts(4, 60):
        is_text = column in ("result", "error_message")
        rows.job("FAILED", **{column: text if is_text else {"start_prompt": text}})

    assert walk(acme, f"{JOBS}?limit=1000")[0] == [2, 2]


def test_small_rows_come_all_at_once(acme):
    for _ in range(60):
        rows.job()

    assert walk(acme, f"{JOBS}?limit=1000")[0] == [60]


def test_a_transcript_and_a_catalogue_are_bounded_too(acme, small):
    job = rows.job()
    for text in texts(8, 30):
        Message.objects.create(job=job, is_human=True, author="Ann", text=text)
        rows.job_type(key=f"t{text[:3]}", description=text[: 20 * KIB], params_schema={"title": text})

    for path in (f"{JOBS}/{job.pk}/messages", "/services/organizations/acme/agent-jobs-type?include=schema"):
        counts, shown, total = walk(acme, f"{path}{'&' if '?' in path else '?'}limit=1000")
        assert max(counts) < 5
        assert len(shown) == total >= 8


def test_the_payload_of_a_delivery_counts(acme, small):
    endpoint = WebhookEndpoint.objects.create(org_id="acme", url="https://example.com/", event_types=["job.failed"])
    for text in texts(4, 60):
        announcement = Announcement.objects.create(org_id="acme", event="job.failed", payload={"text": text})
        WebhookDelivery.objects.create(
            org_id="acme", endpoint=endpoint, announcement=announcement, event="job.failed", status="delivered"
        )

    path = f"/services/webhook-endpoints/{endpoint.pk}/deliveries?limit=1000"
    counts, shown, total = walk(acme, path)

    assert (counts, len(shown), total) == ([2, 2], 4, 4)


def test_activities_in_a_list_are_cut_and_said_to_be(acme, small):
    job = rows.job()
    for text in texts(10, 30):
        factories.activity(job, output={"text": text})

    listed = acme.get(f"{JOBS}?include=activities").json()
    detail = acme.get(f"{JOBS}/{job.pk}?include=activities").json()

    assert len(listed["data"][0]["Activities"]) == listed["meta"]["activities_total_returned"] == 4
    assert listed["meta"]["activities_truncated"] is True
    assert len(detail["data"]["Activities"]) == 4
    assert detail["meta"]["activities_meta"]["count"] == detail["data"]["activities_count"] >= 10
