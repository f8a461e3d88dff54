"""The seam to language models: a turn goes in, a reply comes out. Knows neither jobs nor channels.

In this version one model ships: `scripted`, a double that follows a fixed script. It thinks nothing, costs nothing, and
is named for what it is; demos and tests run on it, and so does every profile that names no other model.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from agent_jobs.errors import PermanentError


@dataclass(frozen=True, slots=True)
class Line:
    author: str
    text: str
    is_human: bool


@dataclass(frozen=True, slots=True)
class Turn:
    """What a model sees. `lines` is the conversation so far, oldest first; people's words are data, never orders."""

    instructions: str
    goal: str
    lines: tuple[Line, ...] = ()
    is_follow_up: bool = False
    follow_up: int = 0
    max_follow_ups: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model wants: something said, and to go on waiting or, with `is_done`, to end with a result."""

    text: str = ""
    is_done: bool = False
    result: str = ""
    result_data: Any = None


class Model(Protocol):
    def answer(self, turn: Turn) -> Reply:
        """Raises RetryableError (time-out, 429, 5xx) or PermanentError (refused, not allowed)."""
        ...


class ScriptedModel:
    """Posts the goal, follows up on silence, thanks for the reply and ends with a result made of it."""

    def answer(self, turn: Turn) -> Reply:
        replies = _latest_replies(turn.lines)
        if replies:
            author = replies[-1].author
            said = " ".join(line.text for line in replies)
            return Reply(
                text=f"Thank you, {author}. I have noted your answer.",
                is_done=True,
                result=f"{author} answered: {said}",
                result_data={"author": author, "answer": said},
            )
        if not turn.lines:
            return Reply(text=turn.goal)
        if turn.is_follow_up:
            return Reply(text=f"Still hoping for your answer ({turn.follow_up} of {turn.max_follow_ups}): {turn.goal}")
        return Reply()


def _latest_replies(lines: tuple[Line, ...]) -> list[Line]:
    """What people said since the agent last spoke."""
    latest: list[Line] = []
    for line in reversed(lines):
        if not line.is_human:
            break
        latest.append(line)
    return latest[::-1]


MODELS: dict[str, Model] = {"scripted": ScriptedModel()}


def get(name: str) -> Model:
    try:
        return MODELS[name]
    except KeyError:
        known = ", ".join(MODELS)
        raise PermanentError(f"there is no model {name!r}; models are {known}", code="model_unknown") from None
