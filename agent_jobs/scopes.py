"""The scopes of app tokens. A scope is `AREA:LEVEL`.

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
SERVICES = "SERVICES"
AREAS = (SERVICES,)
ALL_SCOPES = tuple(f"{area}:{level.name}" for area in AREAS for level in Level)


def parse(scope: str) -> tuple[str, Level]:
    """`"services:write"` → `("SERVICES", Level.WRITE)`. Raises ValueError, which lists the valid scopes, for anything
    else.
    """
    area, _, level = scope.upper().partition(":")
    if area not in AREAS or level not in Level.__members__:
        raise ValueError(f"{scope!r} is not a scope; scopes are {', '.join(ALL_SCOPES)}")
    return area, Level[level]


def allows(scopes: list[str], area: str, level: Level) -> bool:
    return any(held_area == area and level in _IMPLIED[held] for held_area, held in map(parse, scopes))
