"""Quiet hours: turns, messages and deadlines wait for people's hours to open; nothing is dropped or said twice."""

import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_jobs import jobs, lifecycle
from agent_jobs.conversation import agent_messages, replies
from agent_jobs.duties import recovery
from agent_jobs.hours import calendar, deferral, stated_hours
from agent_jobs.hours.stated_hours import Place
from agent_jobs.models import Activity, Job, Message, Org, PlaceHours, Task
from agent_jobs.runners.base import AwaitReply, Failed, Outcome, Run
from agent_jobs.states import JobStatus
from agent_jobs.worker.loop import Worker
from channels_integration import send_loop
from channels_integration.messages import Incoming
from channels_integration.models import Channel, OutboundMessage
from tests import rows
from tests.channels.sending import message
from tests.conversations import QuietKeeper, again, answer, ask, broken, let_time_pass
from tests.hours.stated import OPEN, clock, closed_now
from tests.waiting import PATIENCE

pytestmark = pytest.mark.django_db
ORG = Place()
CHANNEL = Place("channel", "null", "nowhere")
ANN = Place("person", "null", "Ann")


def state(stated: dict[str, Any], place: Place = ORG, org_id: str = "acme") -> None:
    rows.org(org_id)
    stated_hours.put(org_id, place, stated, actor=rows.TESTER)


def close(place: Place = ORG) -> None:
    state(closed_now(), place)


def opening_time_comes() -> None:
    """As the clock does it: the wait is over, and the organisation's hours are open. Nobody states anything."""
    Org.objects.update(hours=OPEN)
    for job in Job.objects.filter(waiting_for="quiet_hours"):
        let_time_pass(job)


@pytest.fixture
def nowhere() -> Channel:
    return Channel.objects.create(org_id="acme", platform="null", code="nowhere")


