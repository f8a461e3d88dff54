import json

from agent_jobs.api import streams
from agent_jobs.models import Membership
from tests import open_answers, rows

CHANGES = "/console/acme/jobs/changes"


def told(answer):
    return [
        json.loads(line.removeprefix("data: "))
        for line in open_answers.frames_of(answer).decode().split("\n")
        if line.startswith("data: ")
    ]


def test_a_page_is_told_of_changed_jobs_of_its_organisation(admin, settings):
    settings.STREAM_SECONDS = 0
    ours = rows.job()
    rows.job(org_id="rival")

    answer = admin.get(CHANGES, headers={"Last-Event-ID": "0"})

    assert answer["Content-Type"] == "text/event-stream"
    assert told(answer) == [{"job_ids": [str(ours.pk)]}]
    assert told(admin.get(CHANGES, {"last": "0"})) == [{"job_ids": [str(ours.pk)]}]
    assert told(admin.get(CHANGES, {"last": "nonsense"})) == []


def test_a_job_tells_its_versions(admin, settings):
    settings.STREAM_SECONDS = 0
    job = rows.job()

    (event,) = told(admin.get(f"/console/acme/jobs/{job.pk}/changes"))
    assert f"changes?seen={event['version']}" in admin.get(f"/console/acme/jobs/{job.pk}").content.decode()
    again = told(admin.get(f"/console/acme/jobs/{job.pk}/changes", {"seen": event["version"]}))

    assert event["job_status"] == "WAITING"
    assert again == []


def test_a_stream_ends_with_the_membership(admin):
    answer = admin.get(CHANGES)
    assert streams.look([answer.opened])[0].end == ""

    Membership.objects.all().delete()

    assert streams.look([answer.opened])[0].end == "revoked"
    answer.opened.place.leave()


def test_too_many_streams_are_asked_to_come_back(admin, settings):
    settings.STREAMS_PER_ORG = 0

    answer = admin.get(CHANGES)

    assert answer.status_code == 429
    assert int(answer["Retry-After"]) > 0


def test_nobody_and_strangers_follow_nothing(client, stranger, db):
    job = rows.job()
    for address in (CHANGES, f"/console/acme/jobs/{job.pk}/changes"):
        assert client.get(address).status_code == 302
        assert stranger.get(address).status_code == 404
