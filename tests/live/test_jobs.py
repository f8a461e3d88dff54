"""Jobs through the real processes: web, two workers, beat, PostgreSQL, Redis, and the tests' Slack."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.slack import FakeSlack
from tests.live.stack import Stack
from tests.waiting import wait_for

pytestmark = pytest.mark.live
SLACK = {"platform": "slack", "type": "channel", "code": "C0LIVE1", "data": {"team_id": "T0LIVE"}}
WEB = {"platform": "web", "type": "channel", "code": "lobby"}
SECOND = 1 / 60  # of a minute, in which configs count


@pytest.fixture(scope="module")
def slack() -> Iterator[FakeSlack]:
    with FakeSlack(team_id="T0LIVE", signing_secret="live-signing-secret") as server:
        yield server


@pytest.fixture(scope="module")
def stack(slack: FakeSlack, make_home: Callable[[], Path]) -> Iterator[Stack]:
    stack = Stack(make_home() / "data", TEST_SLACK_API_URL=slack.api_url)
    try:
        stack.wait_ready()
        stack.manage(
            *("install_slack", "--org", "acme", "--team", "T0LIVE"),
            *("--bot-token-stdin", "--signing-secret-env", "LIVE_SECRET"),
            stdin=slack.bot_token,
            LIVE_SECRET="live-signing-secret",
        )
        slack.events_url = f"{stack.record()['web_url']}/channels/slack/events"
        types = "/services/organizations/acme/agent-jobs-type"
        talk = {"start_prompt": "How are you, {{ name }}?", "max_follow_ups": 1, "follow_up_interval": 3 * SECOND}
        stack.ok("POST", types, {"id": "ask", "name": "Ask", "runner": "conversation", "default_config": talk})
        say = {"start_prompt": "Number {{ n }}"}
        stack.ok("POST", types, {"id": "say", "name": "Say", "runner": "message", "default_config": say})
        yield stack
    finally:
        stack.stop()


def ask(stack: Stack, channel: dict[str, Any], query: str = "", **config: Any) -> str:
    return stack.post_job("ask", channel=channel, params={"name": "Ann"}, config=config, query=query)


def posts_of(slack: FakeSlack, text: str) -> list[Any]:
    return [post for post in slack.posts if text in post.text]


def codes(stack: Stack, job_id: str) -> list[str]:
    query = "include=activities&include_limit=100&include_sort=created_at"
    answer = stack.ok("GET", f"/services/agent-jobs/{job_id}?{query}")
    return [activity["activity_type_code"] for activity in answer["data"]["Activities"]]


def test_a_job_with_a_delay_goes_the_whole_way_through_slack(stack: Stack, slack: FakeSlack) -> None:
    job_id = stack.post_job(
        "ask",
        channel=SLACK,
        params={"name": "Delayed"},
        config={"follow_up_interval": 8 * SECOND, "max_follow_ups": 2},  # the second one 16 s after the first
        query="?delay=1",
    )
    job = stack.job(job_id)
    assert job["job_status"] == "SCHEDULED"
    assert 0 <= job["delay_seconds"] <= 60
    stack.wait_status(job_id, "RUNNING")
    question = wait_for(lambda: posts_of(slack, "How are you, Delayed?"), what="the question in Slack")[0]
    assert question.thread_ts is None
    wait_for(lambda: len(posts_of(slack, "Delayed?")) == 2, what="the follow-up in the thread")
    assert posts_of(slack, "Delayed?")[1].thread_ts == question.ts
    slack.person_says("C0LIVE1", "Very well", thread_ts=question.ts, user="U0ANN", duplicates=3)
    job = stack.wait_status(job_id, "COMPLETED")
    assert job["result"] == "U0ANN answered: Very well"
    assert job["flags"]["has_human_reply"] is True
    thread = [post.text for post in slack.posts if question.ts in (post.ts, post.thread_ts)]
    assert len(thread) == 3
    moves = [code for code in codes(stack, job_id) if code.startswith("job.")]
    assert moves == ["job.created", "job.promoted", "job.started", "job.completed"]
    assert codes(stack, job_id).count("message.in") == 1


def test_a_job_is_answered_in_the_web_chat(stack: Stack) -> None:
    job_id = ask(stack, WEB, follow_up_interval=5)
    wait_for(lambda: stack.job(job_id).get("waiting_for") == "reply", what="the question is out")
    messages = stack.ok("GET", "/services/channels/web/lobby/messages?wait=10")["data"]
    assert [(m["direction"], m["text"]) for m in messages if m["job_id"] == job_id] == [("out", "How are you, Ann?")]
    reply = {"author": "Ann", "text": "Fine", "job_id": job_id}
    stack.ok("POST", "/services/channels/web/lobby/messages", reply)
    assert stack.wait_status(job_id, "COMPLETED")["result"] == "Ann answered: Fine"


def test_a_job_that_nobody_answers_ends_as_no_response(stack: Stack) -> None:
    job_id = ask(stack, {**WEB, "code": "empty"}, max_follow_ups=1, follow_up_interval=3 * SECOND)
    job = stack.wait_status(job_id, "COMPLETED", "FAILED")
    assert job["result"].startswith("no_response")
    assert codes(stack, job_id).count("message.out") == 2


def test_what_comes_up_while_a_channel_is_closed_is_one_turn_when_it_opens(stack: Stack) -> None:
    """A follow-up, two answers and another job's start, all before the hours are changed so that it is open."""
    night = {**WEB, "code": "night"}
    hours, chat = "/services/organizations/acme/hours/channels/web/night", "/services/channels/web/night/messages"
    today = datetime.now(UTC)
    closed = {"time_zone": "UTC", "quiet": [], "holidays": [f"{today + timedelta(n):%F}" for n in range(2)]}
    asked = ask(stack, night, follow_up_interval=10 * SECOND, max_follow_ups=5)
    wait_for(lambda: stack.job(asked).get("waiting_for") == "reply", what="the question is out")
    assert stack.ok("PUT", hours, {"hours": closed})["data"]["is_open"] is False
    wait_for(lambda: stack.job(asked).get("waiting_for") == "quiet_hours", what="the follow-up waits")
    late = stack.post_job("say", channel=night, params={"n": "late"})
    for text in ("Hm", "Fine"):
        stack.ok("POST", chat, {"author": "Ann", "text": text, "job_id": asked})
    wait_for(lambda: codes(stack, asked).count("message.in") == 2, what="the answers are heard")
    wait_for(lambda: stack.job(late).get("waiting_for") == "quiet_hours", what="the other job waits")
    assert stack.job(asked)["waiting_for"] == "quiet_hours"
    assert [m["text"] for m in stack.ok("GET", chat)["data"] if m["direction"] == "out"] == ["How are you, Ann?"]

    stack.ok("DELETE", hours)

    assert stack.wait_status(asked, "COMPLETED")["result"] == "Ann answered: Hm Fine"
    assert stack.wait_status(late, "COMPLETED")["result"] == "Number late"
    assert codes(stack, asked).count("model.call") == 2, "the question, and one turn for all the rest"
    assert codes(stack, asked).count("job.deferred") == codes(stack, late).count("job.deferred") == 1


