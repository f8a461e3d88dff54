"""The time zone database: one pinned version on every host.

Importing this module makes `zoneinfo` read only the pinned package `tzdata`. By default it prefers the files of the
operating system, whose age differs from host to host, and with it the answer to "when is 02:30 in Havana?".
"""

import zoneinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

import tzdata

zoneinfo.reset_tzpath(to=())
ZoneInfo.clear_cache()  # zones that something has loaded from the system's files

# Not places: "no zone was set".
_NO_PLACES = frozenset({"Factory", "localtime", "posixrules"})


def version() -> str:
    """The release of the IANA database, such as `2026f`."""
    return str(tzdata.IANA_VERSION)


@lru_cache(maxsize=1)
def names() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones()) - _NO_PLACES


def find(name: str) -> ZoneInfo | None:
    """The zone of that name in any case. None for any other text: `ZoneInfo` itself raises five kinds of errors."""
    canonical = _by_lower_case().get(name.lower())
    return ZoneInfo(canonical) if canonical else None


@lru_cache(maxsize=1)
def _by_lower_case() -> dict[str, str]:
    return {name.lower(): name for name in names()}
