"""Schedules over HTTP: made, shown, changed, versioned, previewed, refused."""

from datetime import UTC, datetime, timedelta

import pytest

from agent_jobs import sealed_work
from agent_jobs.models import AuditEntry, Job, Schedule
from tests import rows
from tests.schedules.conftest import BASE, make, stated

pytestmark = pytest.mark.django_db


def errors(response):
    return {error["field"] for error in response.json()["errors"]}


def test_a_schedule_is_made_and_shows_its_next_five_firings(acme):
    response = acme.post(BASE, stated(tags=["a", "b=c"], time_zone="Europe/Berlin", cron="30 2 * * *"))

    assert response.status_code == 201
    data = response.json()["data"]
    assert (data["status"], data["version"], data["runner"], data["tags"]) == ("active", 1, "message", ["a", "b=c"])
    assert data["describes"] == "At 02:30 every day, Europe/Berlin time"
    assert len(data["next_runs"]) == 5
    assert data["next_run_at"] == data["next_runs"][0]["at"]
    assert {run["local"][11:16] for run in data["next_runs"]} <= {"02:30", "03:00"}
    assert data["job"]["target_channel"] == {"platform": "web", "code": "lobby"}
    assert acme.get(f"{BASE}/{data['id']}").json()["data"] == data
    assert AuditEntry.objects.filter(action="schedule.created", object_id=data["id"]).count() == 1


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"cron": "0 0 31 2 *"}, "cron", "never"),
        ({"cron": "61 * * * *"}, "cron", "minute"),
        ({"cron": "* * *"}, "cron", "expression"),
        ({"cron": "0 0 * * *", "every_seconds": 60}, "cron", "exactly one"),
        ({"cron": None}, "cron", "exactly one"),
        ({"time_zone": "Mars/Olympus"}, "time_zone", "IANA"),
        ({"cron": "CRON_TZ=Mars/Olympus * * * * *"}, "cron", "IANA"),
        ({"starts_at": "2027-01-02T00:00:00Z", "ends_at": "2027-01-01T00:00:00Z"}, "ends_at", "before starts_at"),
        ({"cron": None, "run_at": "2020-01-01T00:00:00Z"}, "run_at", "never fires"),
        ({"ends_at": "2020-01-01T00:00:00Z"}, "cron", "never fires"),
        ({"overlap": "maybe"}, "overlap", "must be one of"),
        ({"misfire": {"policy": "later"}}, "misfire.policy", "must be one of"),
        (
            {"pauses": [{"starts_at": "2027-01-02T00:00:00Z", "ends_at": "2027-01-02T00:00:00Z"}]},
            "pauses.0.ends_at",
            "",
        ),
        ({"jitter_seconds": -1}, "jitter_seconds", ""),
        ({"name": " "}, "name", ""),
        ({"job": {"job_type_id": "greet"}}, "job.target_channel", "channel"),
        ({"every_seconds": 0, "cron": None}, "every_seconds", ""),
        ({"colour": "red"}, "colour", "is not a field"),
    ],
)
def test_what_does_not_hold_is_named_and_nothing_is_stored(acme, fields, field, words):
    response = acme.post(BASE, stated(**fields))
    assert response.status_code == 400, response.content
    assert field in errors(response)
    assert words in response.json()["message"]
    assert not Schedule.objects.exists()


def test_the_job_is_checked_as_a_post_of_it_would_be(acme):
    job = {**stated()["job"], "config": {"max_follow_ups": -1}, "params": {}}
    response = acme.post(BASE, stated(job=job))
    assert (response.status_code, errors(response)) == (400, {"job.config.max_follow_ups"})
    unknown = acme.post(BASE, stated(job={**stated()["job"], "job_type_id": "nothing"}))
    assert (unknown.status_code, unknown.json()["code"]) == (404, "job_type_not_found")


def test_another_organisations_schedule_does_not_exist(acme, rival):
    found = make(acme)
    for verb in ("get", "delete"):
        assert getattr(rival, verb)(f"{BASE}/{found}").status_code == 404
    for path in ("pause", "resume", "run", "rollback/1"):
        assert rival.post(f"{BASE}/{found}/{path}", None).status_code == 404
    for path in ("next", "jobs", "firings", "versions", "versions/1"):
        assert rival.get(f"{BASE}/{found}/{path}").status_code == 404
    assert rival.get(BASE).json()["data"] == []


