import re
from datetime import UTC, datetime, timedelta

import pytest

from agent_jobs.models import Job, JobType, Schedule, ScheduleFiring
from agent_jobs.schedules import editing
from agent_jobs.states import JobStatus
from tests import rows
from tests.rows import TESTER

LIST = "/console/acme/schedules"
ACTIONS = ("pause", "resume", "run", "delete", "edit", "backfill", "versions/1/roll-back")


@pytest.fixture
def schedule(db):
    return made()


def made(org_id="acme", **fields):
    rows.job_type(org_id)
    job = {
        "job_type_id": "greet",
        "target_channel": {"platform": "web", "code": "lobby"},
        "params": {"name": "Ann"},
    }
    stated = {"name": "Ledger close", "cron": "30 2 * * *", "time_zone": "Europe/Berlin", "job": job, **fields}
    return editing.create(org_id, stated, actor=TESTER)


def page(schedule, action=""):
    return f"/console/{schedule.org_id}/schedules/{schedule.pk}{'/' if action else ''}{action}"


def fired(schedule, at, outcome="started", status=None, **columns):
    job = None
    if status:
        job = rows.job(status, schedule_id=schedule.pk, fire_at=at, started_at=at, **columns)
    return ScheduleFiring.objects.create(
        org_id=schedule.org_id,
        schedule=schedule,
        fire_at=at,
        kind="timer",
        outcome=outcome,
        reason="" if job else "an earlier job of the schedule has not ended",
        job_id=job.pk if job else None,
    )


def sent(schedule, **changes):
    """The form of this schedule as a browser would send it."""
    definition = schedule.definition
    return {
        "name": definition["name"],
        "how": "cron",
        "cron": definition["cron"],
        "time_zone": definition["time_zone"],
        "misfire": "run_once",
        "overlap": "allow",
        "gap": "auto",
        "fold": "auto",
        "platform": "web",
        "code": "lobby",
        "job_type_id": "greet",
        "params_json": '{"name": "Ann"}',
        "version": str(schedule.version),
        **changes,
    }


# --- The list --------------------------------------------------------------------------------------------------
def test_the_list_shows_when_each_schedule_runs_and_how_it_went(admin, schedule):
    now = datetime.now(UTC)
    fired(schedule, now - timedelta(days=1), status=JobStatus.COMPLETED)
    fired(schedule, now - timedelta(hours=2), outcome="skipped")
    made("rival", name="Theirs")

    html = admin.get(LIST).content.decode()

    assert "Ledger close" in html
    assert "At 02:30 every day" in html
    assert 'aria-label="Last 2: 1 skipped, 1 completed"' in html
    assert "Theirs" not in html


def test_the_list_is_filtered_by_state_and_text(admin, schedule):
    paused = made(name="Media clean-up", tags=["media"])
    editing.pause("acme", paused.pk, actor=TESTER)
    fired(schedule, datetime.now(UTC), status=JobStatus.FAILED)

    def names(**query):
        return set(re.findall(r'class="t" href="[^"]*">([^<]*)<', admin.get(LIST, query).content.decode()))

    assert names() == {"Ledger close", "Media clean-up"}
    assert names(state="paused") == names(q="media") == {"Media clean-up"}
    assert names(state="active") == names(state="failing") == names(q="ledger") == {"Ledger close"}
    assert names(q="nothing like it") == set()


def test_a_completed_schedule_is_not_counted_as_active(admin, schedule):
    ended = made(name="Once in spring")
    Schedule.objects.filter(pk=ended.pk).update(next_at=None)

    answer = admin.get(LIST, {"state": "active"})
    html = answer.content.decode()

    assert "Ledger close" in html
    assert "Once in spring" not in html
    assert dict(each[:2] for each in answer.context["states"]) == {"all": 2, "active": 1, "paused": 0, "failing": 0}


def test_who_paused_a_schedule_is_said(admin, schedule):
    admin.post(page(schedule, "pause"))

    assert "paused by Jane Doe" in admin.get(LIST).content.decode()


def test_the_week_shows_each_firing_and_a_line_for_frequent_ones(admin, schedule):
    made(name="Inventory sync", cron="*/5 * * * *")

    html = admin.get(LIST).content.decode()

    assert "Inventory sync: Every 5 minutes" in html
    assert html.count("Ledger close, 0") in (7, 6)  # its time today may be past


