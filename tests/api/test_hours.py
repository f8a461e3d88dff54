"""Hours over HTTP: stated, read, listed and removed, for an organisation, its channels and people."""

from datetime import UTC, datetime, timedelta

import pytest

from agent_jobs.hours import stated_hours
from agent_jobs.models import AuditEntry, Job, Org, PlaceHours
from agent_jobs.states import JobStatus
from tests import factories, rows

pytestmark = pytest.mark.django_db
BASE = "/services/organizations/acme/hours"
CHANNEL = f"{BASE}/channels/slack/C0ONE"
PERSON = f"{BASE}/people/slack/U0ANN"
NIGHTS = {"time_zone": "Europe/Berlin", "quiet": ["22:00-07:00"]}
OPEN = {"time_zone": "UTC", "quiet": []}
# Whatever the hour of the test is.
CLOSED_TODAY = {"time_zone": "UTC", "quiet": [], "holidays": [f"{datetime.now(UTC) + timedelta(n):%F}" for n in (0, 1)]}


def shown(kind, **fields):
    return {"org_id": "acme", "kind": kind, "hours": OPEN, "is_open": True, **fields}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (BASE, shown("organization")),
        (CHANNEL, shown("channel", platform="slack", name="C0ONE")),
        (PERSON, shown("person", platform="slack", name="U0ANN")),
    ],
)
def test_hours_are_stated_read_stated_anew_and_removed(acme, path, expected):
    assert acme.get(path).status_code == 404

    stated = acme.put(path, {"hours": OPEN})

    assert (stated.status_code, stated.json()) == (200, {"data": expected, "meta": {"org_id": "acme"}})
    assert acme.get(path).json() == stated.json()
    assert acme.put(path, {"hours": NIGHTS}).json()["data"]["hours"] == NIGHTS
    assert acme.get(path).json()["data"]["hours"] == NIGHTS

    removed = acme.delete(path)

    assert removed.status_code == 200
    gone = acme.get(path)
    assert (gone.status_code, gone.json()["code"]) == (404, "hours_not_found")
    assert acme.delete(path).status_code == 404
    assert Org.objects.get().hours is None
    assert not PlaceHours.objects.exists()


def test_where_it_is_closed_now_the_answer_says_when_it_opens(acme):
    data = acme.put(BASE, {"hours": CLOSED_TODAY}).json()["data"]
    assert data["is_open"] is False
    assert data["opens_at"] > f"{datetime.now(UTC):%FT%T}"
    assert data["opens_at"].endswith("T00:00:00.000000Z")


@pytest.mark.parametrize(
    ("hours", "fields"),
    [
        ({}, ["hours", "hours.time_zone"]),
        ({"time_zone": "Mars/Olympus", "quiet": []}, ["hours.time_zone"]),
        ({"time_zone": "../../etc/passwd", "quiet": []}, ["hours.time_zone"]),
        ({**NIGHTS, "open": {}}, ["hours"]),
        ({"time_zone": "UTC", "quiet": ["00:00-24:00"]}, ["hours"]),
        ({"time_zone": "UTC", "quiet": ["22-7"]}, ["hours.quiet.0"]),
        ({"time_zone": "UTC", "open": {"monday": ["09:00-12:00"]}}, ["hours.open.monday"]),
        ({"time_zone": "UTC", "open": {"mon": ["12:00-09:00"]}}, ["hours.open.mon.0"]),
        ({**NIGHTS, "holidays": ["2026-02-30"]}, ["hours.holidays.0"]),
        ({**NIGHTS, "zone": "UTC"}, ["hours.zone"]),
        ([], ["hours"]),
        ("22:00-07:00", ["hours"]),
    ],
)
@pytest.mark.parametrize("path", [BASE, CHANNEL, PERSON], ids=["organization", "channel", "person"])
def test_what_does_not_hold_is_refused_by_the_name_of_its_field(acme, path, hours, fields):
    response = acme.put(path, {"hours": hours})

    assert response.status_code == 400
    assert sorted(set(factories.fields_of(response))) == fields
    assert Org.objects.get().hours is None
    assert not PlaceHours.objects.exists()


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (f"{BASE}/channels/Slack/C0ONE", "platform"),
        (f"{BASE}/channels/slack/%20", "code"),
        (f"{BASE}/people/slack/a%00b", "person"),
        (f"{BASE}/people/slack/{'a' * 256}", "person"),
    ],
)
def test_names_that_no_channel_or_person_can_have_are_refused(acme, path, field):
    assert factories.fields_of(acme.put(path, {"hours": OPEN})) == [field]
    assert (acme.get(path).status_code, acme.delete(path).status_code) == (404, 404)


