"""A tool as the model is offered it, and what a call of it comes to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Handed something that gives the call in flight up, from any thread.
OnStart = Callable[[Callable[[], None]], object]


@dataclass(frozen=True, slots=True)
class Declared:
    """One tool. `parameters` is the JSON schema of its arguments; `settings` how it is called, never shown to a model.

    `approvers` say who may allow a call, as stated (`agent_jobs.approvers`).
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
class ToolAnswer:
    """What the model is told. With `is_error` it did not work, or nobody knows whether it did: the text says which."""

    text: str
    is_error: bool = False
