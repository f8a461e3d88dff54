"""A conversation of forty turns with a model that makes a slip in every third answer, where people really write."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent_jobs.catalog import model_keys
from agent_jobs.models import Job, Message, Profile
from agent_jobs.states import JobStatus
from channels_integration import directory, inbound, send_order
from tests import factories, rows
from tests.agents import scripted_models
from tests.agents.scripted_models import work
from tests.channels.sending import deliver_all
from tests.conversations import again
from tests.fakes.openai import Answer, FakeOpenAI, completion, says
from tests.fakes.slack import FakeSlack

pytestmark = pytest.mark.django_db(transaction=True)
TURNS = 40
WEB = "/services/channels/web/lobby/messages"
SLIPS: list[Answer] = [
    completion(calls=[("respond", {"say": "Hi"})]),
    completion(calls=[("respond", '{"say":"Hi"')]),
    completion(calls=[("respond", '{"say":"a","next":"done","result_data":{"score":NaN}}')]),
    completion(calls=[("respond", {"say": ["a"], "next": "wait"})]),
    completion(calls=[("send_message", '{"text": "Hi"')]),
    completion(None),
    completion("1. Open the valve. 2. Cl", finish="length"),
    completion(calls=[("respond", '{"say":"1. Op')], finish="length"),
    completion('Sure! <tool_call>{"name":"send_message"}</tool_call>'),
    completion('{"name":"drop","arguments":{}}'),
]


@dataclass
class Slipping:
    """Every third answer is a slip; the others number what they say, and the last one ends the job."""

    asked: list[dict[str, Any]] = field(default_factory=list)
    said: int = 0

    def __call__(self, request: dict[str, Any]) -> Answer:
        self.asked.append(request)
        if len(self.asked) % 3 == 0:
            return SLIPS[len(self.asked) // 3 % len(SLIPS)]
        self.said += 1
        return says(f"Question {self.said}?", done=self.said == TURNS, result="All is told.")


@dataclass
class Spoken:
    """A place where people write: the columns of a job in it, how a person answers, and what people have read."""

    columns: dict[str, Any]
    write: Callable[[str], object]
    read: Callable[[], list[str]]


@pytest.fixture
def spoken(request: pytest.FixtureRequest) -> Spoken:
    rows.org("acme")
    found: Spoken = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def in_slack(settings: Any, live_server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(send_order, "PACE_SECONDS", 0.01)  # Slack wants a second between messages; this fake does not
    with FakeSlack(team_id="T0ACME", signing_secret="acme-signing-secret", seed=1) as slack:
        settings.SLACK_API_URL = slack.api_url
        slack.events_url = f"{live_server.url}/channels/slack/events"
        directory.install_slack(
            "acme", team_id="T0ACME", bot_token=slack.bot_token, signing_secret=slack.signing_secret
        )

        def write(text: str) -> None:
            assert slack.person_says("C0ONE", text, thread_ts=slack.posts[0].ts, user="U0ANN") == [200]

        yield Spoken(
            {"platform": "slack", "channel_code": "C0ONE", "channel_data": {"team_id": "T0ACME"}},
            write,
            lambda: [post.text for post in slack.posts],
        )


@pytest.fixture
def in_the_web_chat() -> Spoken:
    api = factories.api("acme")

    def write(text: str) -> None:
        assert api.post(WEB, {"author": "Ann", "text": text}).status_code == 201

    def read() -> list[str]:
        lines = api.get(WEB, {"limit": 100}).json()["data"]
        return [line["text"] for line in lines if line["direction"] == "out"]

    return Spoken({"platform": "web", "channel_code": "lobby"}, write, read)


@pytest.mark.parametrize("spoken", ["in_slack", "in_the_web_chat"], indirect=True)
def test_forty_turns_with_a_slip_in_every_third_answer_end_completed(settings: Any, spoken: Spoken) -> None:
    settings.MODEL_KEYS = {}
    model = Slipping()
    with FakeOpenAI(model) as provider:
        model_keys.put_key("acme", "openai", key="sk-canary", base_url=provider.base_url, actor=rows.TESTER)
        Profile.objects.create(org_id="acme", key="ann", name="Ann", model="openai:gpt-fake")
        job = scripted_models.job(config={"profile_id": "ann"}, **spoken.columns)
        for turn in range(1, TURNS + 1):
            work()
            deliver_all()
            if turn < TURNS:
                assert (again(job).status, again(job).waiting_for) == (JobStatus.RUNNING, "reply"), f"turn {turn}"
                spoken.write(f"Answer {turn}.")
                inbound.route_due()

    job = Job.objects.get()
    assert (job.status, job.error_code, job.result) == (JobStatus.COMPLETED, "", "All is told.")
    asked = [f"Question {number}?" for number in range(1, TURNS + 1)]
    assert spoken.read() == asked
    lines = Message.objects.filter(job=job).order_by("id").values_list("text", flat=True)
    assert list(lines) == [line for n, text in enumerate(asked, 1) for line in (text, f"Answer {n}.")][:-1]
    assert len(model.asked) == TURNS + (len(model.asked) // 3), "each slip cost one more answer"
    assert "Answer 39." in json.dumps(model.asked[-1]["messages"])
