"""The work of a job: the JSON definition that a runner without an agent performs, and the secrets within it.

A runner states its `WorkRules`. Secrets are kept apart from the rest: the stored and shown work has MASK in their
places, and a sealed column (`sealed_work`) holds their values under JSON pointers: `{"/auth/password": "s3cret"}`. A
client that reads a work, edits it and sends it back keeps the secrets: MASK in an update means the stored value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent_jobs.errors import FieldError, Invalid

MASK = "******"
# The value of `output_masks` in a job's config that leaves ordinary variables in outputs.
ONLY_CREDENTIALS = "credentials"
_LEAST_SECRET = 6
_CREDENTIAL_NAME = re.compile("auth|cookie|cred|dsn|key|pass|pwd|secret|session|sign|token", re.IGNORECASE)
_CREDENTIAL_ADDRESS = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
Path = tuple[str, ...]
Secrets = Mapping[str, str]


def _no_destinations(work: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    return ()


def _as_it_is(work: Mapping[str, Any]) -> Mapping[str, Any]:
    return work


@dataclass(frozen=True, slots=True)
class WorkRules:
    """`check` validates a whole work and names fields from "work" on; it renders templates if it gets the params. A
    part of a work has only errors with the code `required`.

    `secret_paths` lists where the secrets are. `recipient` is the part that decides who gets to see them: a work with
    another recipient inherits no stored secret. `destinations` lists fields with addresses that the settings must
    allow. `longest_attempt_seconds` bounds `attempt_timeout_seconds` of the config. `runs_commands`: the organisation
    must be allowed to run commands. `normalized` returns a checked work in the form in which it is stored.
    """

    check: Callable[[Mapping[str, Any], Mapping[str, Any] | None], list[FieldError]]
    secret_paths: Callable[[Mapping[str, Any]], Iterable[Path]]
    recipient: Callable[[Mapping[str, Any]], Any]
    destinations: Callable[[Mapping[str, Any]], Iterable[tuple[str, str]]] = _no_destinations
    longest_attempt_seconds: float = 604_800.0
    runs_commands: bool = False
    normalized: Callable[[Mapping[str, Any]], Mapping[str, Any]] = _as_it_is


@dataclass(frozen=True, slots=True)
class Work:
    """A checked work: `shown` with masks, and the values of its secrets by JSON pointer."""

    shown: Mapping[str, Any]
    secrets: Secrets

    @property
    def whole(self) -> dict[str, Any]:
        return joined(self.shown, self.secrets)


def split(work: Mapping[str, Any], rules: WorkRules) -> Work:
    """Take the secrets out of a work that `rules.check` accepted."""
    work = rules.normalized(work)
    shown, secrets = _copied(work), {}
    for path in rules.secret_paths(work):
        holder: Any = shown
        for key in path[:-1]:
            holder = holder[key]
        if isinstance(holder[path[-1]], str) and holder[path[-1]]:
            secrets[_pointer(path)] = holder[path[-1]]
            holder[path[-1]] = MASK
    return Work(shown, secrets)


def joined(shown: Mapping[str, Any], secrets: Secrets) -> dict[str, Any]:
    """The work with the secrets in their places. Secrets whose place is gone are left out."""
    whole: dict[str, Any] = _copied(shown)
    for pointer, value in secrets.items():
        *holders, last = _path(pointer)
        holder: Any = whole
        for key in holders:
            holder = holder.get(key) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and holder.get(last) == MASK:
            holder[last] = value
    return whole


def updated(given: Mapping[str, Any], stored: Work, rules: WorkRules) -> dict[str, Any]:
    """The given work with the stored secrets in the places of its masks.

    Raises Invalid if the work would carry a stored secret to another recipient.
    """
    whole = joined(given, stored.secrets)
    kept = set(masked_fields(given)) - set(masked_fields(whole))
    if kept and rules.recipient(given) != rules.recipient(stored.shown):
        message = "must be given anew: the stored value goes only where it was meant to go when it was stored"
        raise Invalid(*(FieldError(field, "other_recipient", message) for field in sorted(kept)))
    return whole


def blotted(value: Any, secrets: Iterable[str]) -> Any:
    """The JSON with MASK in place of the secrets within its texts. Exact copies are found, the longest first.

    Values of fewer than 6 characters stay, because they would blot ordinary words.
    """
    longest_first = sorted({secret for secret in secrets if len(secret) >= _LEAST_SECRET}, key=len, reverse=True)
    return _blotted(value, longest_first) if longest_first else value


def hidden_in_outputs(environment: Mapping[str, str], config: Mapping[str, Any]) -> list[str]:
    """The values of variables that outputs must not show: all, or with `output_masks: "credentials"` in the config
    those of variables that by their names are credentials, and addresses with a password.
    """
    every = config.get("output_masks") != ONLY_CREDENTIALS
    return [value for name, value in environment.items() if every or _is_credential(name, value)]


def _is_credential(name: str, value: str) -> bool:
    return bool(_CREDENTIAL_NAME.search(name) or _CREDENTIAL_ADDRESS.search(value))


def masked_fields(work: Any, path: Path = ("work",)) -> list[str]:
    """The fields that still hold MASK, as `work.auth.password`: values that nobody has."""
    if isinstance(work, Mapping):
        return [field for key, value in work.items() for field in masked_fields(value, (*path, str(key)))]
    return [".".join(path)] if work == MASK else []


def _blotted(value: Any, secrets: Sequence[str]) -> Any:
    match value:
        case str():
            for secret in secrets:
                value = value.replace(secret, MASK)
            return value
        case Mapping():
            return {_blotted(key, secrets): _blotted(item, secrets) for key, item in value.items()}
        case list() | tuple():
            return [_blotted(item, secrets) for item in value]
    return value


def _copied(work: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in work.items()}


def _pointer(path: Path) -> str:
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in path)


def _path(pointer: str) -> list[str]:
    return [key.replace("~1", "/").replace("~0", "~") for key in pointer.split("/")[1:]]
