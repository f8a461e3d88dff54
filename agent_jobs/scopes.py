"""The scopes of app tokens. A scope is `AREA:LEVEL`; a level implies the levels below it."""

from enum import IntEnum


class Level(IntEnum):
    READ = 1
    WRITE = 2
    ADMIN = 3


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
    return any(held_area == area and held >= level for held_area, held in map(parse, scopes))