def test_every_change_makes_a_version_and_tells_what_changed(acme):
    found = make(acme)
    path = f"{BASE}/{found}"

    acme.patch(path, {"job": {"params": {"name": "Bob"}}})
    acme.patch(path, {"job": {"params": {"name": "Bob"}}})  # no difference
    acme.post(f"{path}/pause", None)

    versions = acme.get(f"{path}/versions").json()["data"]
    assert [version["number"] for version in versions] == [3, 2, 1]
    assert versions[0]["diff"] == [{"field": "is_paused", "before": False, "after": True}]
    assert versions[1]["diff"] == [{"field": "job.params.name", "before": "Ann", "after": "Bob"}]
    assert versions[2]["definition"]["job"]["params"] == {"name": "Ann"}
    assert acme.get(f"{path}/versions/4").status_code == 404


def test_a_rollback_makes_a_new_version_of_the_old_configuration(acme):
    found = make(acme)
    path = f"{BASE}/{found}"
    acme.put(path, stated(name="Other", cron="@daily"))

    rolled = acme.post(f"{path}/rollback/1", None).json()["data"]

    assert (rolled["version"], rolled["name"], rolled["cron"]) == (3, "Hourly greeting", "0 * * * *")
    assert acme.get(f"{path}/versions/3").json()["data"]["note"] == "rolled back to version 1"


def test_the_mask_keeps_a_secret_and_a_rollback_brings_back_the_old_one(acme):
    rows.job_type(key="call", runner="webhook", default_config={})
    auth = {"type": "bearer", "token": "first-secret"}
    work = {"url": "https://example.com/", "auth": auth}
    found = make(acme, job={"job_type_id": "call", "work": work})
    path = f"{BASE}/{found}"
    masked = acme.get(path).json()["data"]["job"]
    assert masked["work"]["auth"]["token"] == "******"

    kept = acme.put(path, stated(name="Other", job=masked))
    assert kept.status_code == 200, kept.content
    assert sealed_work.secrets_of(Schedule.objects.get()) == {"/auth/token": "first-secret"}
    acme.patch(path, {"job": {"work": {**work, "auth": {**auth, "token": "second-secret"}}}})
    assert sealed_work.secrets_of(Schedule.objects.get()) == {"/auth/token": "second-secret"}
    versions = acme.get(f"{path}/versions")
    assert [one["number"] for one in versions.json()["data"]] == [3, 2, 1]
    assert b"-secret" not in versions.content.replace(b"other secrets", b"")

    assert acme.post(f"{path}/rollback/2", None).status_code == 200
    assert sealed_work.secrets_of(Schedule.objects.get()) == {"/auth/token": "first-secret"}


def test_if_match_refuses_a_change_of_another_version(acme):
    found = make(acme)
    path = f"{BASE}/{found}"
    assert acme.get(path)["ETag"] == '"1"'
    assert acme.patch(path, {"name": "A"}, If_Match='"1"').status_code == 200
    refused = acme.patch(path, {"name": "B"}, If_Match='"1"')
    assert (refused.status_code, refused.json()["code"]) == (409, "version_mismatch")
    assert acme.patch(path, {"name": "B"}, If_Match="x").status_code == 400


def test_one_timing_replaces_the_other(acme):
    found = make(acme)
    changed = acme.patch(f"{BASE}/{found}", {"every_seconds": 90}).json()["data"]
    assert changed["every_seconds"] == 90
    assert "cron" not in changed


def test_a_schedule_is_created_and_replaced_by_its_key(acme):
    path = f"{BASE}/by-key/report:nightly"
    made = acme.put(path, stated())
    again = acme.put(path, stated(name="Other"))
    assert (made.status_code, again.status_code) == (201, 200)
    assert made.json()["data"]["id"] == again.json()["data"]["id"]
    assert (again.json()["data"]["name"], again.json()["data"]["key"]) == ("Other", "report:nightly")
    assert acme.post(BASE, stated(key="report:nightly")).status_code == 409


