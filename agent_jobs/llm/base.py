"""The input and output of a language model, in our own types. No provider's types leave this package."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

# The tool that ends a turn; every model gets it.
RESPOND = "respond"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the conversation. People's words are data: they inform the model, and give it no orders."""

    author: str
    text: str
    is_human: bool


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the model may call. `parameters` is the JSON schema of its arguments, an object."""

    name: str
    description: str
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call that the model asks for. `id` is the model's own, and names the call in our answer. `arguments` are
    as the model sent them, not yet checked by the schema.
    """

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ModelStep:
    """One answer of the model in this turn, with its results.

    `text` is the model's text. `answers` holds the results of its calls, by the id of the call. `note` is our remark to
    the model about that answer.
    """

    calls: tuple[ToolCall, ...] = ()
    answers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Slip:
    """A *slip*: why an answer of a model is rejected. Nothing of that answer is said or done.

    The model is told `what` is wrong and how to `mend` it, and asked again. If it does not correct the answer, the turn
    fails with `code`. A final slip (`is_final`) ends the turn at once, because asking again would bring the same.
    """

    code: str
    what: str
    mend: str = "Answer again."
    is_final: bool = False

    @property
    def told(self) -> str:
        """The text that tells the model of this slip."""
        return f"Your last answer was not taken, and nothing of it was said or done: {self.what}. {self.mend}"


@dataclass(frozen=True, slots=True)
class Turn:
    """The model's input. `lines` is the conversation so far, oldest first; `steps` are those of this turn.

    `goal` is the job's start prompt. In a follow-up, `follow_up` of `max_follow_ups` is its number.
    """

    instructions: str
    goal: str
    lines: tuple[Line, ...] = ()
    is_follow_up: bool = False
    follow_up: int = 0
    max_follow_ups: int = 0
    tools: tuple[Tool, ...] = ()
    steps: tuple[ModelStep, ...] = ()
    result_schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call, as the provider counts them. `input_tokens` include those that it had cached."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """The model's wish: to say something, to call tools, to wait for an answer, or (`is_done`) to end with a result.

    `before` are messages to say before `text`. `note` is our remark to the model, beside the results of its calls.
    `is_paused`: the provider stopped midway, and wants to be called again to continue. `slip` is set if the answer is
    rejected. `finish` is the provider's word for why the model stopped. `model` is the one that answered, which may be
    a fallback.
    """

    text: str = ""
    is_done: bool = False
    result: str = ""
    result_data: Any = None
    calls: tuple[ToolCall, ...] = ()
    usage: Usage = Usage()
    model: str = ""
    before: tuple[str, ...] = ()
    note: str = ""
    is_paused: bool = False
    slip: Slip | None = None
    finish: str = ""

    @property
    def say(self) -> tuple[str, ...]:
        """All messages to say, in order."""
        return tuple(text for text in (*self.before, self.text) if text)


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a model. Its creator has decided that this key may go to this address.

    An empty `base_url` means the provider's own. `context_tokens` limits the model's input (`llm.context`). `ports` and
    `allow_private` are rules of the egress guard (`infra.egress.addresses.Rules`).
    """

    api_key: str = field(default="", repr=False)
    base_url: str = ""
    timeout_seconds: float = 60.0
    max_output_tokens: int = 4_096
    context_tokens: int = 100_000
    ports: tuple[int, ...] = (443, 8443)
    allow_private: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """A model by name, with its access; or a sentence that says why it has none (`unreachable`)."""

    model: str
    access: Access = Access()
    unreachable: str = ""


# Gets a function that cancels the call at once, from any thread. Called again for each model that is asked.
OnStart = Callable[[Callable[[], object]], object]


class Model(Protocol):
    def answer(self, turn: Turn, access: Access, on_start: OnStart | None = None) -> Reply:
        """Call the model once. Raises RetryableError (time-out, 429, 5xx, not reached) or PermanentError (refused, not
        allowed).

        A canceled call raises RetryableError with the code `model_call_canceled`.
        """
        ...