@pytest.fixture
def worker() -> Worker:
    return Worker(QuietKeeper(), rng=random.Random(1))


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The wakes of the turns that the runner has taken; each says so and waits for an answer."""
    taken: list[str] = []

    def run(given: Run) -> Outcome:
        taken.append(given.wake)
        return AwaitReply(say=(f"{given.wake} {len(taken)}",))

    broken(monkeypatch, run)
    return taken


# --- Turns -----------------------------------------------------------------------------------------------------
def start() -> Job:
    return ask()


def silence(worker: Worker) -> Job:
    job = ask()
    worker.serve("agents")
    let_time_pass(job)
    return job


def reply(worker: Worker) -> Job:
    job = ask()
    worker.serve("agents")
    answer(job)
    return job


def retry(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> Job:
    job = ask(config={"max_task_retries": 3})
    with monkeypatch.context() as patched:
        broken(patched, lambda run: Failed("busy", "later", is_retryable=True))
        worker.serve("agents")
    let_time_pass(job)
    return job


@pytest.mark.parametrize("wake", ["start", "silence", "reply", "retry"])
@pytest.mark.parametrize("is_closed", [False, True], ids=["open", "closed"])
def test_a_turn_is_taken_when_it_is_open_and_waits_when_it_is_closed(
    worker: Worker, nowhere: Any, turns: list[str], monkeypatch: pytest.MonkeyPatch, wake: str, is_closed: bool
) -> None:
    job = {
        "start": start,
        "silence": lambda: silence(worker),
        "reply": lambda: reply(worker),
        "retry": lambda: retry(worker, monkeypatch),
    }[wake]()
    turns.clear()
    said = OutboundMessage.objects.count()
    before = again(job)
    stated = closed_now() if is_closed else OPEN
    state(stated)

    worker.serve("agents")

    after = again(job)
    expected = "start" if wake == "retry" else wake
    assert (after.status, after.lease_until, after.queue_at) == (JobStatus.RUNNING, None, None)
    if not is_closed:
        assert (turns, after.waiting_for) == ([expected], "reply")
        return
    assert turns == []
    assert OutboundMessage.objects.count() == said
    assert (after.waiting_for, after.resume) == ("quiet_hours", expected)
    counted = ("inbox_count", "inbox_seen", "follow_ups_sent", "follow_ups_total", "failed_attempts")
    assert [getattr(after, name) for name in counted] == [getattr(before, name) for name in counted]
    opens_at = calendar.parse(stated, at="hours")[0].next_open(datetime.now(UTC))
    assert opens_at <= after.wake_at <= opens_at + timedelta(seconds=deferral.JITTER_SECONDS)
    note = Activity.objects.get(job=job, code="job.deferred").note
    assert note == f"waits for quiet hours to end: until {opens_at:%Y-%m-%d %H:%M} (UTC)"
    assert Task.objects.filter(job=job).order_by("number").last().result == note

    opening_time_comes()
    worker.serve("agents")

    assert turns == [expected]
    assert again(job).waiting_for == "reply"


def test_messages_wait_as_conversations_do(worker: Worker, nowhere: Any) -> None:
    close()
    jobs = [rows.job(platform="null", channel_code="nowhere") for _ in range(12)]
    worker.serve("messages")
    assert {again(job).waiting_for for job in jobs} == {"quiet_hours"}
    assert not OutboundMessage.objects.exists()
    assert len({again(job).wake_at for job in jobs}) == 12, "they do not all begin in the same moment"

    opening_time_comes()
    worker.serve("messages")

    assert {again(job).status for job in jobs} == {JobStatus.COMPLETED}
    assert OutboundMessage.objects.count() == 12


def test_all_that_comes_up_in_a_night_is_one_turn_in_the_morning_and_a_reply_wins(
    worker: Worker, nowhere: Any, turns: list[str]
) -> None:
    job = silence(worker)
    close()
    worker.serve("agents")
    assert again(job).waiting_for == "quiet_hours"
    for number in range(3):
        answer(job, f"I cannot sleep {number}", event_id=f"n{number}")
        assert worker.serve("agents") == 0, "a message does not wake it early"
    turns.clear()

    opening_time_comes()
    worker.serve("agents")

    assert turns == ["reply"]
    woken = again(job)
    assert (woken.waiting_for, woken.inbox_seen, woken.inbox_count) == ("reply", 3, 3)
    assert worker.serve("agents") == 0, "there is nothing left of the night"


def test_a_follow_up_that_falls_into_the_night_is_one_follow_up(worker: Worker, nowhere: Any, turns: list[str]) -> None:
    job = silence(worker)
    close()
    for _ in range(3):
        worker.serve("agents")
        let_time_pass(job)
    worker.serve("agents")
    assert (again(job).follow_ups_sent, again(job).waiting_for) == (0, "quiet_hours")

    opening_time_comes()
    worker.serve("agents")

    assert turns == ["start", "silence"]
    assert (again(job).follow_ups_sent, again(job).follow_ups_total) == (1, 1)


def test_nobody_is_said_to_have_not_answered_while_it_is_closed(worker: Worker, nowhere: Any, turns: list[str]) -> None:
    job = ask(config={"max_follow_ups": 0})
    worker.serve("agents")
    let_time_pass(job)
    close()
    worker.serve("agents")
    assert (again(job).status, again(job).waiting_for) == (JobStatus.RUNNING, "quiet_hours")

    opening_time_comes()
    worker.serve("agents")

    assert again(job).result == "no_response: nobody answered"


def test_a_direct_message_goes_to_the_job_that_has_asked_not_to_one_that_has_not_spoken(
    worker: Worker, nowhere: Any, turns: list[str]
) -> None:
    asked = silence(worker)
    close()
    worker.serve("agents")
    silent = ask()
    worker.serve("agents")
    assert {again(job).waiting_for for job in (asked, silent)} == {"quiet_hours"}

    assert replies.receive(Incoming("acme", "null", "nowhere", "e9", "Ann", "Hm", datetime.now(UTC), is_direct=True))

    assert [again(job).inbox_count for job in (asked, silent)] == [1, 0]


def test_a_canceled_job_does_not_wake_in_the_morning(worker: Worker, nowhere: Any, turns: list[str]) -> None:
    close()
    job = ask()
    worker.serve("agents")
    jobs.cancel("acme", job.pk, actor=rows.TESTER)

    opening_time_comes()

    assert worker.serve("agents") == 0
    assert (again(job).status, again(job).wake_at, turns) == (JobStatus.CANCELED, None, [])


def test_other_hours_wake_what_waits_at_once(worker: Worker, nowhere: Any, turns: list[str]) -> None:
    close()
    job = ask()
    worker.serve("agents")

    stated_hours.remove("acme", ORG, actor=rows.TESTER)
    assert lifecycle.wake_due() == {"agents": 1}
    worker.serve("agents")

    assert turns == ["start"]
    assert again(job).waiting_for == "reply"


# --- Whose hours -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("closed", "opened", "waits"),
    [
        ([ORG], [], True),
        ([ORG], [CHANNEL], False),
        ([ORG], [ANN], False),
        ([CHANNEL], [ORG], True),
        ([CHANNEL], [ORG, ANN], False),
        ([ANN], [ORG, CHANNEL], True),
        ([Place("person", "null", "Bob"), Place("channel", "null", "elsewhere")], [], False),
        ([Place("person", "slack", "Ann"), Place("channel", "slack", "nowhere")], [], False),
    ],
    ids=str,
)
def test_the_most_specific_statement_holds(
    worker: Worker, nowhere: Any, turns: list[str], closed: list[Place], opened: list[Place], waits: bool
) -> None:
    job = reply(worker)
    for place in closed:
        close(place)
    for place in opened:
        state(OPEN, place)

    worker.serve("agents")

    assert (again(job).waiting_for == "quiet_hours") is waits


def test_the_person_is_who_spoke_last(worker: Worker, nowhere: Any, turns: list[str]) -> None:
    job = reply(worker)
    close(ANN)
    Message.objects.create(job=job, is_human=True, author="Bob", text="I am awake")
    worker.serve("agents")
    assert again(job).waiting_for == "reply"


def test_before_anybody_spoke_the_person_is_whom_a_direct_channel_names(
    worker: Worker, nowhere: Any, turns: list[str]
) -> None:
    close(Place("person", "null", "nowhere"))
    job = ask()
    worker.serve("agents")
    assert again(job).waiting_for == "quiet_hours"


def test_the_strangers_hours_are_not_ours(worker: Worker, nowhere: Any, turns: list[str]) -> None:
    for place in (ORG, CHANNEL, ANN):
        state(closed_now(), place, org_id="rival")
    state(OPEN)
    job = reply(worker)
    worker.serve("agents")
    assert again(job).waiting_for == "reply"
    assert stated_hours.of_job("rival", job.pk) is None


def test_who_states_no_hours_pays_no_query(worker: Worker, nowhere: Any, django_assert_num_queries: Any) -> None:
    rows.job(platform="null", channel_code="nowhere")
    (claim,) = lifecycle.settle_and_claim([], lane="messages", turn=lifecycle.OrgRotation(), worker_id=1).claimed
    with django_assert_num_queries(0):
        assert deferral.defer(claim, rng=random.Random(1)) == (claim, None)


@pytest.mark.parametrize("place", [ORG, CHANNEL])
def test_the_first_hours_of_an_organisation_hold_from_the_next_turn_on_whichever_process_heard_of_them(
    worker: Worker, nowhere: Any, turns: list[str], place: Place
) -> None:
    rows.org()
    assert not stated_hours.has_any("acme")  # and so this process believes for two seconds
    if place.kind:
        PlaceHours.objects.create(org_id="acme", kind=place.kind, platform="null", name="nowhere", hours=closed_now())
    else:
        Org.objects.filter(pk="acme").update(hours=closed_now())
    job = start()
    worker.serve("agents")
    assert again(job).waiting_for == "quiet_hours"
    assert turns == []


# --- Deadlines -------------------------------------------------------------------------------------------------
def test_quiet_hours_count_for_the_deadline(worker: Worker, nowhere: Any, turns: list[str]) -> None:
    close()
    job = ask(deadline_minutes=60)
    worker.serve("agents")
    waiting = again(job)
    assert waiting.deadline_at - waiting.started_at < timedelta(minutes=61)


def test_quiet_hours_do_not_count_where_the_config_says_so(worker: Worker, nowhere: Any, turns: list[str]) -> None:
    stated = closed_now(minutes=120)
    state(stated)
    job = ask(deadline_minutes=60, config={"count_quiet_hours": False})
    worker.serve("agents")
    waiting = again(job)
    parsed = calendar.parse(stated, at="hours")[0]
    opens_at = parsed.next_open(datetime.now(UTC))
    assert abs(waiting.deadline_at - opens_at - timedelta(minutes=60)) < timedelta(seconds=2)


def test_a_deadline_in_open_time_holds_whoever_died_before_it_was_moved(nowhere: Any) -> None:
    """Claimed, and the worker killed before it could look at the hours: the row has the deadline by the clock."""
    state(closed_now(minutes=120))
    began = datetime.now(UTC) - timedelta(minutes=30)
    for count_quiet_hours in (True, False):
        job = rows.job(
            JobStatus.RUNNING,
            platform="null",
            channel_code="nowhere",
            config={"count_quiet_hours": count_quiet_hours},
            deadline_minutes=20,
            started_at=began,
            deadline_at=began + timedelta(minutes=20),
        )
        Activity.objects.create(org_id="acme", job=job, code="job.started", moved_to="RUNNING", created_at=began)
    counted, open_only = Job.objects.order_by("id")

    assert recovery.fail_overdue() == 1
    assert recovery.fail_overdue() == 0

    assert (again(counted).status, again(counted).error_code) == (JobStatus.FAILED, "deadline_exceeded")
    left = again(open_only)
    assert left.status == JobStatus.RUNNING
    assert left.deadline_at > datetime.now(UTC) + timedelta(minutes=130)


def test_open_time_that_is_over_fails_the_job_on_time() -> None:
    now = datetime.now(UTC)
    state({"time_zone": "UTC", "quiet": [f"{clock(now - timedelta(hours=4))}-{clock(now - timedelta(hours=3))}"]})
    began = now - timedelta(hours=6)
    job = rows.job(
        JobStatus.RUNNING,
        config={"count_quiet_hours": False},
        deadline_minutes=4 * 60,
        started_at=began,
        deadline_at=began + timedelta(hours=4),
    )
    assert recovery.fail_overdue() == 1, "six hours, of which one was quiet, are more than four"
    assert again(job).error_code == "deadline_exceeded"


def test_an_explicit_retry_begins_the_open_time_anew() -> None:
    state(closed_now())
    now = datetime.now(UTC)
    job = rows.job(
        JobStatus.RUNNING, config={"count_quiet_hours": False}, retry_count=1, started_at=now - timedelta(days=9)
    )
    for life, at in ((0, now - timedelta(days=9)), (1, now)):
        Activity.objects.create(
            org_id="acme", job=job, code="job.started", moved_to="RUNNING", life=life, created_at=at
        )
    assert stated_hours.of_job("acme", job.pk).counts_from == now


# --- Messages --------------------------------------------------------------------------------------------------
def deliver() -> int:
    return send_loop.deliver_due(until=time.monotonic() + PATIENCE)


@pytest.mark.django_db(transaction=True)
def test_a_message_that_is_due_after_closing_is_held_until_it_opens(worker: Worker) -> None:
    """Written while it was open; the web chat gets it in the morning, and the job ends then."""
    rows.org()
    job = rows.job()
    worker.serve("messages")
    assert again(job).waiting_for == "delivery"
    stated = closed_now()
    state(stated)

    deliver()

    held = OutboundMessage.objects.get()
    assert (held.status, held.error_code) == ("pending", "held")
    opens_at = calendar.parse(stated, at="hours")[0].next_open(datetime.now(UTC))
    assert abs(held.due_at - opens_at) < timedelta(seconds=2)
    assert again(job).status == JobStatus.RUNNING
    assert deliver() == 0

    state(OPEN)
    deliver()

    held.refresh_from_db()
    assert (held.status, held.error_code) == ("sent", "")
    assert again(job).status == JobStatus.COMPLETED


@pytest.mark.django_db(transaction=True)
def test_who_is_awake_gets_their_messages_while_others_in_the_same_channel_sleep(worker: Worker) -> None:
    close(Place("person", "web", "Ann"))
    sleeper, awake = rows.job(), rows.job()
    Message.objects.create(job=sleeper, is_human=True, author="Ann", text="Hm")
    state(OPEN)
    for job in (sleeper, awake):
        agent_messages.say(job, f"for {job.pk}")

    deliver()

    assert dict(OutboundMessage.objects.values_list("owner_key", "status")) == {
        str(sleeper.pk): "pending",
        str(awake.pk): "sent",
    }


def test_what_is_no_jobs_is_not_held() -> None:
    close()
    assert deferral.hold(message(owner_key="somebody"), datetime.now(UTC)) is None


# --- Changes of the clock --------------------------------------------------------------------------------------
ZONES = st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "UTC"])


@given(
    zone=ZONES,
    minutes=st.integers(0, 2 * 365 * 24 * 60),
    begins=st.integers(0, 24 * 60 - 1),
    ends=st.integers(0, 24 * 60),
    seed=st.integers(0, 100),
)
def test_a_turn_that_was_put_off_is_open_when_it_comes_up_also_when_the_clock_is_changed(
    zone: str, minutes: int, begins: int, ends: int, seed: int
) -> None:
    if begins == ends % (24 * 60):
        return
    quiet = f"{begins // 60:02}:{begins % 60:02}-{ends // 60:02}:{ends % 60:02}"
    found, errors = calendar.parse({"time_zone": zone, "quiet": [quiet]}, at="hours")
    if errors:  # closed all day
        return
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    deferred = deferral.decide(found, now=now, rng=random.Random(seed))
    if deferred is None:
        assert found.is_open(now)
        return
    wake_at = now + timedelta(seconds=deferred.seconds)
    assert not found.is_open(now)
    assert found.is_open(wake_at)
    assert now < deferred.opens_at <= wake_at <= deferred.opens_at + timedelta(seconds=60)
    # Nobody waits longer than the night is, and the hour that the clock is put back.
    assert deferred.opens_at - now <= timedelta(hours=25)


@pytest.mark.parametrize(
    ("night", "waits"),
    [("2026-03-28", 8), ("2026-10-24", 10), ("2026-11-21", 9)],
    ids=["put forward", "put back", "as ever"],
)
def test_the_night_ends_by_the_clock_on_the_wall(night: str, waits: int) -> None:
    found = calendar.parse({"time_zone": "Europe/Berlin", "quiet": ["22:00-07:00"]}, at="hours")[0]
    ten = datetime.fromisoformat(f"{night} 22:00").replace(tzinfo=ZoneInfo("Europe/Berlin"))
    deferred = deferral.decide(found, now=ten, rng=random.Random(3))
    assert deferred is not None
    assert deferred.opens_at - ten.astimezone(UTC) == timedelta(hours=waits)
    assert deferred.note.endswith("07:00 (Europe/Berlin)")


def test_a_window_shorter_than_the_jitter_is_not_missed() -> None:
    found = calendar.parse({"time_zone": "UTC", "open": {"mon": ["09:00-09:01"]}}, at="hours")[0]
    for seed in range(50):
        now = datetime(2026, 11, 21, 12, tzinfo=UTC)
        deferred = deferral.decide(found, now=now, rng=random.Random(seed))
        assert deferred is not None
        assert found.is_open(now + timedelta(seconds=deferred.seconds))
