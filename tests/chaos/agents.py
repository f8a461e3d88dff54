"""Jobs whose agents think and act: models and tools over HTTP, an approval on the way, people who are slow to answer.

Beside the base's jobs there are such of a type `act`: its agent looks something up, asks for leave to act, acts, asks a
person, follows up on silence, and thanks. The model (`Brain`) keeps no state: what it answers follows from what it is
shown, as with a real one. The tools (`Workshop`) write down every call that reaches them. What is promised:

* a call of a tool that is not declared idempotent is made at most once, whoever dies meanwhile;
* nothing that needs approval is done before somebody has approved it;
* the model is not asked again for what it has answered, but for what was lost with a worker;
* an approval that somebody gave by pressing the button in Slack, and whose press was answered 200, is decided by them.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

import psycopg

from tests.chaos.load import AGAIN_SECONDS, Asked, Load
from tests.chaos.rig import Rig
from tests.fakes.loopback import LoopbackFake, LoopbackHandler
from tests.fakes.openai import Answer, FakeOpenAI, completion, says
from tests.fakes.slack import Post

_NAME = re.compile(r"Question ([a-z]+-\d+)\?")
_LEAVE = re.compile(r'May I use act\?.*"name": "([a-z]+-\d+)"', re.DOTALL)
_FOLLOW_UP = "Nobody has answered since you last spoke"
_SILENT_SECONDS = 8.0
_BOSS = "U0BOSS"


@dataclass(frozen=True)
class ToolCall:
    tool: str
    name: str
    key: str
    at: float


class Workshop(LoopbackFake):
    """A server of two tools, `look_up` and `act`."""

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []
        super().__init__()
        self.address = self._server.url
        self._server.start()

    def _handler(self) -> type[LoopbackHandler]:
        workshop = self

        class Handler(LoopbackHandler):
            def do_POST(self) -> None:
                given = json.loads(self.read())
                key = self.headers.get("Idempotency-Key", "")
                workshop.calls.append(ToolCall(self.path.strip("/"), given["name"], key, time.time()))
                self.send(200, json.dumps({"done": given["name"]}).encode())

        return Handler

    def close(self) -> None:
        self._server.stop()


class Brain:
    """Answers as a model does, from the messages in the request. `asked` counts requests by job and stage."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()

    def answer(self, request: dict[str, Any]) -> Answer:
        messages = request["messages"]
        found = _NAME.search(json.dumps(messages[0]))
        assert found, messages[0]
        name = found[1]
        stage, answer = self._next(name, messages)
        self.asked[name, stage] += 1
        return answer

    def _next(self, name: str, messages: list[dict[str, Any]]) -> tuple[str, Answer]:
        people = [message for message in messages if message["role"] == "user" and '"from"' in str(message["content"])]
        if people:
            return "thanks", says("Thank you, U0ANN. I have noted your answer.", done=True, result=f"heard of {name}")
        follow_ups = [message for message in messages if _FOLLOW_UP in str(message["content"])]
        if follow_ups:
            return "follow-up", says(f"Still there, {name}?")
        used = sum(message["role"] == "tool" for message in messages)
        if used < 2:
            tool = ("look_up", "act")[used]
            return tool, completion(calls=[(tool, {"name": name})])
        return "question", says(f"Question {name}?")


