"""The tests' own Slack: the Web API methods that we use, the events that it sends, and the ways in which it fails.

In a test:

    with FakeSlack(team_id="T1", signing_secret="…") as slack:
        slack.script(Step(Fault.RATE_LIMITED, retry_after=2), Step(Fault.DROP_AFTER))     # the next two posts
        slack.rates = {Fault.LATE_APPLY: 0.05}                                            # and then by chance, seeded
        slack.events_url = "http://127.0.0.1:8000/channels/slack/events"
        slack.person_says("C1", "hello", thread_ts=slack.posts[0].ts, duplicates=3)
        slack.person_edits("C1", ts, "hello, all")
        slack.press(slack.posts[0], "approve:…", user="U0ANN")
        slack.press(slack.posts[0], "edit:…", user="U0ANN")                               # opens slack.views[-1]
        status, answer = slack.submit(slack.views[-1], '{"amount": 3}')

As a process: `python -m tests.fakes.slack --port 0 --seed 1 --rate late_apply=0.05` prints its address on the first
line, and is steered over HTTP:

    GET  /_fake/ledger                                  every accepted post, in order
    GET  /_fake/requests                                every call: method, channel, moment
    POST /_fake/settings {"script": [{"fault": "rate_limited", "retry_after": 2}], "rates": {"late_apply": 0.05},
                          "history_lag": 2, "history_interval": 60, "events_url": "…", "echoes": true}
    GET  /_fake/updates                                 every chat.update that was applied, in order
    POST /_fake/person   {"channel": "C1", "text": "hello", "thread_ts": "…", "duplicates": 3}
    POST /_fake/press    {"channel": "C1", "ts": "…", "value": "approve:…", "user": "U0ANN"}
    GET  /_fake/views                                   every modal that was opened, in order

The ledger is append-only: what is in it was posted, whatever the caller was told.

Who calls may name himself in the address: with `TEST_SLACK_API_URL=http://127.0.0.1:…/from/worker1/api/` the hook
`before_answer` is told `worker1`.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import itertools
import json
import math
import random
import secrets
import signal
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.fakes import limits
from tests.fakes.loopback import LoopbackHandler, LoopbackServer


class Fault(StrEnum):
    """The fate of one chat.postMessage. Each comment says whether the message is posted."""

    NONE = "none"  # yes
    RATE_LIMITED = "rate_limited"  # no: 429 and Retry-After
    ERROR_500 = "error_500"  # no
    ERROR_500_AFTER = "error_500_after"  # yes
    FATAL_ERROR = "fatal_error"  # no
    FATAL_ERROR_AFTER = "fatal_error_after"  # yes
    NAMED = "named"  # no: {"ok": false, "error": step.error}
    DROP_BEFORE = "drop_before"  # no: the connection is reset
    DROP_AFTER = "drop_after"  # yes: the connection is reset
    LATE_APPLY = "late_apply"  # yes, `late_seconds` after the connection was reset
    HANG_BEFORE = "hang_before"  # no: silence for `seconds`, then a reset
    HANG_AFTER = "hang_after"  # yes: silence for `seconds`, then a reset
    NO_JSON = "no_json"  # no: 200 and a page of HTML


@dataclass(frozen=True)
class Step:
    fault: Fault = Fault.NONE
    retry_after: int = 1
    error: str = "channel_not_found"
    seconds: float = 10.0


@dataclass(frozen=True)
class Post:
    """One accepted message of an app, as it stands in the ledger. `id` is the one in its metadata.

    `asked_at` is when the request had come, `at` when the message was posted.
    """

    id: str
    channel: str
    thread_ts: str | None
    ts: str
    text: str
    at: float
    asked_at: float = 0.0
    request: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Update:
    """One chat.update that was applied."""

    channel: str
    ts: str
    text: str
    at: float
    request: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class View:
    """One modal that was opened, for the person whose press it answers. `request` is the view as it was sent."""

    id: str
    user: str
    at: float
    request: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str | None:
        """The value of its input; None if it has none."""
        inputs = [block["element"] for block in self.request["blocks"] if block["type"] == "input"]
        return str(inputs[0].get("initial_value", "")) if inputs else None

    @property
    def said(self) -> str:
        return " ".join(block["text"]["text"] for block in self.request["blocks"] if block["type"] == "section")


@dataclass(frozen=True)
class _Line:
    """One message of a channel: a post, or what a person said."""

    channel: str
    ts: str
    applied_at: float
    message: Mapping[str, Any]


class FakeSlack:
    """A workspace with one app installed. Safe to use from many threads."""

    def __init__(
        self,
        *,
        team_id: str = "T0FAKE",
        signing_secret: str = "fake-signing-secret",
        bot_token: str = "xoxb-fake-bot-token",
        port: int = 0,
        seed: int | None = None,
        ledger_path: Path | None = None,
    ) -> None:
        self.team_id = team_id
        self.signing_secret = signing_secret
        self.bot_token = bot_token
        self.events_url = ""
        self.interactions_url = ""  # if empty: beside events_url
        self.event_seconds = 120.0  # how long it waits for an answer at them; Slack itself waits 3
        self.rates: dict[Fault, float] = {}
        self.late_seconds = 1.2
        self.history_lag = 0.0
        self.history_interval = 0.0
        self.history_page = 200
        self.history_error = ""
        self.echoes = False
        # By path: type and content of files, for those who bring the token. `file_seconds` delays their answers.
        self.files: dict[str, tuple[str, bytes]] = {}
        self.file_seconds = 0.0
        # Called with each message that is posted at once, and with who posted it, before he is answered.
        self.before_answer: Callable[[Post, str], None] | None = None
        self._called = threading.local()
        self.seed = seed if seed is not None else random.SystemRandom().randrange(2**32)
        self._chance = random.Random(self.seed)
        self._script: list[Step] = []
        self._update_script: list[Step] = []
        self._updates: list[Update] = []
        self._view_script: list[Step] = []
        self._views: list[View] = []
        # By trigger: who pressed, until when a view can be opened with it, and whether one was.
        self._triggers: dict[str, tuple[str, float, bool]] = {}
        self.trigger_seconds = 3.0
        self._posts: list[Post] = []
        self._lines: list[_Line] = []
        self._requests: list[tuple[str, str, float]] = []
        self._faults: Counter[Fault] = Counter()
        self._history_read_at: dict[str, float] = {}
        self._last_ts = 0
        self._event_numbers = itertools.count(1)
        self._timers: list[threading.Timer] = []
        self._lock = threading.RLock()
        self._ledger_path = ledger_path
        self._stopping = threading.Event()
        self._server = LoopbackServer(type("Handler", (_Handler,), {"slack": self}), port)

    # --- Life --------------------------------------------------------------------------------------------------
    def __enter__(self) -> FakeSlack:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        with self._lock:
            for timer in self._timers:
                timer.cancel()
        self._server.stop()

    @property
    def address(self) -> str:
        return self._server.url

    @property
    def api_url(self) -> str:
        return f"{self.address}/api/"

    # --- What was seen -----------------------------------------------------------------------------------------
    @property
    def posts(self) -> list[Post]:
        with self._lock:
            return list(self._posts)

    @property
    def requests(self) -> list[tuple[str, str, float]]:
        """(method, channel, moment) of every call, also of those that failed."""
        with self._lock:
            return list(self._requests)

    @property
    def faults(self) -> dict[Fault, int]:
        """How many posts met which fault."""
        with self._lock:
            return {fault: times for fault, times in self._faults.items() if fault != Fault.NONE}

    @property
    def updates(self) -> list[Update]:
        with self._lock:
            return list(self._updates)

    @property
    def views(self) -> list[View]:
        with self._lock:
            return list(self._views)

    def message(self, channel: str, ts: str) -> dict[str, Any]:
        """As it stands in the channel now. Raises KeyError where it is not there."""
        with self._lock:
            for line in self._lines:
                if (line.channel, line.ts) == (channel, ts):
                    return dict(line.message)
        raise KeyError(ts)

    def calls(self, method: str) -> int:
        return sum(1 for name, _, _ in self.requests if name == method)

    # --- Steering ----------------------------------------------------------------------------------------------
    def script(self, *steps: Step | Fault) -> None:
        """Sets the fate of the next posts, one step each; after them chance (`rates`) decides."""
        with self._lock:
            self._script.extend(step if isinstance(step, Step) else Step(step) for step in steps)

    def script_updates(self, *steps: Step | Fault) -> None:
        """The same for chat.update; chance has no part in these."""
        with self._lock:
            self._update_script.extend(step if isinstance(step, Step) else Step(step) for step in steps)

    def script_views(self, *steps: Step | Fault) -> None:
        """The same for views.open."""
        with self._lock:
            self._view_script.extend(step if isinstance(step, Step) else Step(step) for step in steps)

    def configure(self, settings: Mapping[str, Any]) -> None:
        """The same from JSON. Unknown names are refused, so that a harness does not misspell its faults away."""
        with self._lock:
            for name, value in settings.items():
                if name == "script":
                    self.script(*(Step(**{**step, "fault": Fault(step["fault"])}) for step in value))
                elif name == "rates":
                    self.rates = {Fault(fault): float(rate) for fault, rate in value.items()}
                elif name == "seed":
                    self.seed, self._chance = value, random.Random(value)
                elif name in ("late_seconds", "history_lag", "history_interval"):
                    setattr(self, name, float(value))
                elif name in ("history_page", "history_error", "echoes", "events_url", "interactions_url"):
                    setattr(self, name, value)
                else:
                    raise ValueError(f"unknown setting {name!r}")

    # --- Events ------------------------------------------------------------------------------------------------
    def person_says(
        self,
        channel: str,
        text: str,
        *,
        thread_ts: str | None = None,
        user: str = "U0PERSON",
        duplicates: int = 1,
        ts: str | None = None,
        event_id: str | None = None,
        fields: Mapping[str, Any] | None = None,
        **twists: Any,
    ) -> list[int]:
        """Say it and send the event, `duplicates` times in all with Slack's retry headers. Answers the statuses.

        A D… channel is a direct message. An earlier `ts` makes it come out of order. `fields` are put into the event
        itself (`{"subtype": "message_changed"}`, `{"bot_id": "B1"}`). `twists`: see `send_event`.
        """
        message = self.person_writes(channel, text, thread_ts=thread_ts, user=user, ts=ts)
        kind = "im" if channel.startswith("D") else "channel"
        event = {**message, "channel": channel, "event_ts": message["ts"], "channel_type": kind, **(fields or {})}
        envelope = self.envelope(event, event_id=event_id)
        return [self.send_event(envelope, retry=number, **twists) for number in range(duplicates)]

    def person_writes(
        self, channel: str, text: str, *, thread_ts: str | None = None, user: str = "U0PERSON", ts: str | None = None
    ) -> dict[str, Any]:
        """A person's message in the history, of which no event is sent (yet)."""
        with self._lock:
            said_at = ts or self._next_ts()
            message = {"type": "message", "user": user, "text": _escape(text), "ts": said_at, "team": self.team_id}
            if thread_ts:
                message["thread_ts"] = thread_ts
            self._lines.append(_Line(channel, said_at, time.time(), message))
            return message

    def person_edits(self, channel: str, ts: str, text: str, *, user: str = "", **twists: Any) -> int:
        """Change the words of a message in the history, and tell of it."""
        before = self.message(channel, ts)
        edited = {"user": user or before["user"], "ts": self._told_at()}
        now = {**before, "text": _escape(text), "edited": edited}
        self._replace(channel, ts, now)
        return self._tell_changed(channel, "message_changed", {"message": now, "previous_message": before}, **twists)

    def person_deletes(self, channel: str, ts: str, **twists: Any) -> int:
        before = self.message(channel, ts)
        self._replace(channel, ts, None)
        return self._tell_changed(channel, "message_deleted", {"deleted_ts": ts, "previous_message": before}, **twists)

    def drop(self, channel: str, ts: str) -> None:
        """Take a message out of the history, of which no event is sent."""
        self._replace(channel, ts, None)

    def _tell_changed(self, channel: str, subtype: str, fields: Mapping[str, Any], **twists: Any) -> int:
        told_at = self._told_at()
        kind = "im" if channel.startswith("D") else "channel"
        event = {"type": "message", "subtype": subtype, "hidden": True, "channel": channel, "channel_type": kind}
        return self.send_event(self.envelope({**event, "ts": told_at, "event_ts": told_at, **fields}), **twists)

    def _told_at(self) -> str:
        with self._lock:
            return self._next_ts()

    def _replace(self, channel: str, ts: str, message: Mapping[str, Any] | None) -> None:
        with self._lock:
            for place, line in enumerate(self._lines):
                if (line.channel, line.ts) == (channel, ts):
                    self._lines[place : place + 1] = [] if message is None else [replace(line, message=message)]
                    return
        raise KeyError(ts)

    def press(self, post: Post, value: str, *, duplicates: int = 1, **details: Any) -> list[int]:
        """Press a button of a message and tell of it, the same request `duplicates` times. Answers the statuses.

        `details`: see `interaction`.
        """
        body = self.interaction(post, value, **details)
        return [self.send_interaction(body) for _ in range(duplicates)]

    def interaction(
        self,
        post: Post,
        value: str,
        *,
        user: str = "U0PERSON",
        team: str = "",
        home: str = "",
        is_shown: bool = True,
    ) -> bytes:
        """The body of one press; each call is a press of its own. `home` is the user's workspace, where that is another
        one: the channel is shared with it.

        A value that the message does not show (any more) is a KeyError, unless `is_shown` is False: then it is made up.
        """
        message = self.message(post.channel, post.ts)
        blocks = message.get("blocks") or []
        shown = [
            {**element, "block_id": block.get("block_id", "")}
            for block in blocks
            if block["type"] == "actions"
            for element in block["elements"]
        ]
        button = next((element for element in shown if element.get("value") == value), None)
        if button is None:
            if is_shown:
                raise KeyError(value)
            button = {"type": "button", "action_id": "made-up", "block_id": "made-up", "value": value}
        trigger_id = f"{secrets.randbelow(10**6)}.{secrets.randbelow(10**6)}.{secrets.token_hex(8)}"
        with self._lock:
            self._triggers[trigger_id] = (user, time.monotonic() + self.trigger_seconds, False)
        return self._interaction_body(
            "block_actions",
            user=user,
            team=team,
            home=home,
            trigger_id=trigger_id,
            container={
                "type": "message",
                "message_ts": post.ts,
                "channel_id": post.channel,
                "is_ephemeral": False,
            },
            channel={"id": post.channel, "name": "fake"},
            message=message,
            state={"values": {}},
            response_url=f"{self.address}/response",
            actions=[{**button, "action_ts": self._told_at()}],
        )

    def send_interaction(self, body: bytes, **twists: Any) -> int:
        """Answers the status. `twists`: see `ask_interaction`."""
        return self.ask_interaction(body, **twists)[0]

    def ask_interaction(
        self, body: bytes, *, secret: str | None = None, skew: int = 0, url: str | None = None
    ) -> tuple[int, dict[str, Any]]:
        """POST one signed interaction; answers the status and the body, by which modals go on."""
        headers = sign(body, secret or self.signing_secret, at=time.time() + skew)
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        target = url or self.interactions_url or self.events_url.replace("/events", "/interactions")
        return self._send_signed(target, body, headers)

    def submit(self, view: View, text: str, *, user: str = "", team: str = "", **twists: Any) -> tuple[int, Any]:
        """Send a modal back with `text` in its input. Answers the status and the body."""
        return self.ask_interaction(self.submission(view, text, user=user, team=team), **twists)

    def submission(
        self,
        view: View,
        text: str,
        *,
        user: str = "",
        team: str = "",
        home: str = "",
        fields: Mapping[str, Any] | None = None,
    ) -> bytes:
        """The body of `submit`. `fields` are laid over the view."""
        values = {
            block["block_id"]: {block["element"]["action_id"]: {"type": block["element"]["type"], "value": text}}
            for block in view.request["blocks"]
            if block["type"] == "input"
        }
        shown = {**view.request, "id": view.id, "team_id": team or self.team_id, "app_id": "A0FAKE"}
        seen = {"state": {"values": values}, "hash": f"{int(time.time())}.fake", "root_view_id": view.id}
        return self._interaction_body(
            "view_submission",
            user=user or view.user,
            team=team,
            home=home,
            trigger_id=f"1.2.{secrets.token_hex(8)}",
            view={**shown, **seen, **(fields or {})},
            response_urls=[],
        )

    def _interaction_body(self, kind: str, *, user: str, team: str, home: str, **fields: Any) -> bytes:
        """The form in which Slack sends every interaction. `fields` are those of its kind."""
        team_id, name = team or self.team_id, user.lower()
        payload = {
            "type": kind,
            "team": {"id": team_id, "domain": "fake"},
            "user": {"id": user, "username": name, "name": name, "team_id": home or team_id},
            "api_app_id": "A0FAKE",
            "token": "unused",
            "is_enterprise_install": False,
            "enterprise": None,
            **fields,
        }
        return urllib.parse.urlencode({"payload": json.dumps(payload, ensure_ascii=False)}).encode()

    def envelope(self, event: Mapping[str, Any], *, event_id: str | None = None) -> dict[str, Any]:
        return {
            "token": "unused",
            "team_id": self.team_id,
            "api_app_id": "A0FAKE",
            "type": "event_callback",
            "event_id": event_id or f"Ev{self.team_id}{next(self._event_numbers):08d}",
            "event_time": int(time.time()),
            "event": dict(event),
        }

    def send_event(
        self,
        envelope: Mapping[str, Any],
        *,
        retry: int = 0,
        secret: str | None = None,
        skew: int = 0,
        url: str | None = None,
    ) -> int:
        """POST one signed event; answers the status. `secret` signs wrongly, `skew` seconds go onto its time."""
        body = json.dumps(envelope, ensure_ascii=False).encode()
        headers = sign(body, secret or self.signing_secret, at=time.time() + skew)
        if retry:
            headers |= {"X-Slack-Retry-Num": str(retry), "X-Slack-Retry-Reason": "http_timeout"}
        return self._send_signed(url or self.events_url, body, headers)[0]

    def _send_signed(self, target: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        if not target:
            raise ValueError("events_url is not set")
        request = urllib.request.Request(target, data=body, headers=dict(headers), method="POST")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=self.event_seconds) as answer:
                return int(answer.status), _json_of(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _json_of(error.read())

    # --- The Web API -------------------------------------------------------------------------------------------
    def note_caller(self, name: str) -> None:
        """The sender of the request that this thread answers."""
        self._called.by = name

    def answer(self, method: str, given: Mapping[str, Any], token: str) -> _Answer:
        with self._lock:
            self._requests.append((method, str(given.get("channel", "")), time.time()))
        if token != self.bot_token:
            return _refused("invalid_auth")
        if method == "auth.test":
            return _Answer(body={"ok": True, "team_id": self.team_id, "user_id": "U0BOT", "bot_id": "B0BOT"})
        if method == "chat.postMessage":
            return self._post(given)
        if method == "chat.update":
            return self._update(given)
        if method == "views.open":
            return self._open(given)
        if method.startswith("conversations.") and self.history_error:
            return _refused(self.history_error)
        if method == "conversations.history":
            return self._history(given)
        if method == "conversations.replies":
            return self._replies(given)
        return _refused("unknown_method")

    def _post(self, given: Mapping[str, Any]) -> _Answer:
        if not given.get("channel"):
            return _refused("channel_not_found")
        if not given.get("text"):
            return _refused("no_text")
        if wrong := wrong_with_blocks(given.get("blocks")):
            return _Answer(body={"ok": False, "error": "invalid_blocks", "errors": [wrong]})
        if characters_of(given.get("blocks")) > limits.SLACK_CHARACTERS_OF_BLOCKS.most:
            return _refused("msg_blocks_too_long")
        given = {**given, "text": str(given["text"])[: limits.SLACK_TEXT_KEPT.most]}
        asked_at = time.time()
        with self._lock:
            step = self._next_step()
            self._faults[step.fault] += 1
        match step.fault:
            case Fault.RATE_LIMITED:
                return _rate_limited(step.retry_after)
            case Fault.ERROR_500:
                return _Answer(status=500, body={"ok": False})
            case Fault.FATAL_ERROR:
                return _refused("fatal_error")
            case Fault.NAMED:
                return _refused(step.error)
            case Fault.DROP_BEFORE:
                return _Answer(is_dropped=True)
            case Fault.NO_JSON:
                return _Answer(text="<!doctype html><title>Oops</title>")
            case Fault.HANG_BEFORE:
                self._stopping.wait(step.seconds)
                return _Answer(is_dropped=True)
            case Fault.LATE_APPLY:
                timer = threading.Timer(self.late_seconds, self._apply, [given, asked_at])
                timer.daemon = True
                with self._lock:
                    self._timers.append(timer)
                timer.start()
                return _Answer(is_dropped=True)
        post = self._apply(given, asked_at)
        if self.before_answer:
            self.before_answer(post, getattr(self._called, "by", ""))
        match step.fault:
            case Fault.DROP_AFTER:
                return _Answer(is_dropped=True)
            case Fault.HANG_AFTER:
                self._stopping.wait(step.seconds)
                return _Answer(is_dropped=True)
            case Fault.ERROR_500_AFTER:
                return _Answer(status=500, body={"ok": False})
            case Fault.FATAL_ERROR_AFTER:
                return _refused("fatal_error")
        message = {"type": "message", "bot_id": "B0BOT", "text": post.text, "ts": post.ts}
        return _Answer(body={"ok": True, "channel": post.channel, "ts": post.ts, "message": message})

    def _update(self, given: Mapping[str, Any]) -> _Answer:
        with self._lock:
            step = self._update_script.pop(0) if self._update_script else Step()
        if step.fault == Fault.RATE_LIMITED:
            return _rate_limited(step.retry_after)
        if step.fault == Fault.NAMED:
            return _refused(step.error)
        if step.fault == Fault.ERROR_500:
            return _Answer(status=500, body={"ok": False})
        if step.fault == Fault.DROP_BEFORE:
            return _Answer(is_dropped=True)
        if wrong := wrong_with_blocks(given.get("blocks")):
            return _Answer(body={"ok": False, "error": "invalid_blocks", "errors": [wrong]})
        if len(str(given.get("text", ""))) > limits.SLACK_TEXT_OF_UPDATE.most:
            return _refused("msg_too_long")
        if characters_of(given.get("blocks")) > limits.SLACK_CHARACTERS_OF_BLOCKS.most:
            return _refused("msg_blocks_too_long")
        channel, ts = str(given.get("channel")), str(given.get("ts"))
        with self._lock:
            try:
                before = self.message(channel, ts)
            except KeyError:
                return _refused("message_not_found")
            if before.get("app_id") != "A0FAKE":
                return _refused("cant_update_message")
            kept = {name: given[name] for name in ("text", "blocks", "metadata") if name in given}
            self._replace(channel, ts, {**before, **kept, "edited": {"user": "B0BOT", "ts": self._next_ts()}})
            self._updates.append(Update(channel, ts, _unescape(str(given.get("text", ""))), time.time(), dict(given)))
        if step.fault == Fault.DROP_AFTER:
            return _Answer(is_dropped=True)
        return _Answer(body={"ok": True, "channel": channel, "ts": ts, "text": given.get("text", "")})

    def _open(self, given: Mapping[str, Any]) -> _Answer:
        with self._lock:
            step = self._view_script.pop(0) if self._view_script else Step()
        match step.fault:
            case Fault.RATE_LIMITED:
                return _rate_limited(step.retry_after)
            case Fault.NAMED:
                return _refused(step.error)
            case Fault.ERROR_500:
                return _Answer(status=500, body={"ok": False})
            case Fault.DROP_BEFORE:
                return _Answer(is_dropped=True)
            case Fault.HANG_BEFORE:
                self._stopping.wait(step.seconds)
                return _Answer(is_dropped=True)
        trigger = str(given.get("trigger_id"))
        with self._lock:
            if trigger not in self._triggers:
                return _refused("invalid_trigger_id")
            user, until, is_exchanged = self._triggers[trigger]
            if is_exchanged:
                return _refused("exchanged_trigger_id")
            if time.monotonic() > until:
                return _refused("expired_trigger_id")
            view = given.get("view")
            view = json.loads(view) if isinstance(view, str) else view
            if wrong := wrong_with_view(view):
                return _Answer(
                    body={"ok": False, "error": "invalid_arguments", "response_metadata": {"messages": [wrong]}}
                )
            self._triggers[trigger] = (user, until, True)
            opened = View(f"V{len(self._views):08d}", user, time.time(), view)
            self._views.append(opened)
        return _Answer(body={"ok": True, "view": {**view, "id": opened.id}})

    def _apply(self, given: Mapping[str, Any], asked_at: float) -> Post:
        with self._lock:
            metadata = given.get("metadata") or {}
            post = Post(
                id=str((metadata.get("event_payload") or {}).get("id", "")),
                channel=given["channel"],
                thread_ts=given.get("thread_ts"),
                ts=self._next_ts(),
                text=_unescape(given["text"]),
                at=time.time(),
                asked_at=asked_at,
                request=dict(given),
            )
            self._posts.append(post)
            message: dict[str, Any] = {
                "type": "message",
                "user": "U0BOT",
                "bot_id": "B0BOT",
                "app_id": "A0FAKE",
                "text": given["text"],
                "ts": post.ts,
                "metadata": metadata,
            }
            if post.thread_ts:
                message["thread_ts"] = post.thread_ts
            if given.get("blocks"):
                message["blocks"] = given["blocks"]
            self._lines.append(_Line(post.channel, post.ts, post.at, message))
            if self._ledger_path:
                with self._ledger_path.open("a") as ledger:
                    ledger.write(json.dumps(_shown(post)) + "\n")
        if self.echoes and self.events_url:
            event = {**message, "channel": post.channel, "channel_type": "channel", "event_ts": post.ts}
            threading.Thread(target=self.send_event, args=(self.envelope(event),), daemon=True).start()
        return post

    def _history(self, given: Mapping[str, Any]) -> _Answer:
        """Newest first, top level only; the cursor goes back in time."""
        if wait := self._history_wait("conversations.history"):
            return _rate_limited(wait)
        oldest = float(given.get("oldest") or 0)
        before = float(_cursor(given) or "inf")
        found = [
            line
            for line in self._visible(str(given.get("channel")))
            if oldest < float(line.ts) < before and line.message.get("thread_ts") in (None, line.ts)
        ]
        return self._page(sorted(found, key=lambda line: line.ts, reverse=True), given)

    def _replies(self, given: Mapping[str, Any]) -> _Answer:
        """The thread's first message, on the first page, and then what is newer than `oldest`, oldest first."""
        if wait := self._history_wait("conversations.replies"):
            return _rate_limited(wait)
        parent, cursor = str(given.get("ts")), _cursor(given)
        oldest = max(float(given.get("oldest") or 0), float(cursor or 0))
        thread = [line for line in self._visible(str(given.get("channel"))) if _thread_of(line) == parent]
        if not thread:
            return _refused("thread_not_found")
        opening = [line for line in thread if line.ts == parent and not cursor]
        replies = [line for line in thread if line.ts != parent and float(line.ts) > oldest]
        return self._page(opening + sorted(replies, key=lambda line: line.ts), given)

    def _page(self, found: list[_Line], given: Mapping[str, Any]) -> _Answer:
        limit = min(int(given.get("limit") or 100), self.history_page)
        shown = [dict(line.message) for line in found[:limit]]
        if str(given.get("include_all_metadata", "")).lower() not in ("1", "true"):
            for message in shown:
                message.pop("metadata", None)
        has_more = len(found) > limit
        cursor = f"next:{found[limit - 1].ts}" if has_more else ""
        return _Answer(
            body={
                "ok": True,
                "messages": shown,
                "has_more": has_more,
                "response_metadata": {"next_cursor": cursor},
            }
        )

    def _visible(self, channel: str) -> Iterable[_Line]:
        with self._lock:
            until = time.time() - self.history_lag
            return [line for line in self._lines if line.channel == channel and line.applied_at <= until]

    def _history_wait(self, method: str) -> int:
        with self._lock:
            now = time.monotonic()
            left = self._history_read_at.get(method, -math.inf) + self.history_interval - now
            if left > 0:
                return math.ceil(left)
            self._history_read_at[method] = now
            return 0

    def _next_step(self) -> Step:
        if self._script:
            return self._script.pop(0)
        drawn = self._chance.random()
        for fault, rate in self.rates.items():
            drawn -= rate
            if drawn < 0:
                return Step(fault)
        return Step()

    def _next_ts(self) -> str:
        self._last_ts = max(self._last_ts + 1, time.time_ns() // 1_000)
        return f"{self._last_ts // 1_000_000}.{self._last_ts % 1_000_000:06d}"


def characters_of(blocks: Any) -> int:
    """The texts of all blocks together, as Slack seems to add them up."""
    if isinstance(blocks, dict):
        texts = (len(value) for key, value in blocks.items() if key == "text" and isinstance(value, str))
        return sum(texts) + sum(map(characters_of, blocks.values()))
    return sum(map(characters_of, blocks)) if isinstance(blocks, list) else 0


def wrong_with_blocks(blocks: Any) -> str:
    """Complaints of Slack about blocks of the kinds that we use. From Slack's reference, not from our own code."""
    if not blocks:
        return ""
    if len(blocks) > limits.SLACK_BLOCKS.most:
        return f"no more than {limits.SLACK_BLOCKS.most} items allowed"
    names = [block["block_id"] for block in blocks if "block_id" in block]
    if len(set(names)) < len(names) or any(len(name) > limits.SLACK_BLOCK_ID.most for name in names):
        return "block_id must be unique and at most 255 characters"
    for block in blocks:
        if block["type"] == "section" and not 1 <= len(block["text"]["text"]) <= limits.SLACK_SECTION.most:
            return "a section's text must have 1 to 3000 characters"
        if block["type"] == "context" and not 1 <= len(block["elements"]) <= limits.SLACK_CONTEXT.most:
            return "a context must have 1 to 10 elements"
        if block["type"] != "actions":
            continue
        buttons = block["elements"]
        if not 1 <= len(buttons) <= limits.SLACK_ACTIONS.most or len({button["action_id"] for button in buttons}) < len(
            buttons
        ):
            return "1 to 25 elements, each with an action_id of its own"
        for button in buttons:
            if (
                button["text"]["type"] != "plain_text"
                or not 1 <= len(button["text"]["text"]) <= limits.SLACK_BUTTON.most
            ):
                return "a button's text must be plain and have 1 to 75 characters"
            is_long = len(button["value"]) > limits.SLACK_BUTTON_VALUE.most
            if is_long or len(button["action_id"]) > limits.SLACK_ACTION_ID.most:
                return "a button's value may have 2000 characters, its action_id 255"
    return ""


def wrong_with_view(view: Any) -> str:
    """Complaints of Slack about modals of the kind that we use. From Slack's reference, not from our own code."""
    if not isinstance(view, dict) or view.get("type") != "modal":
        return "a view of the type modal is required"
    for name in ("title", "submit", "close"):
        text = view.get(name)
        if name == "title" and text is None:
            return "a title is required"
        if text is not None and (
            text["type"] != "plain_text" or not 1 <= len(text["text"]) <= limits.SLACK_VIEW_TITLE.most
        ):
            return f"{name} must be plain and have 1 to 24 characters"
    is_long = len(view.get("private_metadata", "")) > limits.SLACK_VIEW_METADATA.most
    if is_long or len(view.get("callback_id", "")) > limits.SLACK_VIEW_CALLBACK.most:
        return "private_metadata may have 3000 characters, callback_id 255"
    blocks = view.get("blocks")
    if not isinstance(blocks, list) or len(blocks) > limits.SLACK_VIEW_BLOCKS.most:
        return "blocks must be a list of at most 100"
    for block in blocks:
        if block["type"] == "section" and not 1 <= len(block["text"]["text"]) <= limits.SLACK_SECTION.most:
            return "a section's text must have 1 to 3000 characters"
        if block["type"] != "input":
            continue
        if "submit" not in view:
            return "submit is required where there is an input"
        element = block["element"]
        if block["label"]["type"] != "plain_text" or not 1 <= len(block["label"]["text"]) <= limits.SLACK_LABEL.most:
            return "a label must be plain and have 1 to 2000 characters"
        most = limits.SLACK_INPUT.most
        if not 1 <= element.get("max_length", most) <= most or len(element.get("initial_value", "")) > most:
            return "a text may have 3000 characters"
    return ""


def sign(body: bytes, secret: str, *, at: float) -> dict[str, str]:
    """Slack's headers for a body. Written from Slack's documentation, not from our verification."""
    stamp = str(int(at))
    digest = hmac.new(secret.encode(), f"v0:{stamp}:".encode() + body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "X-Slack-Request-Timestamp": stamp,
        "X-Slack-Signature": f"v0={digest}",
    }


# --- HTTP ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Answer:
    status: int = 200
    body: Mapping[str, Any] | None = None
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    is_dropped: bool = False


class _Handler(LoopbackHandler):
    slack: FakeSlack

    def do_GET(self) -> None:
        slack = self.slack
        if self.path == "/_fake/ledger":
            self._send(_Answer(body={"posts": [_shown(post) for post in slack.posts], "seed": slack.seed}))
        elif self.path == "/_fake/updates":
            self._send(_Answer(body={"updates": [asdict(update) for update in slack.updates]}))
        elif self.path == "/_fake/views":
            self._send(_Answer(body={"views": [asdict(view) for view in slack.views]}))
        elif self.path == "/_fake/requests":
            self._send(_Answer(body={"requests": slack.requests}))
        elif self.path in slack.files:
            slack._stopping.wait(slack.file_seconds)
            self._send_file(*slack.files[self.path])
        else:
            self._send(_Answer(status=404, body={"ok": False}))

    def do_POST(self) -> None:
        slack = self.slack
        body = self.read()
        try:
            if self.path == "/_fake/settings":
                slack.configure(json.loads(body))
                self._send(_Answer(body={"ok": True}))
            elif self.path == "/_fake/person":
                self._send(_Answer(body={"statuses": slack.person_says(**json.loads(body))}))
            elif self.path == "/_fake/press":
                asked = json.loads(body)
                post = Post("", asked.pop("channel"), None, asked.pop("ts"), "", 0.0)
                self._send(_Answer(body={"statuses": slack.press(post, **asked)}))
            elif "/api/" in self.path:
                prefix, _, method = urllib.parse.urlsplit(self.path).path.rpartition("/api/")
                token = self.headers.get("Authorization", "").removeprefix("Bearer ")
                slack.note_caller(prefix.removeprefix("/from/"))
                self._send(slack.answer(method, self._given(body), token))
            else:
                self._send(_Answer(status=404, body={"ok": False}))
        except (ValueError, TypeError, KeyError) as error:
            self._send(_Answer(status=400, body={"ok": False, "error": repr(error)}))

    def _given(self, body: bytes) -> dict[str, Any]:
        if self.headers.get("Content-Type", "").startswith("application/json"):
            given: dict[str, Any] = json.loads(body)
            return given
        form: dict[str, Any] = dict(urllib.parse.parse_qsl(body.decode()))
        for name in ("blocks", "metadata"):
            if name in form:
                form[name] = json.loads(form[name])
        return form

    def _send_file(self, kind: str, content: bytes) -> None:
        """Send the file; without the bot's token, redirect to the sign-in page, as Slack does."""
        self.slack._requests.append(("file", self.path, time.time()))
        if self.headers.get("Authorization") != f"Bearer {self.slack.bot_token}":
            self.send(302, headers={"Location": "/sign-in"})
            return
        self.send(200, content, {"Content-Type": kind})

    def _send(self, answer: _Answer) -> None:
        if answer.is_dropped:
            self.reset()
            return
        content = (answer.text or json.dumps(answer.body)).encode()
        kind = "text/html" if answer.text else "application/json; charset=utf-8"
        self.send(answer.status, content, {"Content-Type": kind, **answer.headers})


def _refused(error: str) -> _Answer:
    return _Answer(body={"ok": False, "error": error})


def _rate_limited(seconds: int) -> _Answer:
    return _Answer(status=429, body={"ok": False, "error": "ratelimited"}, headers={"Retry-After": str(seconds)})


def _json_of(body: bytes) -> dict[str, Any]:
    try:
        read = json.loads(body)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def _cursor(given: Mapping[str, Any]) -> str:
    return str(given.get("cursor") or "").removeprefix("next:")


def _thread_of(line: _Line) -> str:
    return str(line.message.get("thread_ts") or line.ts)


def _shown(post: Post) -> dict[str, Any]:
    return {name: value for name, value in asdict(post).items() if name != "request"}


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _unescape(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.slack", description="A Slack for tests.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--team", default="T0FAKE")
    parser.add_argument("--bot-token", default="xoxb-fake-bot-token")
    parser.add_argument("--signing-secret", default="fake-signing-secret")
    parser.add_argument("--events-url", default="")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--ledger", type=Path, help="a file that gets one JSON line for each accepted post")
    parser.add_argument("--rate", action="append", default=[], metavar="FAULT=SHARE", help=f"one of {', '.join(Fault)}")
    given = parser.parse_args()
    slack = FakeSlack(
        team_id=given.team,
        signing_secret=given.signing_secret,
        bot_token=given.bot_token,
        port=given.port,
        seed=given.seed,
        ledger_path=given.ledger,
    )
    slack.events_url = given.events_url
    slack.configure({"rates": dict(rate.split("=", 1) for rate in given.rate)})
    with slack:
        print(slack.api_url, flush=True)
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        stopped.wait()


if __name__ == "__main__":
    main()
