"""The interface of runners: the `Run` that they get and the outcomes that they return.

A runner is the code that performs a job: a pure step from a `Run` to an outcome. It has no database, no clock and no
channel. It puts its messages into `say`, and the service writes them in one transaction with the outcome. So a turn
happens with all its messages, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from agent_jobs import llm
from agent_jobs.work import WorkRules
from infra.egress.addresses import Rules


class Wake(StrEnum):
    """The reason for a turn. One that is retried, or goes on after an approval or quiet hours, keeps its reason."""

    START = "start"
    REPLY = "reply"
    SILENCE = "silence"


@dataclass(frozen=True, slots=True)
class Said:
    author: str
    text: str
    is_human: bool


class Journal(Protocol):
    """The outside calls of a turn. Each call is recorded before the next one begins.

    A turn that resumes after a crash gets the recorded results in the same order, so that no call is made twice. Every
    method raises LeaseLost if the job has ended or another worker holds it; the runner must not catch that.
    """

    def ask(self, turn: llm.Turn, *, may_interrupt: bool = True) -> llm.Reply | AwaitApproval:
        """Call the model. AwaitApproval: the turn waits for a person to allow more budget.

        Raises RetryableError and PermanentError, and Interrupted if a message came in meanwhile.
        """
        ...

    def perform(self, call: llm.ToolCall) -> str | AwaitApproval:
        """Make a tool call and return its answer for the model. AwaitApproval: a person must approve the call first."""
        ...

    def say(self, texts: Sequence[str]) -> None:
        """Send these messages now, while the turn goes on."""
        ...

    def lines(self) -> tuple[Said, ...]:
        """The current transcript."""
        ...

    def count_heard(self) -> int:
        """The number of human messages in the current transcript."""
        ...

    def fitted(self, result_data: Any) -> tuple[Any, str]:
        """The result, repaired to fit the job type's schema where the meaning is plain, and the remaining errors.

        The errors are one sentence, or empty.
        """
        ...

    def disown(self, code: str) -> None:
        """Record that the model's last answer failed the turn with this code, so that a retry asks the model anew."""
        ...

    @property
    def is_ahead(self) -> bool:
        """Whether a later model call is recorded, so that the turn has already gone on from here."""
        ...


class Interrupted(Exception):
    """A person wrote during a model call, and the job's policy is to repeat the call with that message."""


_NOWHERE_PRIVATE = Rules()


def _ignore(abort: Callable[[], object]) -> None:
    """The default of `Run.on_start`: nobody aborts the turn."""


@dataclass(frozen=True, slots=True)
class Run:
    """One turn. `transcript` is oldest first; `follow_ups_sent` counts follow-ups since the last reply.

    `prompt` is the template of the start prompt; `instructions` comes from the job's profile. `journal` is set for
    runners that have a conversation; `tools` are those that the agent may call.

    `work` is the runner's definition with its secrets, which must appear in no outcome. `egress` says where its
    requests may go, and `commands` how this worker runs commands: `off`, `sandbox` or `trusted`. `fire_at` is the time
    for which a schedule made the job. `failed_attempts` counts the attempts before this one in the job's life. A runner
    whose turn takes long calls `on_start` with a function that aborts it, for the case that the job is canceled
    meanwhile.
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
    task_id: str = ""
    failed_attempts: int = 0
    work: Mapping[str, Any] = field(default_factory=dict)
    schedule_id: str = ""
    scheduled_at: datetime | None = None
    fire_at: datetime | None = None
    on_start: Callable[[Callable[[], object]], object] = _ignore
    egress: Rules = _NOWHERE_PRIVATE
    commands: str = "off"


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call of a language model, as the job's activities record it.

    `is_told`: its activity is written already, as for every paid call.
    """

    model: str
    input: Mapping[str, Any]
    output: Mapping[str, Any]
    usage: llm.Usage = field(default_factory=llm.Usage)
    is_told: bool = False
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Done:
    """The job's goal is reached. It ends COMPLETED once everything it said is delivered.

    `report` is kept with the task: what the attempt did, as JSON.
    """

    result: str
    result_data: Any = None
    say: tuple[str, ...] = ()
    calls: tuple[ModelCall, ...] = ()
    heard: int = 0  # number of human messages taken into account
    report: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class AwaitReply:
    """The agent expects an answer; the follow-up timer starts when the last of `say` is delivered."""

    say: tuple[str, ...] = ()
    calls: tuple[ModelCall, ...] = ()
    heard: int = 0


@dataclass(frozen=True, slots=True)
class AwaitApproval:
    """The turn waits for a person's decision on a call, for at most `seconds`.

    `say` is the question, sent as the message `message_id` with these `buttons` (label and value); it is empty if it
    was sent before. If not `has_begun`, the time starts when that message is delivered.
    """

    message_id: str
    seconds: float
    say: tuple[str, ...] = ()
    buttons: tuple[tuple[str, str], ...] = ()
    has_begun: bool = True
    calls: tuple[ModelCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """The turn failed. A retryable failure is retried as the job's config says.

    If it does not count as an attempt (`counts`), it is retried until the job's deadline, regardless of the config.
    """

    code: str
    message: str
    is_retryable: bool = False
    retry_after: float | None = None
    counts: bool = True
    say: tuple[str, ...] = ()
    calls: tuple[ModelCall, ...] = ()
    report: Mapping[str, Any] | None = None


Outcome = Done | AwaitReply | AwaitApproval | Failed


class Runner(Protocol):
    """Performs jobs. `lane`: the queue of its jobs. `has_conversation`: its `Run` has a transcript and a profile.

    `batch_size` above 1 is only for short runners without outside effects, because a crash repeats the whole batch.
    `needs_channel`: its jobs must name one. `work`: the rules of its work; None if it takes none.
    """

    name: str
    lane: str
    batch_size: int
    has_conversation: bool
    needs_channel: bool
    work: WorkRules | None

    def run(self, run: Run) -> Outcome:
        """Take one turn. May raise RetryableError or PermanentError; anything else is a bug and fails the job."""
        ...