def test_a_job_that_takes_too_long_ends_as_deadline_exceeded(stack: Stack) -> None:
    job_id = ask(stack, {**WEB, "code": "slow"}, max_time_to_complete=6 * SECOND, follow_up_interval=60)
    job = stack.wait_status(job_id, "FAILED")
    assert job["error_code"] == "deadline_exceeded"
    messages = wait_for(
        lambda: stack.ok("GET", "/services/channels/web/slow/messages")["data"][1:],
        what="the closing message",
    )
    assert "time" in messages[0]["text"]


def test_a_job_is_canceled_in_each_status_and_says_nothing_after(stack: Stack) -> None:
    chat = "/services/channels/web/cancel/messages"
    scheduled = ask(stack, {**WEB, "code": "cancel"}, query="?delay=10080")
    running = ask(stack, {**WEB, "code": "cancel"}, follow_up_interval=60)
    wait_for(lambda: stack.job(running).get("waiting_for") == "reply", what="it waits for a reply")
    wait_for(lambda: stack.ok("GET", chat)["data"], what="its question is delivered: it waits from before that")
    with stack.paused("celery"):
        waiting = ask(stack, {**WEB, "code": "cancel"})
        assert stack.job(waiting)["job_status"] == "WAITING"
        for job_id in (scheduled, running, waiting):
            answer = stack.ok("DELETE", f"/services/agent-jobs/{job_id}", {"reason": "no longer needed"})
            assert answer["message"] == f"Job with ID '{job_id}' successfully canceled"
            assert stack.request("DELETE", f"/services/agent-jobs/{job_id}")[0] == 409
    done = stack.post_job("say", channel={**WEB, "code": "cancel"}, params={"n": 0})
    stack.wait_status(done, "COMPLETED")
    assert [stack.job(job_id)["job_status"] for job_id in (scheduled, running, waiting)] == ["CANCELED"] * 3
    said = Counter(m["job_id"] for m in stack.ok("GET", chat)["data"])
    assert said == {running: 1, done: 1}


