"""Events of jobs and requests that wait: what is told, and what is refused. `tests.live` has the web process."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now

from agent_jobs.api import streams
from agent_jobs.models import AppToken, Job
from agent_jobs.states import TERMINAL, JobStatus
from tests import factories, open_answers, rows


def path(job, rest="/events"):
    return f"/services/agent-jobs/{job.pk}{rest}"


def told(response):
    """(kind, data, id) of each event."""
    found = []
    for text in open_answers.frames_of(response).decode().split("\n\n")[:-1]:
        if not text.startswith(":"):
            fields = dict(line.split(": ", 1) for line in text.split("\n"))
            found.append((fields["event"], json.loads(fields["data"]), fields.get("id", "")))
    return found


@pytest.fixture
def brief(settings):
    """Streams tell what there is, and end."""
    settings.STREAM_SECONDS = 0


@pytest.mark.django_db
@pytest.mark.usefixtures("brief")
class TestEvents:
    def test_every_activity_is_told_as_the_list_shows_it(self, reader):
        job, other = rows.job(JobStatus.RUNNING), rows.job()
        for number in range(120):
            factories.activity(job, f"step.{number}", input={"n": number})
        factories.activity(other, "other.step")

        events = told(reader.get(path(job)))

        listed = reader.get(
            "/services/activities", {"job_id": str(job.pk), "limit": 1000, "sort": "created_at:asc"}
        ).json()["data"]
        assert [data for _, data, _ in events] == listed
        assert {kind for kind, _, _ in events} == {"activity"}
        assert [event_id for _, _, event_id in events] == [str(number) for number in range(1, 121)]

    @pytest.mark.parametrize("status", sorted(TERMINAL))
    def test_the_last_event_of_a_job_that_has_ended_says_so(self, reader, status):
        job = rows.job(status)
        factories.activity(job, "job.ended")

        first, end = told(reader.get(path(job)))

        assert (end[0], end[1]["job_status"], end[2]) == ("end", status, "")
        assert reader.get(path(job), Last_Event_ID=first[2]).status_code == 204
        assert told(reader.get(path(job), Last_Event_ID="0")) == [first, end]
        factories.activity(job, "late")
        assert [kind for kind, _, _ in told(reader.get(path(job), Last_Event_ID=first[2]))] == ["activity", "end"]

    def test_an_activity_that_cannot_be_shown_is_left_out(self, reader, caplog):
        job, other = rows.job(JobStatus.FAILED), rows.job(JobStatus.FAILED)
        odd = [factories.activity(job, code) for code in ("a", "odd", "c")][1]
        factories.activity(other, "x")
        with connection.cursor() as cursor:
            cursor.execute("UPDATE agent_jobs_activity SET created_at = 'infinity' WHERE id = %s", [odd.pk])

        found = [told(reader.get(path(one))) for one in (job, other)]

        assert [(kind, event_id) for kind, _, event_id in found[0]] == [
            ("activity", "1"),
            ("activity", "3"),
            ("end", ""),
        ]
        assert [kind for kind, _, _ in found[1]] == ["activity", "end"]
        assert str(odd.pk) in caplog.text

    def test_a_job_that_cannot_be_shown_holds_up_no_other_one(self, reader):
        fine = rows.job(JobStatus.FAILED)
        odd = rows.job()
        factories.activity(fine, "x")
        with connection.cursor() as cursor:
            cursor.execute("UPDATE agent_jobs_job SET updated_at = 'infinity' WHERE id = %s", [odd.pk])
        token = AppToken.objects.get()
        opened = [streams.EventStream(org_id="acme", job_id=job.pk, token_pk=token.pk) for job in (odd, fine)]

        found = streams.look(opened)

        assert [new.end for new in found] == ["", "ended"]

    def test_what_is_wrong_is_named(self, reader):
        job = rows.job()

        for query, headers, field in (
            ({"last_event_id": "x"}, {}, "last_event_id"),
            ({}, {"Last_Event_ID": "x"}, "Last-Event-ID"),
            ({"last_event_id": "1"}, {}, "last_event_id"),
            ({}, {"Last_Event_ID": "-1"}, "Last-Event-ID"),
            ({"limit": "3"}, {}, "limit"),
        ):
            response = reader.get(path(job), query, **headers)
            assert (response.status_code, factories.fields_of(response)) == (400, [field])

    def test_a_head_request_follows_nothing(self, reader):
        response = reader.send("HEAD", path(rows.job()))

        assert (response.status_code, response["Content-Type"], response.getvalue()) == (200, "text/event-stream", b"")

    def test_the_same_under_the_other_prefix(self, reader):
        job = rows.job()
        factories.activity(job)

        assert len(told(reader.get(f"/api/v0{path(job)}"))) == 1


@pytest.mark.django_db
class TestLimits:
    def test_an_organisation_has_only_so_many_and_gives_them_back(self, reader, rival, settings):
        settings.STREAMS_PER_ORG, settings.STREAM_SECONDS = 1, 0
        job, theirs = rows.job(), rows.job(org_id="rival")
        first = reader.get(path(job))

        refused = reader.get(path(job))
        waits = reader.get(path(job, ""), {"wait": "5"})

        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
        assert waits.status_code == 429
        assert refused["Retry-After"] == str(streams.RETRY_AFTER_SECONDS)
        assert rival.get(path(theirs)).status_code == 200
        told(first)
        assert reader.get(path(job)).status_code == 200

    def test_a_process_has_only_so_many(self, reader, settings):
        settings.STREAMS = 0

        response = reader.get(path(rows.job()))

        assert (response.status_code, response.json()["code"]) == (503, "too_many_streams")
        assert "Retry-After" in response


@pytest.mark.django_db
class TestWaiting:
    def test_a_job_that_has_ended_or_changed_is_shown_at_once(self, reader):
        ended, changed = rows.job(JobStatus.COMPLETED), rows.job()
        began = time.monotonic()

        known = reader.get(path(changed, ""))["ETag"]
        factories.activity(changed)
        answers = [
            reader.get(path(ended, ""), {"wait": "60"}),
            reader.get(path(changed, ""), {"wait": "60", "since": known}),
            reader.get(path(changed, ""), {"wait": "60", "since": "2026-01-01"}),
        ]

        assert [answer.status_code for answer in answers] == [200, 200, 200]
        assert answers[1]["ETag"] != known
        assert time.monotonic() - began < 30

    def test_a_wait_is_over_when_its_time_is(self, reader):
        job = rows.job()
        shown = reader.get(path(job, ""))
        since = (shown["ETag"], f"W/{shown['ETag']}", shown["ETag"].strip('"'), shown.json()["data"]["updated_at"])

        for known in since:
            began = time.monotonic()
            response = reader.get(path(job, ""), {"wait": "1", "since": known})
            assert time.monotonic() - began >= 1
            assert response.json()["data"] == shown.json()["data"]

    def test_the_version_changes_with_the_job_and_only_then(self, reader):
        job = rows.job()
        versions = [reader.get(path(job, ""))["ETag"] for _ in range(2)]
        Job.objects.filter(pk=job.pk).update(priority=7, updated_at=Now() + timedelta(seconds=1))
        versions.append(reader.get(path(job, ""))["ETag"])
        factories.activity(job)
        versions.append(reader.get(path(job, ""))["ETag"])

        assert versions[0] == versions[1]
        assert len(set(versions)) == 3

    @pytest.mark.parametrize(
        ("query", "fields"),
        [
            ({"wait": "61"}, ["wait"]),
            ({"wait": "-1"}, ["wait"]),
            ({"wait": "1", "since": "yesterday"}, ["since"]),
            ({"since": "2026-01-01"}, ["since"]),
        ],
    )
    def test_what_is_wrong_is_named(self, reader, query, fields):
        response = reader.get(path(rows.job(), ""), query)

        assert (response.status_code, factories.fields_of(response)) == (400, fields)


@pytest.mark.django_db(transaction=True)
class TestWhileItIsOpen:
    @pytest.fixture
    def meanwhile(self, monkeypatch):
        """Runs an action in its own session after the first look has found nothing."""
        look, changes = streams.look, []

        def then_change(opened):
            found = look(opened)
            if changes:
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(lambda change: (change(), connection.close()), changes.pop()).result()
            return found

        monkeypatch.setattr(streams, "look", then_change)
        return changes.append

    def test_a_wait_ends_with_the_change(self, meanwhile):
        job, api = rows.job(), factories.api()
        meanwhile(lambda: factories.activity(job))
        began = time.monotonic()

        response = api.get(path(job, ""), {"wait": "60"})

        assert response.json()["data"]["activities_count"] == 1
        assert time.monotonic() - began < 30

    def test_a_stream_is_broken_off_when_its_token_is_revoked(self, meanwhile):
        job, api = rows.job(), factories.api()
        meanwhile(lambda: AppToken.objects.update(revoked_at=Now()))

        ((kind, data, event_id),) = told(api.get(path(job)))

        assert (kind, data["code"], event_id) == ("closed", "unauthenticated", "")

    def test_a_stream_is_broken_off_when_its_token_expires(self, meanwhile):
        job, api = rows.job(), factories.api()
        meanwhile(lambda: AppToken.objects.update(expires_at=Now() + timedelta(seconds=0.5)))

        assert [kind for kind, _, _ in told(api.get(path(job)))] == ["closed"]

    def test_a_stream_is_broken_off_when_its_job_is_pruned(self, meanwhile):
        job, api = rows.job(), factories.api()
        meanwhile(lambda: Job.objects.all().delete())

        ((kind, data, _),) = told(api.get(path(job)))

        assert (kind, data["code"]) == ("closed", "job_not_found")


@pytest.mark.django_db
@pytest.mark.usefixtures("brief")
class TestChanges:
    def test_the_ids_of_changed_jobs_are_told_from_a_place_on(self, reader):
        ours = rows.job()
        rows.job(org_id="rival")

        ((kind, data, event_id),) = told(reader.get("/services/agent-jobs/changes", Last_Event_ID="0"))

        assert (kind, data) == ("changes", {"job_ids": [str(ours.pk)]})
        assert told(reader.get("/services/agent-jobs/changes")) == []
        assert int(event_id) > 0

    def test_a_wrong_place_is_named(self, reader):
        answer = reader.get("/services/agent-jobs/changes", {"last_event_id": "x"})

        assert (answer.status_code, factories.fields_of(answer)) == (400, ["last_event_id"])
