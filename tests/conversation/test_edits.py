"""Edits and deletions of people's messages, and their effect on the transcript."""

from datetime import UTC, datetime, timedelta

import pytest
from uuid_utils.compat import uuid7

from agent_jobs.conversation import agent_messages, replies
from agent_jobs.models import Activity, Job, Message
from agent_jobs.states import JobStatus, WaitingFor
from channels_integration.messages import Did, Incoming
from channels_integration.models import OutboundMessage
from tests import rows

pytestmark = pytest.mark.django_db
THREAD, SAID = "1767225000.000001", "1767225600.000100"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def did(kind, text="", **fields):
    defaults = {"platform": "slack", "code": "C0ONE", "author": "U1", "thread": THREAD, "team": "T0ACME"}
    defaults |= {"org_id": "acme", "sent_at": NOON, "message_id": SAID, "event_id": str(uuid7())}
    return replies.receive(Incoming(text=text, did=kind, **defaults | fields))


def talking(status=JobStatus.RUNNING, org_id="acme", **columns):
    """A job in a thread that has heard `Tuesday` and waits for more; it waits since a turn that has taken it in."""
    waits = {"waiting_for": WaitingFor.REPLY, "lease_until": None, "inbox_count": 1, "inbox_seen": 1}
    place = {"platform": "slack", "channel_code": "C0ONE", "thread": THREAD, "channel_data": {"team_id": "T0ACME"}}
    job = rows.job(status, org_id, **waits | place | columns)
    Message.objects.create(
        job=job, is_human=True, author="U1", text="Tuesday", platform_message_id=SAID, delivered_at=NOON
    )
    return job


def line(job):
    return Message.objects.get(job=job)


def changes(job):
    return list(Activity.objects.filter(job=job, code__in=["message.edited", "message.deleted"]).order_by("id"))


def test_the_agent_reads_that_a_message_was_deleted_and_no_empty_one():
    job = talking()
    did(Did.DELETED)

    assert [line.text for line in agent_messages.said_in(job.pk)] == ["(deleted)"]


def test_a_job_whose_threads_first_message_is_gone_opens_another_thread():
    job, other = talking(), talking(channel_data={"team_id": "T0OTHER"})
    stranger = talking(org_id="rival")
    for key in (job.pk, other.pk):
        OutboundMessage.objects.create(
            org_id="acme", platform="slack", code="C0ONE", thread_key=str(key), lane="l", status="sent",
            sent_at=NOON, thread=THREAD, text="x",
        )  # fmt: skip

    assert did(Did.DELETED, message_id=THREAD, author="U0BOT")
    assert not did(Did.DELETED, message_id=THREAD, author="U0BOT"), "it is known by now"
    assert [Job.objects.get(pk=each.pk).thread for each in (job, other, stranger)] == ["", THREAD, THREAD]
    assert OutboundMessage.objects.get(thread_key=str(job.pk)).thread == ""
    assert Activity.objects.get(job=job, code="thread.deleted").input == {"thread": THREAD}


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED])
def test_the_thread_of_a_job_that_has_ended_stays_known(status):
    job = talking(status, waiting_for="", finished_at=NOON)

    assert not did(Did.DELETED, message_id=THREAD, author="U0BOT")
    assert Job.objects.get(pk=job.pk).thread == THREAD


def test_what_is_said_is_kept_with_the_platforms_name_of_it():
    job = talking(inbox_count=0, inbox_seen=0)
    Message.objects.all().delete()

    assert did(Did.SAID, "Monday")
    assert (line(job).text, line(job).platform_message_id) == ("Monday", SAID)


def test_an_edit_changes_the_line_and_the_old_words_stay_in_the_activity():
    job = talking()

    assert did(Did.EDITED, "Wednesday")
    assert (line(job).text, line(job).edited_at, line(job).deleted_at) == ("Wednesday", NOON, None)
    (told,) = changes(job)
    assert (told.code, told.note, told.actor) == ("message.edited", "U1 now says: Wednesday", "person:U1")
    assert told.input == {
        "message_id": str(line(job).key),
        "author": "U1",
        "text": "Wednesday",
        "before": "Tuesday",
    }


def test_a_deletion_takes_the_words_away_and_repeats_them_nowhere():
    job = talking()

    assert did(Did.DELETED)
    assert (line(job).text, line(job).deleted_at) == ("", NOON)
    (told,) = changes(job)
    assert (told.code, told.note) == ("message.deleted", "U1 deleted what they had said")
    assert "Tuesday" not in str(told.input)


def test_of_several_edits_the_last_one_counts_in_whatever_order_they_come():
    job = talking()
    for minutes, text in ((1, "B"), (3, "D"), (2, "C"), (3, "D again")):
        assert did(Did.EDITED, text, sent_at=NOON + timedelta(minutes=minutes))

    assert line(job).text == "D"
    assert [told.input["text"] for told in changes(job)] == ["B", "D"]


def test_what_is_deleted_stays_so():
    job = talking()
    did(Did.DELETED)

    assert did(Did.EDITED, "back", sent_at=NOON + timedelta(minutes=1))
    assert did(Did.DELETED, sent_at=NOON + timedelta(minutes=1))
    assert (line(job).text, line(job).deleted_at, len(changes(job))) == ("", NOON, 1)


@pytest.mark.parametrize("kind", [Did.EDITED, Did.DELETED])
def test_nobody_is_woken_and_no_time_is_moved(kind):
    job = talking(wake_at=NOON)
    did(kind, "Wednesday")

    after = Job.objects.get(pk=job.pk)
    assert (after.queue_at, after.wake_at, after.inbox_count, after.inbox_seen) == (None, NOON, 1, 1)


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED])
def test_the_line_of_a_job_that_has_ended_follows_and_the_job_stays_as_it_is(status):
    job = talking(status, waiting_for="", inbox_seen=1)
    did(Did.DELETED)

    assert line(job).text == ""
    assert Job.objects.get(pk=job.pk).status == status


@pytest.mark.parametrize(
    "fields",
    [
        {"author": "U2"},
        {"code": "C0TWO"},
        {"team": "T0OTHER"},
        {"org_id": "rival"},
        {"platform": "web"},
        {"message_id": "1767225600.000101"},
        {"message_id": ""},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [Did.EDITED, Did.DELETED])
def test_a_message_that_no_job_has_heard_from_them_changes_nothing(kind, fields):
    job = talking()
    rows.org("rival")

    assert not did(kind, "Mallory was here", **fields)
    assert line(job).text == "Tuesday"
    assert changes(job) == []


def test_what_the_agent_said_is_nobodys_to_edit():
    job = talking()
    Message.objects.update(is_human=False)

    assert not did(Did.EDITED, "I promise everything")
    assert line(job).text == "Tuesday"


def test_a_line_without_a_name_is_not_found_by_none():
    job = talking()
    Message.objects.update(platform_message_id="")

    assert not did(Did.DELETED, message_id="")
    assert line(job).text == "Tuesday"