class AgentLoad(Load):
    """The base's jobs, and a share of `agents` among them. A share of their approvals is `pressed`, the rest is given
    over the API."""

    def __init__(
        self, rig: Rig, *, agents: float = 0.12, silent: float = 0.1, pressed: float = 0.5, **options: Any
    ) -> None:
        super().__init__(rig, **options)
        self.agents, self.silent, self.pressed = agents, silent, pressed
        self.workshop, self.brain = Workshop(), Brain()
        self.model = FakeOpenAI(self.brain.answer)
        self.approved: dict[str, float] = {}
        self.heard_presses: dict[str, str] = {}  # approvals, by their jobs
        self.names: set[str] = set()

    def prepare(self) -> None:
        super().prepare()
        self.model.__enter__()
        admin = self.rig.admin(self.org)
        key = {"key": "chaos", "base_url": self.model.base_url}
        admin.ok("PUT", f"/services/organizations/{self.org}/model-keys/openai", key)
        profile = {"id": "brain", "name": "Brain", "model": "openai:brain", "base_url": self.model.base_url}
        self.client.ok("POST", f"/services/organizations/{self.org}/profiles", profile)
        schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
        tool = {"type": "http", "method": "POST", "parameters": schema}
        tools = [
            {**tool, "name": "look_up", "description": "Looks it up.", "url": f"{self.workshop.address}/look_up"},
            {
                **tool,
                "name": "act",
                "description": "Does it.",
                "url": f"{self.workshop.address}/act",
                "requires_approval": True,
                "approval_minutes": 30,
            },
        ]
        config = {
            "start_prompt": "Question {{ n }}?",
            "profile_id": "brain",
            "max_follow_ups": 3,
            "follow_up_interval": _SILENT_SECONDS / 120,
            "max_task_retries": 50,
        }
        body = {"id": "act", "name": "Act", "runner": "conversation", "default_config": config, "tools": tools}
        self.client.ok("POST", f"/services/organizations/{self.org}/agent-jobs-type", body)

    def close(self) -> None:
        super().close()
        self.model.__exit__()
        self.workshop.close()

    def _new(self) -> Asked:
        asked = super()._new()
        if asked.cancel_after is None and self.rng.random() < self.agents:
            asked.body = {**asked.body, "job_type_id": "act"}
            self.names.add(asked.name)
        return asked

    # --- People ---
    def _heard(self, post: Post) -> None:
        """Somebody allows what an agent asks leave for."""
        found = _LEAVE.search(post.text)
        if found:
            is_pressed = self._people.random() < self.pressed
            decide = (lambda: self._press(found[1], post)) if is_pressed else (lambda: self._approve(found[1]))
            self.agenda.after(self._people.uniform(0, 1), decide)

    def _press(self, name: str, post: Post) -> None:
        """Slack tells of a press once; whoever sees that nothing came of it presses again."""
        slack = self.rig.slack
        shown = re.search(r'"value": "(approve:([0-9a-f-]+))"', json.dumps(slack.message(post.channel, post.ts)))
        if shown is None:
            return  # the buttons are gone: an earlier press was heard, though its answer was lost
        value, approval_id = shown.groups()
        self.approved.setdefault(name, time.time())
        url = f"http://127.0.0.1:{self.client.next_port()}/channels/slack/interactions"
        try:
            said = str(slack.send_interaction(slack.interaction(post, value, user=_BOSS), url=url))
        except KeyError:
            return  # gone in this moment
        except (OSError, ValueError, HTTPException) as error:
            said = type(error).__name__
        with self._lock:
            self.answers[f"press {said}"] += 1
            if said == "200":
                self.heard_presses[name] = approval_id
                return
        self.agenda.after(AGAIN_SECONDS, lambda: self._press(name, post))

    def _approve(self, name: str) -> None:
        asked = self._asked[name]
        path = f"/services/agent-jobs/{asked.job_id}/approvals"
        listed = self.client.request("GET", path)
        pending = [each for each in listed.body.get("data", ()) if each["status"] == "pending"]
        if pending:
            self.approved.setdefault(name, time.time())
            answer = self.client.request("POST", f"{path}/{pending[0]['id']}", {"decision": "approve"})
            with self._lock:
                self.answers[f"approval {answer.status}"] += 1
            if answer.is_final and answer.status in (200, 409):
                return
        if asked.job_id is None or listed.status != 200 or pending:
            self.agenda.after(AGAIN_SECONDS, lambda: self._approve(name))

    def _answer_of(self, asked: Asked, post: Post) -> Callable[[], None]:
        say = super()._answer_of(asked, post)
        if asked.name in self.names and self._people.random() < self.silent:
            return lambda: self.agenda.after(_SILENT_SECONDS, say)
        return say

    # --- What is promised ---
    def broken(self) -> list[str]:
        """Broken promises, found in the workshop, the brain and the rows."""
        for tool, times in Counter(call.tool for call in self.workshop.calls).items():
            self.answers[f"tool {tool}"] = times
        self.answers["model"] = sum(self.brain.asked.values())
        with self.rig.database() as connection:
            return [
                *self._tools_broken(connection),
                *self._models_broken(connection),
                *self._presses_broken(connection),
            ]

    def _tools_broken(self, connection: psycopg.Connection[Any]) -> list[str]:
        found = []
        by_job: defaultdict[tuple[str, str], list[ToolCall]] = defaultdict(list)
        for call in self.workshop.calls:
            by_job[call.name, call.tool].append(call)
            if call.tool == "act" and call.at < self.approved.get(call.name, float("inf")):
                found.append(f"{call.name}: acted before it was approved")
        for (name, tool), calls in by_job.items():
            if len(calls) > 1:
                found.append(f"{name}: {tool} was called {len(calls)} times, keys {len({call.key for call in calls})}")
        rows = connection.execute(
            "SELECT j.tags[1], s.name, coalesce(s.output ->> 'text', '') FROM agent_jobs_step s"
            " JOIN agent_jobs_job j ON j.id = s.job_id WHERE s.kind = 'tool' AND s.output -> 'error' IS NULL"
        )
        for name, tool, text in rows.fetchall():
            if '"done"' in text and not by_job[name, tool]:
                found.append(f"{name}: {tool} is recorded as done, and nobody was called")
        return found

    def _presses_broken(self, connection: psycopg.Connection[Any]) -> list[str]:
        rows = connection.execute("SELECT id::text, status, decided_by FROM agent_jobs_approval").fetchall()
        stand = {approval_id: (status, by) for approval_id, status, by in rows}
        pressed = {name: stand.get(approval_id) for name, approval_id in self.heard_presses.items()}
        by_press = sum(by == _BOSS for _, by in stand.values())
        self.answers["approvals decided by a press"] = by_press
        return [
            f"{name}: a press was answered 200, and the approval is {now}"
            for name, now in pressed.items()
            if now != ("approved", _BOSS)
        ]

    def _models_broken(self, connection: psycopg.Connection[Any]) -> list[str]:
        rows = connection.execute(
            "SELECT tags[1], failed_attempts + (SELECT count(*) FROM agent_jobs_activity a WHERE a.job_id = j.id"
            " AND a.code = 'job.taken_back' AND a.note LIKE '%its worker was lost%')"
            " FROM agent_jobs_job j WHERE job_type_key = 'act'"
        )
        cut_off = dict(rows.fetchall())
        # An attempt that was cut off may have lost the answer that it waited for.
        return [
            f"{name}: the model was asked {times} times for its {stage}; {cut_off.get(name, 0)} attempts were cut off"
            for (name, stage), times in self.brain.asked.items()
            if stage != "follow-up" and times > 1 + cut_off.get(name, 0)
        ]
