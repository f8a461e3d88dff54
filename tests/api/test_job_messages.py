"""A job's transcript, and a person's reply that an app brings in."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from agent_jobs.models import Activity, AuditEntry, Job, Message
from agent_jobs.states import TERMINAL, JobStatus
from tests import factories, rows
from tests.waiting import PATIENCE

REPLY = {"author": "Ann", "text": "Yes, at noon."}


def path(job):
    return f"/services/agent-jobs/{job.pk}/messages"


def waiting(**columns):
    """A conversation that has asked and waits for a reply."""
    return rows.job(
        JobStatus.RUNNING,
        **{"runner": "conversation", "lane": "agents", "lease_until": None, "waiting_for": "reply", **columns},
    )


def say(job, *texts, author="agent"):
    return [
        Message.objects.create(job=job, is_human=author != "agent", author=author, text=text, delivered_at=None)
        for text in texts
    ]


@pytest.mark.django_db
class TestTheTranscript:
    def test_it_is_told_in_the_order_of_speech_with_who_said_it(self, acme, rival):
        job = waiting()
        say(job, "When do we meet?")
        assert acme.post(path(job), REPLY).status_code == 201
        other = waiting()
        say(other, "Something else")

        body = acme.get(path(job)).json()

        ours, theirs = body["data"]
        assert (ours["author"], ours["is_human"], ours["text"]) == ("agent", False, "When do we meet?")
        assert "delivered_at" not in ours
        assert (theirs["author"], theirs["is_human"], theirs["text"]) == ("Ann", True, "Yes, at noon.")
        assert theirs["delivered_at"] >= theirs["created_at"]
        assert {line["job_id"] for line in body["data"]} == {str(job.pk)}
        assert {line["org_id"] for line in body["data"]} == {"acme"}
        assert body["meta"]["total"] == 2
        assert body["meta"]["sort"] == [{"field": "created_at", "direction": "asc"}]

    def test_it_is_cut_like_every_list(self, reader):
        job = waiting()
        say(job, *"abcde")

        first = reader.get(path(job), {"limit": 2}).json()
        second = reader.get(path(job), {"limit": 2, "cursor": first["meta"]["next_cursor"]}).json()
        newest = reader.get(path(job), {"limit": 1, "sort": "-created_at"}).json()

        assert [line["text"] for line in first["data"] + second["data"]] == list("abcd")
        assert [line["text"] for line in newest["data"]] == ["e"]
        assert first["meta"]["total"] == 5

    def test_a_job_that_is_not_there_has_none(self, acme):
        for job_id in ("01930000-0000-7000-8000-000000000000", "x", "%00"):
            for method in ("GET", "POST"):
                response = acme.send(
                    method, f"/services/agent-jobs/{job_id}/messages", REPLY if method == "POST" else None
                )
                assert (response.status_code, response.json()["code"]) == (404, "job_not_found")

    def test_what_cannot_be_asked_is_named(self, acme):
        response = acme.get(path(waiting()), {"limit": "0", "sort": "text", "author": "x"})

        assert response.status_code == 400
        assert sorted(factories.fields_of(response)) == ["author", "limit", "sort"]


@pytest.mark.django_db
class TestAReply:
    def test_it_wakes_a_job_that_waits_for_one(self, acme):
        job = waiting(wake_at=None)

        response = acme.post(path(job), REPLY)

        assert response.status_code == 201
        data = response.json()["data"]
        assert response.json()["meta"] == {"org_id": "acme", "id": data["id"]}
        job.refresh_from_db()
        assert job.queue_at is not None
        assert (job.inbox_count, job.inbox_seen) == (1, 0)
        assert job.first_reply_at is not None
        activity = Activity.objects.get(job=job)
        assert (str(activity.pk), activity.code, activity.input) == (data["id"], "message.in", REPLY)
        entry = AuditEntry.objects.get(action="message.brought_in")
        assert (entry.object_id, entry.after) == (str(job.pk), {"message_id": data["id"], "author": "Ann"})

    def test_a_job_in_its_turn_finds_it_afterwards(self, acme):
        job = rows.job(JobStatus.RUNNING, runner="conversation", lane="agents")

        assert acme.post(path(job), REPLY).status_code == 201
        job.refresh_from_db()
        assert (job.queue_at, job.inbox_count) == (None, 1)

    @pytest.mark.parametrize("status", sorted(TERMINAL))
    def test_one_to_a_job_that_has_ended_is_refused(self, acme, status):
        job = rows.job(status)

        response = acme.post(path(job), REPLY)

        assert (response.status_code, response.json()["code"]) == (409, "job_has_ended")
        assert status in response.json()["message"]
        assert not Message.objects.exists()

    @pytest.mark.parametrize("status", [JobStatus.SCHEDULED, JobStatus.WAITING])
    def test_one_to_a_job_that_has_not_begun_is_refused(self, acme, status):
        response = acme.post(path(rows.job(status)), REPLY)

        assert (response.status_code, response.json()["code"]) == (409, "job_not_begun")

    @pytest.mark.parametrize(
        ("body", "fields"),
        [
            ({}, ["author", "text"]),
            ({"author": "Ann", "text": " "}, ["text"]),
            ({"author": 3, "text": "x"}, ["author"]),
            ({"author": "A" * 256, "text": "x" * 40_001}, ["author", "text"]),
            ({**REPLY, "is_human": True}, ["is_human"]),
        ],
    )
    def test_what_is_wrong_with_it_is_named(self, acme, body, fields):
        response = acme.post(path(waiting()), body)

        assert response.status_code == 400
        assert sorted(factories.fields_of(response)) == fields
        assert not Message.objects.exists()

    def test_to_read_is_not_to_reply(self, reader):
        response = reader.post(path(waiting()), REPLY)

        assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope")

    def test_a_repeated_one_is_said_once(self, acme):
        job = waiting()

        first, second = (acme.post(path(job), REPLY, Idempotency_Key="k") for _ in range(2))

        assert first.content == second.content
        assert Message.objects.count() == 1
        assert acme.post(path(job), {**REPLY, "text": "No."}, Idempotency_Key="k").status_code == 422

    def test_a_409_frees_its_key(self, acme):
        job = rows.job()
        assert acme.post(path(job), REPLY, Idempotency_Key="k").status_code == 409
        Job.objects.filter(pk=job.pk).delete()
        assert acme.post(path(waiting()), REPLY, Idempotency_Key="k").status_code == 201


@pytest.mark.django_db(transaction=True)
def test_replies_of_many_at_once_are_all_heard_and_wake_the_job_once():
    job, plain = waiting(), factories.token()
    at_once = threading.Barrier(8)

    def reply(number):
        at_once.wait(PATIENCE)
        try:
            return factories.Api(plain).post(path(job), {"author": f"p{number}", "text": str(number)})
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(reply, range(8)))

    assert {answer.status_code for answer in answers} == {201}
    job.refresh_from_db()
    assert job.inbox_count == 8
    # Each answer tells of its own words.
    said = {str(line.key): line.text for line in Message.objects.filter(job=job)}
    assert {answer.json()["data"]["id"]: answer.json()["data"]["text"] for answer in answers} == said
