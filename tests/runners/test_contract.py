"""What every runner keeps to, and the conversation's way with the scripted model."""

from collections.abc import Sequence
from typing import Any

import pytest

from agent_jobs import llm, runners
from agent_jobs.errors import PermanentError
from agent_jobs.lifecycle import queues
from agent_jobs.runners.base import AwaitReply, Done, Failed, Run, Runner, Said, Wake


class NoJournal:
    """Takes nothing down, and knows no tools: enough for a model that answers at once."""

    is_ahead = False

    def __init__(self, transcript: tuple[Said, ...]) -> None:
        self._transcript = transcript

    def ask(self, turn: llm.Turn, *, may_interrupt: bool = True) -> llm.Reply:
        return llm.get("scripted").answer(turn, llm.Access())

    def perform(self, call: llm.ToolCall) -> str:
        raise AssertionError(call)

    def lines(self) -> tuple[Said, ...]:
        return self._transcript

    def count_heard(self) -> int:
        return sum(said.is_human for said in self._transcript)

    def say(self, texts: Sequence[str]) -> None:
        raise AssertionError(texts)

    def fitted(self, result_data: Any) -> tuple[Any, str]:
        return result_data, ""

    def disown(self, code: str) -> None:
        raise AssertionError(code)


def run(wake: Wake = Wake.START, *, transcript: tuple[Said, ...] = (), **fields: Any) -> Run:
    given: dict[str, Any] = {"prompt": "Hello {{ name }}", "params": {"name": "Ann"}, **fields}
    return Run(job_id="j", org_id="acme", wake=wake, transcript=transcript, journal=NoJournal(transcript), **given)


@pytest.mark.parametrize("runner", runners.RUNNERS, ids=lambda runner: runner.name)
class TestEveryRunner:
    def test_has_a_lane_that_workers_listen_to(self, runner: Runner) -> None:
        assert runner.lane in queues.LANES

    def test_answers_a_first_turn_with_an_outcome_that_says_something(self, runner: Runner) -> None:
        outcome = runner.run(run())
        assert isinstance(outcome, Done | AwaitReply | Failed)
        assert outcome.say == ("Hello Ann",)

    def test_is_a_pure_step(self, runner: Runner) -> None:
        assert runner.run(run()) == runner.run(run())

    def test_refuses_a_prompt_that_cannot_be_rendered(self, runner: Runner) -> None:
        with pytest.raises(PermanentError):
            runner.run(run(prompt="{{ nobody }}"))

    def test_is_found_by_its_name(self, runner: Runner) -> None:
        assert runners.get(runner.name) is runner


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
