"""A dump that was taken under load, restored into a fresh database beside a fresh Redis: the jobs go on from there."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.slack import FakeSlack, Fault
from tests.live.processes import Service, next_year, postgres_tool
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.live
CHANNELS = 12


def status_of_messages(service: Service) -> dict[str, str]:
    rows = service.sql("SELECT id::text, status FROM channels_integration_outboundmessage WHERE platform = 'slack'")
    return dict(rows)


def under_way(service: Service) -> bool:
    """More than a dump needs to show, so that some of it is still so when it is taken."""
    unknown = Counter(status_of_messages(service).values())["unknown"]
    unended = "SELECT count(*) FROM agent_jobs_job WHERE status IN ('WAITING', 'RUNNING')"
    return unknown >= 3 and service.sql(unended)[0][0] >= 10


def test_the_jobs_of_a_dump_under_load_go_on_and_say_nothing_twice(make_home: Callable[[], Path]) -> None:
    folder = make_home()
    dump = folder / "backup.dump"
    with FakeSlack(team_id="T0LIVE", signing_secret="live-signing-secret") as slack:
        # Posted, and never heard of: what has to be looked up after the restore.
        slack.rates = {Fault.DROP_AFTER: 0.5}
        with Service(folder, TEST_SLACK_API_URL=slack.api_url) as service:
            service.manage(
                *("install_slack", "--org", "acme", "--team", "T0LIVE"),
                *("--bot-token-stdin", "--signing-secret-env", "LIVE_SECRET"),
                stdin=slack.bot_token,
                LIVE_SECRET="live-signing-secret",
            )
            service.web()
            service.make_type("say", "message", "Number {{ n }}")
            service.make_type("ask", "conversation", "How are you?", follow_up_interval=60)
            service.worker("w1")
            service.worker("w2")
            service.beat()
            asked = service.post_job("ask")
            later = service.post_job("say", params={"n": -1}, scheduled_at=next_year())
            service.wait_job(asked, waiting_for="reply")
            is_over = threading.Event()

            def load() -> None:
                number = 0
                while not is_over.is_set():
                    code = f"C0BACK{number % CHANNELS}"
                    channel = {"platform": "slack", "type": "channel", "code": code, "data": {"team_id": "T0LIVE"}}
                    service.post_job("say", channel=channel, params={"n": number})
                    number += 1
                    is_over.wait(0.05)

            client = threading.Thread(target=load)
            client.start()
            try:
                wait_for(lambda: len(slack.posts) > 25, what="posts in Slack")
                wait_for(lambda: under_way(service), what="much is under way")
                postgres_tool("pg_dump", "-Fc", "-f", dump, service.url_of(service.database))
            finally:
                is_over.set()
                client.join(PATIENCE)
            for process in service.processes:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(PATIENCE)
            token = service.token
            said_before = Counter(post.id for post in slack.posts)
        slack.rates = {}
        with Service(folder, dump=dump, TEST_SLACK_API_URL=slack.api_url) as restored:
            restored.token = token
            at_dump = status_of_messages(restored)
            statuses = Counter(at_dump.values())
            assert statuses["sent"] > 5
            assert statuses["sending"] + statuses["unknown"] > 0
            jobs = restored.sql("SELECT count(*) FROM agent_jobs_job WHERE status NOT IN ('COMPLETED', 'FAILED')")[0][0]
            assert jobs > 5
            restored.web("web-restored")
            restored.worker("w-restored")
            restored.beat("beat-restored")

            def is_done() -> bool:
                left = "SELECT count(*) FROM agent_jobs_job WHERE status IN ('WAITING', 'RUNNING') AND id <> %s"
                return bool(restored.sql(left, asked) == [(0,)])

            wait_for(is_done, what="every job of the dump has ended")
            failed = restored.sql("SELECT error_code, error_message FROM agent_jobs_job WHERE status = 'FAILED'")
            assert failed == []
            assert restored.job(later)["status"] == "SCHEDULED"
            reply = {"author": "Ann", "text": "Fine", "job_id": asked}
            restored.ok("POST", "/services/channels/web/lobby/messages", reply)
            restored.wait_job(asked, status="COMPLETED")
            said = Counter(post.id for post in slack.posts)
            for message, status in status_of_messages(restored).items():
                assert status == "sent"
                # What the dump knew to be waiting may have been said after it, and nobody remembers that.
                most = 2 if at_dump.get(message) in ("pending", None) and message in said_before else 1
                assert 1 <= said[message] <= most, (message, at_dump.get(message), said[message])
            assert restored.manage("verify_audit")