def test_a_paused_schedule_fires_again_from_now_on(acme):
    found = make(acme)
    paused = acme.post(f"{BASE}/{found}/pause", None).json()["data"]
    assert (paused["status"], "next_run_at" in paused) == ("paused", False)
    resumed = acme.post(f"{BASE}/{found}/resume", None).json()["data"]
    assert resumed["status"] == "active"
    assert resumed["next_run_at"] > f"{datetime.now(UTC):%FT%T}"


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("status=active", 1),
        ("status=paused", 1),
        ("status=completed", 0),
        ("tag=red", 1),
        ("tag=re", 0),
        ("job_type_id=greet", 2),
        ("job_type_id=other", 0),
        ("q=HOURLY", 1),
        ("key=k", 1),
        ("runner=message", 2),
    ],
)
def test_lists_are_filtered(acme, query, count):
    make(acme, tags=["red"], key="k")
    make(acme, name="Second", is_paused=True)
    listed = acme.get(f"{BASE}?{query}").json()
    assert (len(listed["data"]), listed["meta"]["total"]) == (count, count)


def test_a_timing_that_is_not_stored_can_be_previewed(acme):
    asked = {"cron": "30 2 * * *", "time_zone": "Europe/Berlin", "after": "2027-03-27T00:00:00Z", "count": 3}
    data = acme.post(f"{BASE}/preview", asked).json()["data"]
    assert [(run["at"], run.get("dst", "")) for run in data["next_runs"]] == [
        ("2027-03-27T01:30:00.000000Z", ""),
        ("2027-03-28T01:00:00.000000Z", "gap"),
        ("2027-03-29T00:30:00.000000Z", ""),
    ]
    assert acme.post(f"{BASE}/preview", {"cron": "0 0 31 2 *"}).status_code == 400


def test_the_preview_tells_the_very_times_at_which_jobs_start(acme):
    found = make(acme, jitter_seconds=300)
    runs = acme.get(f"{BASE}/{found}/next?count=3").json()["data"]["next_runs"]
    again = acme.get(f"{BASE}/{found}/next?count=3").json()["data"]["next_runs"]
    assert runs == again
    for run in runs:
        late = datetime.fromisoformat(run["starts_at"]) - datetime.fromisoformat(run["at"])
        assert timedelta(0) <= late < timedelta(seconds=300)


def test_a_run_by_hand_takes_overrides_and_works_while_paused(acme):
    found = make(acme, is_paused=True)
    response = acme.post(f"{BASE}/{found}/run", {"params": {"name": "Eve"}, "priority": 9})
    assert response.status_code == 200, response.content
    job = Job.objects.get(pk=response.json()["data"]["job_id"])
    assert (job.params, job.priority, str(job.schedule_id)) == ({"name": "Eve"}, 9, found)
    assert acme.get(f"{BASE}/{found}/jobs").json()["data"][0]["schedule_id"] == found
    firing = acme.get(f"{BASE}/{found}/firings").json()["data"][0]
    assert (firing["kind"], firing["outcome"]) == ("manual", "started")
    refused = acme.post(f"{BASE}/{found}/run", {"config": {"max_steps": 0}})
    assert (refused.status_code, errors(refused)) == (400, {"config.max_steps"})


def test_a_run_by_hand_carries_no_stored_secret_to_another_host(acme):
    rows.job_type(key="ping", runner="webhook", default_config={})
    work = {"url": "https://example.com/a", "auth": {"type": "bearer", "token": "s3cret-of-acme-42"}}
    found = make(acme, job={"job_type_id": "ping", "work": work})
    stolen = acme.post(f"{BASE}/{found}/run", {"work": {"url": "https://thief.example/"}})
    assert (stolen.status_code, Job.objects.count()) == (400, 0)
    job = {
        "job_type_id": "ping",
        "work": {**work, "url": "https://thief.example/", "auth": {**work["auth"], "token": "******"}},
    }
    edited = acme.patch(f"{BASE}/{found}", {"job": job})
    assert (edited.status_code, errors(edited)) == (400, {"job.work.auth.token"})
    moved = acme.post(f"{BASE}/{found}/run", {"work": {"url": "https://example.com/b"}})
    assert moved.status_code == 200, moved.content
    assert Job.objects.get().sealed_work