def test_the_list_takes_few_queries(admin, django_assert_max_num_queries):
    for number in range(12):
        one = made(name=f"Schedule {number}")
        fired(one, datetime.now(UTC) - timedelta(hours=1), status=JobStatus.COMPLETED)
        if number % 2:
            editing.pause("acme", one.pk, actor=TESTER)

    with django_assert_max_num_queries(12):
        admin.get(LIST)


# --- One schedule ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tab", ["firings", "versions", "job", "audit", "nothing"])
def test_every_tab_of_a_schedule_has_an_address(admin, schedule, tab, django_assert_max_num_queries):
    fired(schedule, datetime.now(UTC) - timedelta(days=1), status=JobStatus.COMPLETED)
    fired(schedule, datetime.now(UTC) - timedelta(hours=1), outcome="skipped")

    with django_assert_max_num_queries(12):
        answer = admin.get(page(schedule), {"tab": tab})

    assert answer.status_code == 200
    assert "Ledger close" in answer.content.decode()


def test_the_next_firings_mark_a_change_of_the_clocks(admin, schedule):
    leap = made(name="Sundays", cron="30 2 * 3 7L", dst={"gap": "run_after", "fold": "auto"})

    assert "02:30 does not exist that day; it runs after the gap" in admin.get(page(leap)).content.decode()


def test_a_schedule_of_another_organisation_is_not_there(admin, stranger, schedule):
    theirs = made("rival")

    for action in ("", *ACTIONS, "versions/1..1"):
        assert admin.get(page(theirs, action).replace("/rival/", "/acme/")).status_code == 404
        assert admin.get(page(theirs, action)).status_code == 404
        assert stranger.get(page(schedule, action)).status_code == 404
    for action in ACTIONS[:4]:
        assert admin.post(page(theirs, action).replace("/rival/", "/acme/")).status_code == 404
    assert Schedule.objects.get(pk=theirs.pk).version == 1


def test_a_member_reads_and_may_not_change_a_schedule(member, schedule):
    assert member.get(LIST).status_code == 200
    html = member.get(page(schedule)).content.decode()

    assert "Pause…" not in html
    assert "Roll back" not in html
    for action in ACTIONS:
        assert member.post(page(schedule, action)).status_code == 403
        assert member.get(page(schedule, action)).status_code == 403
    assert member.get(f"{LIST}/new").status_code == 403
    assert not Job.objects.exists()


def test_an_admin_pauses_and_resumes(admin, schedule):
    asked = admin.get(page(schedule, "pause"), headers={"HX-Request": "true"}).content.decode()
    assert "Pause Ledger close?" in asked
    assert "<html" not in asked

    admin.post(page(schedule, "pause"))
    schedule.refresh_from_db()
    assert (schedule.is_paused, schedule.next_at) == (True, None)

    told = admin.get(admin.post(page(schedule, "resume"))["Location"]).content.decode()
    schedule.refresh_from_db()
    assert schedule.next_at is not None
    assert "The schedule is resumed" in told


def test_an_admin_runs_a_schedule_now(admin, schedule):
    told = admin.get(admin.post(page(schedule, "run"))["Location"]).content.decode()

    job = Job.objects.get(schedule_id=schedule.pk)
    assert "A job is made" in told
    assert f"/console/acme/jobs/{job.pk}" in told


def test_a_run_that_makes_no_job_says_why(admin, schedule):
    JobType.objects.update(active=False)

    told = admin.get(admin.post(page(schedule, "run"))["Location"]).content.decode()

    assert "No job was made" in told
    assert not Job.objects.exists()


def test_an_admin_rolls_back_after_seeing_what_changes(admin, schedule):
    editing.change("acme", schedule.pk, {"cron": "0 4 * * *"}, actor=TESTER)

    asked = admin.get(page(schedule, "versions/1/roll-back")).content.decode()
    compared = admin.get(page(schedule, "versions/1..2")).content.decode()
    admin.post(page(schedule, "versions/1/roll-back"))

    schedule.refresh_from_db()
    assert "0 4 * * * → 30 2 * * *" in asked
    assert "- cron: 30 2 * * *" in compared
    assert (schedule.version, schedule.definition["cron"]) == (3, "30 2 * * *")
    assert admin.get(page(schedule, "versions/9/roll-back")).status_code == 404


