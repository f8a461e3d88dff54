"""Outgoing webhooks and outcome channels through the real processes, with workers killed in the middle of a send."""

import json
import os
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import standardwebhooks

from tests.fakes.webhook import FakeReceiver, Reply
from tests.live.stack import Stack
from tests.waiting import wait_for

pytestmark = pytest.mark.live
WEB = {"platform": "web", "type": "channel", "code": "lobby"}
JOBS = 20


@pytest.fixture(scope="module")
def stack(make_home: Callable[[], Path]) -> Iterator[Stack]:
    stack = Stack(make_home() / "data", AGENT_JOBS_ALLOW_PRIVATE_ADDRESSES="1")
    try:
        stack.wait_ready()
        stack.token = stack.manage(
            "create_token", "--org", "acme", "--scope", "SERVICES:ADMIN", "--name", "admin"
        ).strip()
        types = "/services/organizations/acme/agent-jobs-type"
        say = {"id": "say", "name": "Say", "runner": "message", "default_config": {"start_prompt": "Number {{ n }}"}}
        stack.ok("POST", types, say)
        yield stack
    finally:
        stack.stop()


def test_workers_that_are_killed_while_they_send_lose_no_event(stack: Stack, receiver: FakeReceiver) -> None:
    receiver.replies = [Reply(hang=2.0)] * 5
    wanted = {"url": receiver.address, "event_types": ["job.created", "job.completed"]}
    endpoint = stack.ok("POST", "/services/webhook-endpoints", wanted)["data"]
    outcome = {"platform": "web", "code": "results", "template": "{{ n }} is {{ status }}"}
    ids = {stack.post_job("say", channel=WEB, params={"n": number}, outcome_channel=outcome) for number in range(JOBS)}
    wait_for(lambda: receiver.received, what="a first delivery is in flight", pause=0.01)
    for pid in stack.pids("worker1@")[:1] + stack.pids("worker2@")[:1] + stack.pids("beat")[:1]:
        os.kill(pid, signal.SIGKILL)
    # The rest of their leases is not waited for.
    stack.sql("UPDATE agent_jobs_webhookdelivery SET claimed_until = now(), due_at = now() WHERE claimed_until > now()")

    def told() -> dict[tuple[str, str], set[str]]:
        found = defaultdict(set)
        for one in list(receiver.received):
            body = json.loads(one.body)
            found[body["type"], body["data"]["id"]].add(one.headers["webhook-id"])
        return found

    wait_for(lambda: len(told()) == 2 * JOBS, what="every event arrived")
    assert set(told()) == {(event, job_id) for event in wanted["event_types"] for job_id in ids}
    assert {len(webhook_ids) for webhook_ids in told().values()} == {1}, "a repetition has the same id"
    standardwebhooks.Webhook(endpoint["secret"]).verify(receiver.received[-1].body, receiver.received[-1].headers)
    path = f"/services/webhook-endpoints/{endpoint['id']}/deliveries?status="
    wait_for(lambda: stack.ok("GET", f"{path}delivered")["meta"]["total"] == 2 * JOBS, what="all are settled")

    def results() -> list[str]:
        status, answer = stack.request("GET", "/services/channels/web/results/messages")
        return sorted(line["text"] for line in answer["data"]) if status == 200 else []

    wait_for(lambda: len(results()) >= JOBS, what="every outcome is told")
    assert results() == sorted(f"{number} is COMPLETED" for number in range(JOBS))