def test_a_backfill_makes_the_jobs_of_past_times_once(acme):
    found = make(acme)
    span = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T05:00:00Z"}
    path = f"{BASE}/{found}/backfill"

    tried = acme.post(path, {**span, "dry_run": True}).json()["data"]
    assert (len(tried["times"]), Job.objects.count()) == (6, 0)
    made = acme.post(path, span).json()["data"]
    again = acme.post(path, span).json()["data"]

    assert ({one["outcome"] for one in made["firings"]}, len(made["firings"])) == ({"started"}, 6)
    assert (again["skipped"], again["firings"]) == (6, [])
    assert Job.objects.count() == 6
    too_many = acme.post(path, {"start": "2020-01-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"})
    assert (too_many.status_code, errors(too_many)) == (400, {"end"})
    ahead = acme.post(path, {"start": "2026-01-01T00:00:00Z", "end": "2100-01-01T00:00:00Z"})
    assert (ahead.status_code, errors(ahead)) == (400, {"end"})


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [
        ("2026-01-01T00:00:00Z", "2026-01-13T00:00:00Z", "more than 1,000 firings"),  # a million
        ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z", "is before start"),
        ("1970-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "more than 1,000 firings"),
    ],
)
def test_a_bad_range_is_refused_at_once_and_makes_nothing(acme, start, end, words):
    found = make(acme, cron="* * * * * *")
    for is_dry_run in (True, False):
        answer = acme.post(f"{BASE}/{found}/backfill", {"start": start, "end": end, "dry_run": is_dry_run})
        assert (answer.status_code, errors(answer)) == (400, {"end"})
        assert words in answer.json()["message"]
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"cron": "0 0 31 2 *"}, "cron"),
        ({"cron": "0 0 30 2 *"}, "cron"),
        ({"cron": "0 0 31 4,6,9,11 *"}, "cron"),
        ({"cron": "*/90 * * * *"}, "cron"),
        ({"cron": "* * * * *" * 100}, "cron"),
        ({"cron": "@every 1000000h"}, "cron"),
        ({"cron": "@daily", "time_zone": "../../etc/passwd"}, "time_zone"),
        ({"cron": "@daily", "time_zone": "America"}, "time_zone"),
        ({"cron": "@daily", "starts_at": "2027-01-02T00:00:00Z", "ends_at": "2027-01-01T00:00:00Z"}, "ends_at"),
    ],
)
def test_a_preview_refuses_what_a_schedule_would(acme, fields, field):
    answer = acme.post(f"{BASE}/preview", fields)
    assert (answer.status_code, errors(answer)) == (400, {field})


def test_a_body_of_ten_megabytes_is_refused(acme):
    body = stated(description="x" * 10_000_000)
    for answer in (acme.post(BASE, body), acme.post(f"{BASE}/preview", body), acme.put(f"{BASE}/by-key/k", body)):
        assert answer.status_code == 413
    assert not Schedule.objects.exists()


def test_the_work_of_a_schedules_job_is_checked_too(acme, settings):
    settings.ALLOW_PRIVATE_ADDRESSES = False
    rows.job_type(key="call", runner="webhook", default_config={})
    for work, field in (
        ({"url": "https://127.0.0.1/"}, "job.work.url"),
        ({"url": "https://10.1.2.3/"}, "job.work.url"),
        ({"url": "https://example.com/", "headers": {"X-A": "a\r\nX-B: b"}}, "job.work.headers.X-A"),
    ):
        answer = acme.post(BASE, stated(job={"job_type_id": "call", "work": work}))
        assert (answer.status_code, errors(answer)) == (400, {field})


def test_a_deleted_schedule_leaves_its_jobs(acme):
    found = make(acme)
    acme.post(f"{BASE}/{found}/run", None)
    assert acme.delete(f"{BASE}/{found}").status_code == 200
    assert acme.delete(f"{BASE}/{found}").status_code == 404
    assert acme.get(f"{BASE}/{found}/versions").status_code == 404
    assert Job.objects.count() == 1


def test_an_idempotency_key_makes_one_schedule(acme):
    headers = {"Idempotency_Key": "one"}
    first, second = (acme.post(BASE, stated(), **headers).json()["data"]["id"] for _ in range(2))
    assert first == second
    assert Schedule.objects.count() == 1