def test_an_admin_deletes_a_schedule(admin, schedule):
    assert admin.post(page(schedule, "delete"))["Location"] == LIST
    assert not Schedule.objects.exists()


# --- The form --------------------------------------------------------------------------------------------------
def test_the_preview_shows_the_next_ten_firings(admin, schedule):
    html = admin.post(f"{LIST}/preview", sent(schedule, cron="0 9 * * 1-5")).content.decode()

    assert "At 09:00 on Monday to Friday." in html
    assert html.count("<time") == 10


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"cron": "61 * * * *"}, "minute"),
        ({"cron": ""}, "may not be blank"),
        ({"time_zone": "Mars/Base"}, "is not a name of the iana database"),
        ({"how": "every", "every_seconds": "soon"}, "must be a whole number"),
        ({"how": "once", "run_at": "tomorrow"}, "must be a date and a time"),
        ({"cron": "0 0 30 2 *"}, ""),
    ],
)
def test_the_preview_says_what_is_wrong(admin, schedule, wrong, words):
    answer = admin.post(f"{LIST}/preview", sent(schedule, **wrong))

    assert answer.status_code == 200
    assert words in answer.content.decode().lower()
    assert "<time" not in answer.content.decode()


def test_an_edit_makes_a_version_and_keeps_what_the_form_does_not_show(admin, schedule):
    editing.change("acme", schedule.pk, {"annotations": {"team": "ops"}, "job": {"priority": 7}}, actor=TESTER)
    schedule.refresh_from_db()

    answer = admin.post(page(schedule, "edit"), sent(schedule, cron="0 5 * * *", params_json='{"name": "Bo"}'))

    schedule.refresh_from_db()
    assert answer.status_code == 302
    assert schedule.version == 3
    assert schedule.definition["cron"] == "0 5 * * *"
    assert schedule.definition["annotations"] == {"team": "ops"}
    assert schedule.definition["job"]["params"] == {"name": "Bo"}
    assert schedule.definition["job"]["priority"] == 7


def test_a_wrong_edit_is_refused_beside_its_field(admin, schedule):
    answer = admin.post(page(schedule, "edit"), sent(schedule, cron="61 * * * *", name="Kept words"))

    assert answer.status_code == 400
    assert "Kept words" in answer.content.decode()
    assert 'aria-invalid="true"' in answer.content.decode()
    schedule.refresh_from_db()
    assert schedule.version == 1


def test_an_edit_of_an_older_version_is_refused(admin, schedule):
    stale = sent(schedule, cron="0 5 * * *")
    editing.change("acme", schedule.pk, {"cron": "0 6 * * *"}, actor=TESTER)

    answer = admin.post(page(schedule, "edit"), stale)

    schedule.refresh_from_db()
    assert answer.status_code == 400
    assert "version 2 and not at 1" in answer.content.decode()
    assert schedule.definition["cron"] == "0 6 * * *"


def test_a_new_schedule_begins_with_its_job_type(admin, schedule):
    assert "?type=greet" in admin.get(f"{LIST}/new").content.decode()
    assert 'name="cron"' in admin.get(f"{LIST}/new", {"type": "greet"}).content.decode()

    answer = admin.post(f"{LIST}/new", sent(schedule, name="Another", how="every", every_seconds="3600"))

    found = Schedule.objects.get(name="Another")
    assert answer["Location"] == page(found)
    assert found.definition["every_seconds"] == 3600
    assert found.created_by == "user:jane"


def test_the_form_states_the_first_and_last_time_and_pauses(admin, schedule):
    form = {"starts_at": "2030-01-01T08:00", "ends_at": "2030-06-01T08:00", "pause.0.starts_at": "2030-02-01T00:00"}
    form |= {"pause.0.ends_at": "2030-02-08T00:00", "pause.1.starts_at": "2030-05-01T00:00"}

    admin.post(page(schedule, "edit"), sent(schedule, **form))

    schedule.refresh_from_db()
    definition = schedule.definition
    assert (definition["starts_at"][:16], definition["ends_at"][:16]) == ("2030-01-01T08:00", "2030-06-01T08:00")
    assert [one["starts_at"][:10] for one in definition["pauses"]] == ["2030-02-01", "2030-05-01"]
    assert 'value="2030-02-08T00:00"' in admin.get(page(schedule, "edit")).content.decode()
    html = admin.post(f"{LIST}/preview", sent(schedule, **form)).content.decode()
    assert 'datetime="2030-01-02T' in html
    assert 'datetime="2030-01-01T' not in html

    admin.post(page(schedule, "edit"), sent(schedule))
    schedule.refresh_from_db()
    assert not {"starts_at", "ends_at"} & set(schedule.definition)
    assert schedule.definition["pauses"] == []


