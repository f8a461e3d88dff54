"""The shapes of a tool as offered to the model, and of the answer of a call."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Receives a function that aborts the running call from any thread.
OnStart = Callable[[Callable[[], None]], object]


@dataclass(frozen=True, slots=True)
class Declared:
    """One tool. `parameters` is the JSON schema of its arguments. `settings` tell how to call it; the model never sees
    them.

    `approvers` are the stated approvers of its calls (`agent_jobs.approvers`).
    """

    name: str
    kind: str
    description: str
    parameters: Mapping[str, Any]
    requires_approval: bool = False
    approvers: tuple[str, ...] = ()
    approval_minutes: float = 60
    on_timeout: str = "deny"
    is_idempotent: bool = False
    timeout_seconds: float = 10
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A tool of a server that is not offered, or with an empty `tool` the whole server. `reason` is for people."""

    server: str
    tool: str
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The tools of a server."""

    tools: tuple[Declared, ...]
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """The model's answer to read. `is_error`: the call failed or its effect is unknown; the text says which."""

    text: str
    is_error: bool = False
