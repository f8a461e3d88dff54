"""The tests' Slack does what the other tests lean on, also as a process of its own."""

import json
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from slack_sdk.signature import SignatureVerifier

from tests.fakes.slack import FakeSlack, Fault, Step
from tests.races import in_threads
from tests.waiting import PATIENCE, wait_for

ROOT = Path(__file__).resolve().parents[2]


def call(slack_url, method, token="xoxb-fake-bot-token", **given):
    request = urllib.request.Request(
        f"{slack_url}{method}",
        data=json.dumps(given).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return {"status": error.code, "retry_after": error.headers.get("Retry-After")}
    except OSError:
        return None


def say(url, text, **changes):
    metadata = {"event_type": "t", "event_payload": {"id": text}}
    return call(url, "chat.postMessage", **{"channel": "C1", "text": text, "metadata": metadata, **changes})


@pytest.fixture
def fake():
    with FakeSlack(seed=7) as server:
        yield server


def test_every_fault_says_what_it_says_and_posts_what_it_posts(fake):
    fake.late_seconds = 1
    wanted = {
        Fault.NONE: ("ok", True),
        Fault.RATE_LIMITED: (429, False),
        Fault.ERROR_500: (500, False),
        Fault.ERROR_500_AFTER: (500, True),
        Fault.FATAL_ERROR: ("fatal_error", False),
        Fault.FATAL_ERROR_AFTER: ("fatal_error", True),
        Fault.NAMED: ("is_archived", False),
        Fault.DROP_BEFORE: (None, False),
        Fault.DROP_AFTER: (None, True),
        Fault.LATE_APPLY: (None, True),
        Fault.HANG_BEFORE: (None, False),
        Fault.HANG_AFTER: (None, True),
    }
    for fault, (said, _) in wanted.items():
        fake.script(Step(fault, error="is_archived", seconds=0.1))
        answer = say(fake.api_url, fault.value)
        heard = answer and (answer.get("status") or answer.get("error") or "ok")
        assert heard == said, fault
        if fault is Fault.LATE_APPLY:
            assert fault.value not in {p.id for p in fake.posts}
    posted = {fault.value for fault, (_, is_posted) in wanted.items() if is_posted}
    wait_for(lambda: len(fake.posts) >= len(posted), what="the late one is there")

    assert {p.id for p in fake.posts} == posted


def test_who_is_about_to_be_answered_can_be_told_by_the_address_that_he_calls(fake):
    told = []
    fake.before_answer = lambda post, caller: told.append((post.text, caller, len(fake.posts)))
    say(f"{fake.address}/from/worker1/api/", "one")
    say(fake.api_url, "two")

    assert told == [("one", "worker1", 1), ("two", "", 2)]


def test_chance_is_seeded():
    def run():
        with FakeSlack(seed=3) as fake:
            fake.rates = {Fault.RATE_LIMITED: 0.3, Fault.DROP_AFTER: 0.3}
            return [bool(say(fake.api_url, str(n))) for n in range(20)]

    first = run()
    assert first == run()
    assert len(set(first)) == 2


def test_the_history_shows_pages_metadata_lag_and_limits(fake):
    for number in range(5):
        say(fake.api_url, str(number))
    opening = fake.posts[0].ts
    say(fake.api_url, "reply", thread_ts=opening)
    fake.history_page = 2
    asked = {"channel": "C1", "include_all_metadata": True, "limit": 100}
    texts, cursor = [], ""
    while True:
        page = call(fake.api_url, "conversations.history", **asked, cursor=cursor)
        texts += [m["text"] for m in page["messages"]]
        cursor = page["response_metadata"]["next_cursor"]
        if not cursor:
            break

    assert texts == ["4", "3", "2", "1", "0"]
    assert page["messages"][0]["metadata"]["event_payload"]["id"] == "0"
    assert "metadata" not in call(fake.api_url, "conversations.history", channel="C1")["messages"][0]
    thread = call(fake.api_url, "conversations.replies", channel="C1", ts=opening)
    assert [m["text"] for m in thread["messages"]] == ["0", "reply"]
    newer = call(fake.api_url, "conversations.history", channel="C1", oldest=fake.posts[3].ts)
    assert [m["text"] for m in newer["messages"]] == ["4"]
    fake.history_lag = 60
    assert call(fake.api_url, "conversations.history", channel="C1")["messages"] == []
    fake.history_interval = 60
    call(fake.api_url, "conversations.history", channel="C1")
    assert call(fake.api_url, "conversations.history", channel="C1") == {"status": 429, "retry_after": "60"}


def test_a_wrong_token_and_an_unknown_method_are_refused(fake):
    assert call(fake.api_url, "auth.test")["team_id"] == "T0FAKE"
    assert call(fake.api_url, "auth.test", token="x") == {"ok": False, "error": "invalid_auth"}
    assert call(fake.api_url, "chat.explode") == {"ok": False, "error": "unknown_method"}


class _Listener(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append((dict(self.headers), body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def listener():
    server = HTTPServer(("127.0.0.1", 0), _Listener)
    server.heard = []
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_events_are_signed_as_slacks_own_library_expects(fake, listener):
    fake.events_url = f"http://127.0.0.1:{listener.server_address[1]}/"
    assert fake.person_says("D1", "a < b", thread_ts="1.1", duplicates=3) == [200, 200, 200]
    fake.person_says("C1", "x", secret="wrong")
    fake.person_says("C1", "x", skew=-400)

    verdicts = []
    for headers, body in listener.heard:
        verdicts.append(SignatureVerifier(fake.signing_secret).is_valid_request(body, headers))
    assert verdicts == [True, True, True, False, False]
    first, second, _ = [json.loads(body) for _, body in listener.heard[:3]]
    assert first["event_id"] == second["event_id"]
    assert first["event"] | {"ts": "", "event_ts": ""} == {
        "type": "message",
        "user": "U0PERSON",
        "text": "a &lt; b",
        "ts": "",
        "event_ts": "",
        "team": "T0FAKE",
        "thread_ts": "1.1",
        "channel": "D1",
        "channel_type": "im",
    }
    assert [headers.get("X-Slack-Retry-Num") for headers, _ in listener.heard[:3]] == [None, "1", "2"]


def test_it_echoes_its_apps_own_posts_when_asked_to(fake, listener):
    fake.events_url = f"http://127.0.0.1:{listener.server_address[1]}/"
    fake.echoes = True
    say(fake.api_url, "mine")
    wait_for(lambda: listener.heard, what="the echo is heard")

    assert json.loads(listener.heard[0][1])["event"]["bot_id"] == "B0BOT"


def test_posts_from_many_threads_have_time_stamps_of_their_own(fake):
    in_threads(*(partial(say, fake.api_url, str(n)) for n in range(30)))

    stamps = [p.ts for p in fake.posts]
    assert len(stamps) == 30
    assert stamps == sorted(stamps)
    assert max(Counter(stamps).values()) == 1


def test_it_runs_as_a_process_and_is_steered_over_http(tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.slack", "--seed", "5", "--ledger", str(ledger)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        url = process.stdout.readline().strip()
        root = url.removesuffix("/api/")
        settings = {"script": [{"fault": "rate_limited", "retry_after": 9}], "rates": {"drop_before": 0}}
        assert call(root, "/_fake/settings", **settings) == {"ok": True}
        assert call(root, "/_fake/settings", mispelled=1)["status"] == 400
        assert say(url, "one") == {"status": 429, "retry_after": "9"}
        assert say(url, "two")["ok"] is True
        with urllib.request.urlopen(f"{root}/_fake/ledger", timeout=PATIENCE) as answer:
            seen = json.load(answer)
        assert ([p["id"] for p in seen["posts"]], seen["seed"]) == (["two"], 5)
        assert json.loads(ledger.read_text())["id"] == "two"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
