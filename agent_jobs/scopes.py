"""The scopes of app tokens. A scope is `SERVICES:LEVEL`.

WRITE implies READ, and ADMIN implies every level. EXECUTE stands beside them: an executor gets the secrets of the jobs
that it claims, so a token that only posts jobs must not be able to claim them.
"""

from collections.abc import Mapping
from enum import StrEnum


class Level(StrEnum):
    READ = "READ"
    WRITE = "WRITE"
    EXECUTE = "EXECUTE"
    ADMIN = "ADMIN"


_IMPLIED: Mapping[Level, frozenset[Level]] = {
    Level.READ: frozenset({Level.READ}),
    Level.WRITE: frozenset({Level.READ, Level.WRITE}),
    Level.EXECUTE: frozenset({Level.EXECUTE}),
    Level.ADMIN: frozenset(Level),
}
_LEVELS: Mapping[str, Level] = {f"SERVICES:{level}": level for level in Level}
ALL_SCOPES = tuple(_LEVELS)


def parse(scope: str) -> Level:
    """`"services:write"` → `Level.WRITE`. Raises ValueError, which lists the valid scopes, for anything else."""
    if (level := _LEVELS.get(scope.upper())) is None:
        raise ValueError(f"{scope!r} is not a scope; scopes are {', '.join(ALL_SCOPES)}")
    return level


def allows(scopes: list[str], level: Level) -> bool:
    return any(level in _IMPLIED[held] for held in map(parse, scopes))
