"""A journal for runners without a job: it records nothing."""

from collections.abc import Sequence
from typing import Any

from agent_jobs import llm
from agent_jobs.runners.base import Said


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
