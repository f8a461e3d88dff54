"""What a runner is given and what it answers.

A runner is the code that performs a job: a pure step from a `Run` to an outcome. It has no database, no clock and no
channel; what it wants said it puts into `say`, and the service writes it down together with the outcome, so that a
turn either happened, with everything it said, or did not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol

from agent_jobs import llm
from agent_jobs.errors import PermanentError
from agent_jobs.llm import Usage


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


@dataclass(frozen=True, slots=True)
class Run:
    """One turn. `transcript` is oldest first; `follow_ups_sent` counts those since the last reply.

    `prompt` is the template of the start prompt; `instructions` and `routes`, the models to ask, come from the job's
    profile. `unreachable` is why none can be asked.
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
    routes: tuple[llm.Route, ...] = (llm.Route("scripted"),)
    unreachable: PermanentError | None = None


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call of a language model, as the job's activities record it. Credits are money: what was set aside before
    the call, and what it cost."""

    model: str
    input: Mapping[str, Any]
    output: Mapping[str, Any]
    usage: Usage = field(default_factory=Usage)
    allocated_credits: Decimal = Decimal(0)
    consumed_credits: Decimal = Decimal(0)
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Done:
    """The job's goal is reached. It ends COMPLETED once everything it said is delivered."""

    result: str
    result_data: Any = None
    say: tuple[str, ...] = ()
    calls: tuple[ModelCall, ...] = ()


@dataclass(frozen=True, slots=True)
class AwaitReply:
    """The agent expects an answer; the follow-up timer starts when the last of `say` is delivered."""

    say: tuple[str, ...] = ()
    calls: tuple[ModelCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """The turn did not work out. Retryable ones are tried again as the job's config says."""

    code: str
    message: str
    is_retryable: bool = False
    retry_after: float | None = None
    say: tuple[str, ...] = ()
    calls: tuple[ModelCall, ...] = ()


Outcome = Done | AwaitReply | Failed


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
