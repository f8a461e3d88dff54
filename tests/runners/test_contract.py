"""The contract of every runner, and the conversation with the scripted model."""

import json
import pickle
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from agent_jobs import llm, runners, work
from agent_jobs.errors import PermanentError
from agent_jobs.lifecycle import queues
from agent_jobs.runners.base import AwaitReply, Done, Failed, Run, Runner, Said, Wake
from agent_jobs.worker import lane_threads
from config import celery
from infra.egress.addresses import Rules
from tests.fakes.webhook import FakeReceiver, Reply
from tests.runners.no_journal import NoJournal


def run(wake: Wake = Wake.START, *, transcript: tuple[Said, ...] = (), **fields: Any) -> Run:
    given: dict[str, Any] = {"prompt": "Hello {{ name }}", "params": {"name": "Ann"}, **fields}
    return Run(job_id="j", org_id="acme", wake=wake, transcript=transcript, journal=NoJournal(transcript), **given)


def named(found: Iterable[Runner]) -> Any:
    return pytest.mark.parametrize("runner", list(found), ids=lambda runner: runner.name)


@named(runners.RUNNERS)
class TestEveryRunner:
    def test_has_a_lane_that_workers_listen_to(self, runner: Runner) -> None:
        assert runner.lane in queues.LANES
        assert queues.entry_of(runner.lane) in celery.app.tasks
        assert lane_threads.shares(runners.RUNNERS, threads=16)[runner.lane] >= 1

    def test_is_found_by_its_name(self, runner: Runner) -> None:
        assert runners.get(runner.name) is runner

    def test_speaks_in_a_channel_or_has_work(self, runner: Runner) -> None:
        assert runner.needs_channel == (runner.work is None)

    def test_can_be_sent_to_a_process_of_its_own(self, runner: Runner) -> None:
        sent, _ = pickle.loads(pickle.dumps((runner, replace(run(), journal=None))))
        assert sent.name == runner.name


@named(runner for runner in runners.RUNNERS if runner.needs_channel)
class TestEveryRunnerWithAChannel:
    def test_answers_a_first_turn_with_an_outcome_that_says_something(self, runner: Runner) -> None:
        outcome = runner.run(run())
        assert isinstance(outcome, Done | AwaitReply | Failed)
        assert outcome.say == ("Hello Ann",)

    def test_is_a_pure_step(self, runner: Runner) -> None:
        assert runner.run(run()) == runner.run(run())

    def test_refuses_a_prompt_that_cannot_be_rendered(self, runner: Runner) -> None:
        with pytest.raises(PermanentError):
            runner.run(run(prompt="{{ nobody }}"))


# For each runner with work, one that holds SECRET and succeeds.
SECRET = "s3cret-of-acme-42"
WORKS: dict[str, Callable[[FakeReceiver], dict[str, Any]]] = {
    "webhook": lambda receiver: {
        "url": receiver.address,
        "headers": {"X-Token": SECRET},
        "auth": {"type": "bearer", "token": SECRET},
        "sign_with": SECRET,
        "body": "{{ name }}",
    },
    "command": lambda receiver: {"shell": 'echo "$TOKEN" | tee /dev/stderr', "environment": {"TOKEN": SECRET}},
}


@named(runner for runner in runners.RUNNERS if runner.work)
class TestEveryRunnerWithWork:
    def test_accepts_its_work_with_and_without_params(self, runner: Runner, receiver: FakeReceiver) -> None:
        given = WORKS[runner.name](receiver)
        assert rules_of(runner).check(given, None) == []
        assert rules_of(runner).check(given, {"name": "Ann"}) == []

    def test_misses_only_what_is_required_in_an_empty_work(self, runner: Runner) -> None:
        assert {error.code for error in rules_of(runner).check({}, None)} == {"required"}

    def test_names_a_key_that_it_does_not_know(self, runner: Runner, receiver: FakeReceiver) -> None:
        errors = rules_of(runner).check({**WORKS[runner.name](receiver), "nonsense": 1}, None)
        assert [(error.field, error.code) for error in errors] == [("work.nonsense", "unknown_field")]

    def test_keeps_every_secret_apart(self, runner: Runner, receiver: FakeReceiver) -> None:
        given = WORKS[runner.name](receiver)
        split = work.split(given, rules_of(runner))
        assert SECRET not in json.dumps(split.shown)
        assert set(split.secrets.values()) == {SECRET}
        assert split.whole == given

    def test_tells_what_it_did_without_secrets(self, runner: Runner, receiver: FakeReceiver) -> None:
        receiver.replies = [Reply(body=SECRET.encode(), headers={"X-Echo": SECRET})]
        given = WORKS[runner.name](receiver)
        outcome = runner.run(run(prompt="", work=given, egress=Rules(allow_private=True), commands="trusted"))
        assert isinstance(outcome, Done)
        assert outcome.report
        assert SECRET not in json.dumps([outcome.result, outcome.result_data, outcome.report])


def rules_of(runner: Runner) -> work.WorkRules:
    assert runner.work is not None
    return runner.work


def test_a_message_is_done_when_it_is_said() -> None:
    assert runners.get("message").run(run()) == Done(result="Hello Ann", say=("Hello Ann",))


def test_a_conversation_asks_and_waits() -> None:
    assert isinstance(runners.get("conversation").run(run()), AwaitReply)


def test_a_conversation_follows_up_on_silence_and_counts() -> None:
    asked = (Said("agent", "Hello Ann", is_human=False),)
    outcome = runners.get("conversation").run(
        run(Wake.SILENCE, transcript=asked, follow_ups_sent=1, config={"max_follow_ups": 3})
    )
    assert isinstance(outcome, AwaitReply)
    assert "2 of 3" in outcome.say[0]


def test_a_conversation_thanks_for_the_reply_and_makes_its_result_of_it() -> None:
    transcript = (
        Said("agent", "Hello Ann", is_human=False),
        Said("Ann", "All", is_human=True),
        Said("Ann", "good", is_human=True),
    )
    outcome = runners.get("conversation").run(run(Wake.REPLY, transcript=transcript))
    assert isinstance(outcome, Done)
    assert "Thank you, Ann" in outcome.say[0]
    assert outcome.result == "Ann answered: All good"
    assert outcome.result_data == {"author": "Ann", "answer": "All good"}


def test_a_model_that_does_not_exist_is_a_failure_that_names_it() -> None:
    with pytest.raises(PermanentError, match="gpt-0"):
        llm.get("gpt-0")