def test_killed_workers_beats_and_an_emptied_redis_lose_nothing_and_say_nothing_twice(
    stack: Stack, slack: FakeSlack
) -> None:
    channels = [{**SLACK, "code": f"C0KILL{number}"} for number in range(30)]

    def post(number: int) -> str:
        return stack.post_job("say", channel=channels[number % 30], params={"n": f"kill-{number}."})

    with ThreadPoolExecutor(4) as pool:
        posted = pool.map(post, range(90))
        for number in range(6):
            wait_for(lambda number=number: len(posts_of(slack, "kill-")) >= number * 10, what="posts")
            killed = stack.pids("worker1@" if number % 2 else "worker2@")[:1] + stack.pids("beat")[:1]
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            stack.redis.flushall()
        jobs = list(posted)
    ends = Counter(stack.wait_status(job_id, "COMPLETED", "FAILED")["job_status"] for job_id in jobs)
    assert ends == {"COMPLETED": 90}
    said = Counter(post.text for post in posts_of(slack, "kill-"))
    assert set(said.values()) == {1}
    assert len(said) == 90
    for job_id in jobs:
        ended = [code for code in codes(stack, job_id) if code in ("job.completed", "job.failed", "job.canceled")]
        assert ended == ["job.completed"]


def test_nothing_is_left_running_when_the_supervisor_is_killed(home: Path) -> None:
    stack = Stack(home / "data")
    stack.wait_ready()
    assert stack.pids("celery")
    stack.supervisor.kill()
    stack.supervisor.wait()
    wait_for(lambda: not stack.pids("celery") + stack.pids("config.serve"), what="all processes have ended")


def test_what_happens_is_sealed_within_seconds(stack: Stack) -> None:
    admin = stack.manage("create_token", "--org", "acme", "--scope", "SERVICES:ADMIN", "--name", "auditor").strip()
    job_id = stack.post_job("say", channel=WEB, params={"n": 77})
    stack.wait_status(job_id, "COMPLETED")
    authorization = {"Authorization": f"Bearer {admin}"}
    told = stack.ok("GET", f"/services/audit?object_id={job_id}&sort=at:asc", **authorization)["data"]
    assert [entry["action"] for entry in told] == ["job.created", "job.started", "job.completed"]
    total = stack.ok("GET", "/services/audit?limit=1", **authorization)["meta"]["total"]

    # The duty's, not ours: `verify_audit` seals nothing.
    wait_for(
        lambda: f"acme: {total} entries, " in stack.manage("verify_audit", "--org", "acme"),
        what="every entry is in a seal",
    )


def test_a_revoked_token_is_refused_from_that_moment_on(stack: Stack) -> None:
    admin = stack.manage("create_token", "--org", "acme", "--scope", "SERVICES:ADMIN", "--name", "rotator").strip()
    made = stack.ok(
        "POST",
        "/services/app-tokens",
        {"app": "crm", "scopes": ["SERVICES:READ"]},
        Authorization=f"Bearer {admin}",
    )["data"]
    used = {"Authorization": f"Bearer {made['token']}"}
    assert {stack.request("GET", "/services/agent-jobs?limit=1", **used)[0] for _ in range(10)} == {200}

    stack.ok("DELETE", f"/services/app-tokens/{made['public_id']}", Authorization=f"Bearer {admin}")

    assert {stack.request("GET", "/services/agent-jobs?limit=1", **used)[0] for _ in range(10)} == {401}