def test_a_time_that_nobody_touched_keeps_its_seconds(admin, schedule):
    editing.change("acme", schedule.pk, {"starts_at": "2030-01-01T08:00:17Z"}, actor=TESTER)
    schedule.refresh_from_db()

    admin.post(page(schedule, "edit"), sent(schedule, starts_at="2030-01-01T08:00", cron="0 5 * * *"))

    schedule.refresh_from_db()
    assert (schedule.definition["starts_at"], schedule.definition["cron"]) == (
        "2030-01-01T08:00:17.000000Z",
        "0 5 * * *",
    )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"starts_at": "2030-02-01T00:00", "ends_at": "2030-01-01T00:00"}, "Is before starts_at"),
        ({"pause.0.ends_at": "2030-01-01T00:00"}, "needs a begin"),
        ({"config_json": '{"max_follow_ups": -1}'}, "config.max_follow_ups"),
        ({"config_json": "[1]"}, "Must be a JSON object"),
        ({"outcome_platform": "web"}, "outcome_channel"),
    ],
)
def test_wrong_bounds_and_configs_are_refused(admin, schedule, wrong, words):
    answer = admin.post(page(schedule, "edit"), sent(schedule, **wrong))

    assert answer.status_code == 400
    assert words in answer.content.decode()


def test_the_form_states_and_removes_the_config_and_the_outcome_channel(admin, schedule):
    editing.change(
        "acme", schedule.pk, {"job": {"outcome_channel": {"platform": "web", "code": "lobby"}}}, actor=TESTER
    )
    schedule.refresh_from_db()
    kept = {"outcome_platform": "web", "outcome_code": "lobby", "outcome_template": "It is {{ status }}."}

    admin.post(page(schedule, "edit"), sent(schedule, config_json='{"max_task_retries": 2}', **kept))
    schedule.refresh_from_db()
    assert schedule.definition["job"]["config"] == {"max_task_retries": 2}
    assert schedule.definition["job"]["outcome_channel"]["template"] == "It is {{ status }}."

    admin.post(page(schedule, "edit"), sent(schedule))
    schedule.refresh_from_db()
    assert not {"config", "outcome_channel"} & set(schedule.definition["job"])


def test_past_firings_are_counted_first_and_then_made_up_for(admin, schedule):
    address = page(schedule, "backfill")
    until = datetime.now(UTC) - timedelta(days=1)
    form = {
        "start": f"{until - timedelta(days=3):%Y-%m-%dT%H:%M}",
        "end": f"{until:%Y-%m-%dT%H:%M}",
        "overlap": "allow",
    }
    assert 'name="start"' in admin.get(address).content.decode()

    assert "Make 3 firings" in admin.post(address, form).content.decode()
    assert "Another number than before" in admin.post(address, {**form, "expected": "2"}).content.decode()
    assert not Job.objects.exists()
    told = admin.get(admin.post(address, {**form, "expected": "3"})["Location"]).content.decode()

    assert "3 firings, 3 of them with a job." in told
    assert Job.objects.filter(schedule_id=schedule.pk).count() == 3
    assert "Nothing is missing in this range." in admin.post(address, form).content.decode()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"start": ""}, "date and a time"), ({"end": "2199-01-01T00:00"}, "in the future"), ({"overlap": "x"}, "choices")],
)
def test_a_wrong_range_is_refused_beside_its_field(admin, schedule, wrong, words):
    form = {"start": "2026-01-01T00:00", "end": "2026-01-02T00:00", "overlap": "allow", **wrong}
    answer = admin.post(page(schedule, "backfill"), form)

    assert answer.status_code == 400
    assert words in answer.content.decode()
