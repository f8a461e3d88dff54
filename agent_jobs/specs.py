"""The frozen inputs of the services, and the rules of a job's config.

API handlers and commands turn a client's request into a spec. Services take specs and never see a request.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from agent_jobs import rules
from agent_jobs.errors import FieldError
from agent_jobs.rules import Rule

MAX_DELAY_MINUTES = 10_080  # a week
MIN_FOLLOW_UP_MINUTES = 0.05  # nobody answers within three seconds, and shorter intervals flood a channel
# The largest token cap.
MAX_TOKENS = 10**12
MOST_APPROVAL_CHANNELS = 5
MAX_COST = 10**9
PRIORITIES = range(10)
DEFAULT_PRIORITY = 5
# The words for a priority. Each stands for the number in the middle of its range; the last three are other names.
PRIORITY_WORDS: Mapping[str, int] = {
    "urgent": 9,
    "high": 7,
    "normal": DEFAULT_PRIORITY,
    "low": 2,
    "foreground": 7,
    "background": DEFAULT_PRIORITY,
    "best_effort": 2,
}
_LOWEST_OF_NAME = {"urgent": 8, "high": 6, "normal": 4, "low": 0}
UNIQUE_SCOPES = ("type", "org")
ON_CONFLICT = ("reject", "return", "replace")
MAX_UNIQUE_KEY = 255
MAX_UNIQUE_MINUTES = 525_600  # a year
MAX_METADATA_KEYS = 50
MAX_METADATA_TEXT = 500
METADATA_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of a change: `Actor("token", "ajt_live_x1y2")`, `Actor("user", "jane")`, `Actor("system", "promote")`.

    `request_id` names the HTTP request, if there is one.
    """

    kind: str
    name: str
    request_id: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    platform: str
    code: str
    type: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Uniqueness:
    """A business key that at most one job holds at a time (`jobs.uniqueness`).

    `scope`: among the jobs of the type, or among all of the organisation. `window_minutes`: a COMPLETED job also counts
    for so long after its creation. `on_conflict`: what becomes of the new job, or (`replace`) of the other one.
    """

    key: str
    scope: str = "type"
    window_minutes: int = 0
    on_conflict: str = "reject"


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A requested job. `config` holds only what the client sent; the job type's defaults are added later.

    `work` has its secrets in clear. `id` is drawn where it is None. `schedule_id` and `fire_at` name the
    firing that makes the job. `outcome_channel` is {"platform", "code", "type", "data", "template"}, the last three
    optional; empty: nobody is told the outcome.
    """

    job_type_id: str
    channel: ChannelSpec | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    scheduled_at: datetime | None = None
    delay_minutes: int = 0
    tags: tuple[str, ...] = ()
    priority: int = DEFAULT_PRIORITY
    metadata: Mapping[str, Any] = field(default_factory=dict)
    unique: Uniqueness | None = None
    token_pk: int | None = None
    user_pk: int | None = None
    replay_of: UUID | None = None
    work: Mapping[str, Any] = field(default_factory=dict)
    outcome_channel: Mapping[str, Any] = field(default_factory=dict)
    id: UUID | None = None
    schedule_id: UUID | None = None
    fire_at: datetime | None = None


def money(value: Any) -> Decimal:
    """An amount as a client writes it: a number, or a text to avoid rounding.

    Raises ValueError, which says what the amount must be.
    """
    text = value if isinstance(value, str) else ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = f"{Decimal(str(value)):f}"
    if re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,6}0*)?", text) and 0 < Decimal(text) <= MAX_COST:
        return Decimal(text)
    raise ValueError(f"must be an amount above 0 and up to {MAX_COST:,}, with at most 6 decimal places")


def _money(value: Any) -> str:
    try:
        money(value)
    except ValueError as error:
        return str(error)
    return ""


_CHANNEL_RULES: Mapping[str, Rule] = {
    "platform": rules.text(32),
    "code": rules.text(255),
    "type": rules.text(64),
    "data": lambda value: "" if isinstance(value, Mapping) else "must be an object",
}


def _channels(value: Any) -> str:
    if not isinstance(value, list) or not 0 < len(value) <= MOST_APPROVAL_CHANNELS:
        return f"must be a list of 1 to {MOST_APPROVAL_CHANNELS} channels"
    for channel in value:
        if not isinstance(channel, Mapping) or not {"platform", "code"} <= set(channel) <= set(_CHANNEL_RULES):
            return f"must name channels by platform and code, with {' and '.join(list(_CHANNEL_RULES)[2:])} if needed"
        for key, part in channel.items():
            if complaint := _CHANNEL_RULES[key](part):
                return f"{key} of a channel {complaint}"
    return ""


_RETRY_POLICY_RULES: Mapping[str, Rule] = {
    "max_attempts": rules.whole(1, 100),
    "initial_interval_seconds": rules.number(0, MAX_DELAY_MINUTES * 60),
    "max_interval_seconds": rules.number(0, MAX_DELAY_MINUTES * 60),
    "multiplier": rules.number(1, 100),
    "jitter": rules.number(0, 1),
}


def _retry_policy(value: Any) -> str:
    known = ", ".join(_RETRY_POLICY_RULES)
    if not isinstance(value, Mapping):
        return f"must be an object with {known}"
    for key, number in value.items():
        if key not in _RETRY_POLICY_RULES:
            return f"has no {key!r}; the keys are {known}"
        if complaint := _RETRY_POLICY_RULES[key](number):
            return f"{key} {complaint}"
    return ""


# Every key of a job's config and of a job type's default_config. Times are in minutes.
CONFIG_RULES: Mapping[str, Rule] = {
    "start_prompt": rules.text(20_000),
    "profile_id": rules.text(128),
    "max_follow_ups": rules.whole(0, 50),
    "follow_up_interval": rules.number(MIN_FOLLOW_UP_MINUTES, MAX_DELAY_MINUTES),
    "on_no_response": rules.one_of("complete", "fail"),
    "max_task_retries": rules.whole(0, 50),
    "task_retry_interval": rules.number(0, MAX_DELAY_MINUTES),
    # In place of the two above: a back-off, in seconds (`timing.RetryPolicy`).
    "retry_policy": _retry_policy,
    # For runners without an agent: how long one attempt may take, in seconds.
    "attempt_timeout_seconds": rules.number(0, 604_800, above=True),
    # Whose values outputs of programs show as ******: those of all variables, or of credentials.
    "output_masks": rules.one_of("environment", "credentials"),
    "max_time_to_complete": rules.number(0, 525_600, above=True),
    # A job that is still WAITING after this time has FAILED (`expired`).
    "queue_ttl_minutes": rules.number(0, 525_600, above=True),
    # The client's own estimate; the service does not use it.
    "estimated_duration_seconds": rules.whole(0, 10**9),
    "count_quiet_hours": rules.flag,
    "failure_cooldown_minutes": rules.number(0, MAX_DELAY_MINUTES),
    "ignore_cooldown": rules.flag,
    "on_message": rules.one_of("steer", "enqueue", "interrupt", "reject"),
    "max_steps": rules.whole(1, 200),
    "cancel_note": rules.flag,
    # For all model calls of the job together; money is in the currency of the price table.
    "max_tokens": rules.whole(1, MAX_TOKENS),
    "max_cost": _money,
    # Where a question about an approval is asked, in this order, if the job's own channel does not get it.
    "approval_channels": _channels,
    # For a job that reaches a cap: whether it fails or asks, who may approve, and how long it waits for them.
    "on_budget_exhausted": rules.one_of("fail", "approve"),
    "budget_approvers": rules.approvers,
    "budget_approval_minutes": rules.number(0, MAX_DELAY_MINUTES, above=True),
}


def config_errors(config: Any, *, at: str) -> list[FieldError]:
    """Errors in a config: `[FieldError("config.max_follow_ups", "invalid", "must be …")]` at "config"."""
    if not isinstance(config, Mapping):
        return [FieldError(at, "invalid", "must be an object")]
    errors = []
    known = ", ".join(CONFIG_RULES)
    for key, value in config.items():
        if key not in CONFIG_RULES:
            errors.append(FieldError(f"{at}.{key}", "unknown_field", f"is not a config key; the keys are {known}"))
        elif complaint := CONFIG_RULES[key](value):
            errors.append(FieldError(f"{at}.{key}", "invalid", complaint))
    return errors


def priority_name(priority: int) -> str:
    """`urgent` (8 and 9), `high` (6 and 7), `normal` (4 and 5) or `low` (0 to 3)."""
    return next(name for name, lowest in _LOWEST_OF_NAME.items() if priority >= lowest)


def priorities_named(word: str) -> list[int]:
    """The priorities with this name; another word for a name is accepted, such as `foreground`. Raises KeyError."""
    name = priority_name(PRIORITY_WORDS[word])
    return [number for number in PRIORITIES if priority_name(number) == name]


def metadata_errors(metadata: Mapping[str, Any], *, at: str = "metadata") -> list[FieldError]:
    """Errors in the metadata of a job: a flat object of texts, numbers and booleans."""
    if len(metadata) > MAX_METADATA_KEYS:
        return [FieldError(at, "too_many", f"may have at most {MAX_METADATA_KEYS} keys")]
    errors = []
    for key, value in metadata.items():
        if not METADATA_KEY.fullmatch(key):
            message = f"has the key {key[:64]!r}; a key has 1 to 64 letters, digits, dots, hyphens or underscores"
            errors.append(FieldError(at, "invalid", message))
        elif not isinstance(value, str | int | float | bool):
            errors.append(FieldError(f"{at}.{key}", "invalid", "must be a text, a number, true or false"))
        elif isinstance(value, str) and len(value) > MAX_METADATA_TEXT:
            errors.append(FieldError(f"{at}.{key}", "too_long", f"may have at most {MAX_METADATA_TEXT} characters"))
    return errors
