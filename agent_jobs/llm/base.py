"""What goes to a language model and what comes back, in our own words: no provider's shapes get past this package."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

# The tool that ends a turn; every model is offered it.
RESPOND = "respond"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the conversation. What people wrote is data: it informs the model and gives it no orders."""

    author: str
    text: str
    is_human: bool


@dataclass(frozen=True, slots=True)
class Tool:
    """Something the model may ask for. `parameters` is the JSON schema of its arguments, an object."""

    name: str
    description: str
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})


@dataclass(frozen=True, slots=True)
class ToolCall:
    """`id` is the model's own, by which it knows the answer again. `arguments` as sent: not yet checked by schema."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """One answer of the model in this turn, and what came of it.

    `text` is what the model wrote, `answers` what its calls brought, by the id of the call. `note` is what the service
    tells the model about that answer.
    """

    calls: tuple[ToolCall, ...] = ()
    answers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Slip:
    """Why an answer of a model cannot be taken: nothing of it is said or done.

    The model is told and asked again. `code` is the error code of the turn where the model does not mend it. A final
    slip ends the turn at once: asking again would bring the same.
    """

    code: str
    what: str
    mend: str = "Answer again."
    is_final: bool = False

    @property
    def told(self) -> str:
        """The sentence for the model."""
        return f"Your last answer was not taken, and nothing of it was said or done: {self.what}. {self.mend}"


@dataclass(frozen=True, slots=True)
class Turn:
    """What a model sees. `lines` is the conversation so far, oldest first; `steps` what this turn has done so far."""

    instructions: str
    goal: str
    lines: tuple[Line, ...] = ()
    is_follow_up: bool = False
    follow_up: int = 0
    max_follow_ups: int = 0
    tools: tuple[Tool, ...] = ()
    steps: tuple[Step, ...] = ()
    result_schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call, as the provider counts them."""

    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model wants: something said, tools called, to go on waiting or, with `is_done`, to end with a result.

    `before` are messages to say ahead of `text`. `note` is what the model is told beside the answers of its calls.
    `is_paused`: the provider stopped in the middle and wants to be asked to go on. `slip` is set where the answer
    cannot be taken. `finish` is the provider's own word for why the model stopped. `model` is the one that answered: a
    fallback may have stood in for the one that was asked.
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
        """All that is to be said, one message each."""
        return tuple(text for text in (*self.before, self.text) if text)


@dataclass(frozen=True, slots=True)
class Access:
    """How a model is reached; whoever makes one has decided that this key may go to this address.

    An empty `base_url` is the provider's own. `context_tokens` is how much the model is shown (`context`). `ports` and
    `allow_private` say what the guard lets through (`infra.egress.addresses.Rules`).
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
    """A model by name, and how it is reached; or, in a sentence, why it cannot be (`unreachable`)."""

    model: str
    access: Access = Access()
    unreachable: str = ""


# Handed something that gives the call up, at once and from any thread; called again for each model that is asked.
OnStart = Callable[[Callable[[], object]], object]


class Model(Protocol):
    def answer(self, turn: Turn, access: Access, on_start: OnStart | None = None) -> Reply:
        """Raises RetryableError (time-out, 429, 5xx, not reached) or PermanentError (refused, not allowed).

        A call that is given up ends as RetryableError `model_call_canceled`.
        """
        ...