def test_a_reader_reads_and_does_not_write(acme, reader):
    acme.put(BASE, {"hours": OPEN})
    assert reader.get(BASE).status_code == 200
    assert (reader.put(BASE, {"hours": NIGHTS}).status_code, reader.delete(BASE).status_code) == (403, 403)


def test_channels_and_people_are_listed_apart_and_in_pages(acme):
    for number in range(3):
        acme.put(f"{BASE}/channels/slack/C{number}", {"hours": OPEN})
        acme.put(f"{BASE}/people/web/P{number}", {"hours": NIGHTS})

    first = acme.get(f"{BASE}/channels", {"limit": 2}).json()
    rest = acme.get(f"{BASE}/channels", {"limit": 2, "cursor": first["meta"]["next_cursor"]}).json()
    people = acme.get(f"{BASE}/people", {"sort": "-name"}).json()

    assert [entry["name"] for entry in first["data"] + rest["data"]] == ["C0", "C1", "C2"]
    assert first["data"][0] == shown("channel", platform="slack", name="C0")
    assert (first["meta"]["total"], first["meta"]["count"]) == (3, 2)
    assert [entry["name"] for entry in people["data"]] == ["P2", "P1", "P0"]
    assert "next_cursor" not in people["meta"]


def test_every_change_is_in_the_audit_and_none_that_changes_nothing(acme):
    for path in (BASE, PERSON):
        acme.put(path, {"hours": OPEN})
        acme.put(path, {"hours": OPEN})
        acme.put(path, {"hours": NIGHTS})
        acme.delete(path)

    entries = AuditEntry.objects.filter(object_type="hours").order_by("id")
    assert list(entries.values_list("object_id", "action", "before", "after")) == [
        entry
        for name in ("organization", "person:slack:U0ANN")
        for entry in (
            (name, "hours.created", None, {"hours": OPEN}),
            (name, "hours.updated", {"hours": OPEN}, {"hours": NIGHTS}),
            (name, "hours.removed", {"hours": NIGHTS}, None),
        )
    ]


@pytest.mark.parametrize(
    ("path", "woken"),
    [
        (BASE, {"lobby", "hall", "C0ONE"}),
        (f"{BASE}/channels/web/lobby", {"lobby"}),
        (f"{BASE}/people/web/Ann", {"lobby", "hall"}),
    ],
)
def test_what_waits_for_hours_looks_again_when_they_change(acme, path, woken):
    later = datetime.now(UTC) + timedelta(hours=8)
    for org_id, platform, code in (
        ("acme", "web", "lobby"),
        ("acme", "web", "hall"),
        ("acme", "slack", "C0ONE"),
        ("rival", "web", "lobby"),
    ):
        rows.job(
            JobStatus.RUNNING,
            org_id,
            platform=platform,
            channel_code=code,
            lease_until=None,
            waiting_for="quiet_hours",
            wake_at=later,
        )
    rows.job(JobStatus.RUNNING, lease_until=None, waiting_for="reply", wake_at=later, channel_code="lobby")

    acme.put(path, {"hours": NIGHTS})

    awake = Job.objects.filter(wake_at__lt=later)
    assert set(awake.values_list("channel_code", flat=True)) == woken
    assert set(awake.values_list("org_id", "waiting_for")) == {("acme", "quiet_hours")}


def test_that_an_organisation_has_hours_is_known_at_once_where_they_were_stated(acme):
    stated_hours.forget()
    assert not stated_hours.has_any("acme")
    acme.put(PERSON, {"hours": NIGHTS})
    assert stated_hours.has_any("acme")
    acme.delete(PERSON)
    assert not stated_hours.has_any("acme")


def test_whether_quiet_hours_count_is_a_key_of_the_config(acme):
    for value, status in ((False, 201), (True, 201), ("no", 400), (0, 400)):
        response = acme.post("/services/agent-jobs", factories.job_request(config={"count_quiet_hours": value}))
        assert response.status_code == status
        if status == 400:
            assert factories.fields_of(response) == ["config.count_quiet_hours"]


def test_what_a_job_waits_for_is_in_its_detail(acme):
    later = datetime.now(UTC) + timedelta(hours=8)
    job = rows.job(JobStatus.RUNNING, lease_until=None, waiting_for="quiet_hours", wake_at=later)
    data = acme.get(f"/services/agent-jobs/{job.pk}").json()["data"]
    assert (data["waiting_for"], data["wake_at"][:19]) == ("quiet_hours", f"{later:%FT%T}")
