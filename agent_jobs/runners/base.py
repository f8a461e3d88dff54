"""What a runner is given and what it answers.

A runner is the code that performs a job: a pure step from a `Run` to an outcome. It has no database, no clock and no
channel; what it wants said it puts into `say`, and the service writes it down together with the outcome, so that a
turn either happened, with everything it said, or did not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from agent_jobs import llm


class Wake(StrEnum):
    """Why a turn is taken."""

    START = "start"
    REPLY = "reply"
    SILENCE = "silence"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Said:
    author: str
    text: str
    is_human: bool


class Journal(Protocol):
    """What a turn does outside, each call recorded before the next begins; a turn that is taken up again after a crash
    gets what is recorded, in the same order, and nothing is done twice.

    All of it raises LeaseLost when the job is somebody else's by now, or has ended: the runner lets that pass.
    """

    def ask(self, turn: llm.Turn, *, may_interrupt: bool = True) -> llm.Reply | AwaitApproval:
        """One call of the model, or that the turn waits for a person to allow it more budget. Raises as `llm.Model`
        does, and Interrupted where a message came in meanwhile."""
        ...

    def perform(self, call: llm.ToolCall) -> str | AwaitApproval:
        """What the model is told of a tool call, or that the turn waits for a person's approval of it."""
        ...

    def say(self, texts: Sequence[str]) -> None:
        """Say these now, while the turn goes on."""
        ...

    def lines(self) -> tuple[Said, ...]:
        """The transcript as it is by now."""
        ...

    def count_heard(self) -> int:
        """How many messages of people the transcript has by now."""
        ...

    def fitted(self, result_data: Any) -> tuple[Any, str]:
        """A result as the job type's schema takes it, mended where the meaning is plain; and what is wrong with it, in
        a sentence, or nothing."""
        ...

    def disown(self, code: str) -> None:
        """The model's last answer failed the turn with this code: a retry of the turn asks anew."""
        ...

    @property
    def is_ahead(self) -> bool:
        """More is recorded: what was to come next was decided already."""
        ...


class Interrupted(Exception):
    """A person wrote while the model was thinking, and the job's policy is to begin again with that."""


@dataclass(frozen=True, slots=True)
class Run:
    """One turn. `transcript` is oldest first; `follow_ups_sent` counts those since the last reply.

    `prompt` is the template of the start prompt; `instructions` comes from the job's profile. `journal` is given to
    runners that have a conversation; `tools` are those that the agent may call.
    """

    job_id: str
    org_id: str
    wake: Wake
    prompt: str
    params: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    transcript: tuple[Said, ...] = ()
    follow_ups_sent: int = 0
    instructions: str = ""
    tools: tuple[llm.Tool, ...] = ()
    result_schema: Mapping[str, Any] = field(default_factory=dict)
    journal: Journal | None = None


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call of a language model, as the job's activities record it. `is_told`: it has its activity already, as every
    call does that is paid for."""

    model: str
    input: Mapping[str, Any]
    output: Mapping[str, Any]
    usage: llm.Usage = field(default_factory=llm.Usage)
    is_told: bool = False
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Done:
    """The job's goal is reached. It ends COMPLETED once everything it said is delivered."""

    result: str
    result_data: Any = None
    say: tuple[str, ...] = ()
    calls: tuple[ModelCall, ...] = ()
    heard: int = 0  # how many messages of people it takes into account


@dataclass(frozen=True, slots=True)
class AwaitReply:
    """The agent expects an answer; the follow-up timer starts when the last of `say` is delivered."""

    say: tuple[str, ...] = ()
    calls: tuple[ModelCall, ...] = ()
    heard: int = 0


@dataclass(frozen=True, slots=True)
class AwaitApproval:
    """A person is to allow a call; the turn goes on when they have, or when `seconds` are over.

    `say` asks for it, in a message with the id `message_id` and these `buttons` (label and value); empty where that
    was said before. Where the time has not begun, it begins when that message is out.
    """

    message_id: str
    seconds: float
    say: tuple[str, ...] = ()
    buttons: tuple[tuple[str, str], ...] = ()
    has_begun: bool = True
    calls: tuple[ModelCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """The turn did not work out. Retryable ones are tried again as the job's config says.

    Where it does not count as an attempt, the turn is tried again until the job's deadline, whatever the config says.
    """

    code: str
    message: str
    is_retryable: bool = False
    retry_after: float | None = None
    counts: bool = True
    say: tuple[str, ...] = ()
    calls: tuple[ModelCall, ...] = ()


Outcome = Done | AwaitReply | AwaitApproval | Failed


class Runner(Protocol):
    """`lane` is the queue that its jobs wait in. `batch_size` above 1 is for runners that are short and touch nothing
    outside, for a crash runs a whole batch again. `has_conversation` loads the transcript and the profile."""

    name: str
    lane: str
    batch_size: int
    has_conversation: bool

    def run(self, run: Run) -> Outcome:
        """Take one turn. May raise RetryableError or PermanentError; anything else is a bug and fails the job."""
        ...
