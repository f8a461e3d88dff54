"""Texts of schedules as dialects write them, and the timing that they stand for.

A dialect keeps the text of a request as an annotation of the schedule. Answers show it as long as it agrees with the
definition, which a client of another API may have changed.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from agent_jobs import recurrence
from agent_jobs.api import parsing
from agent_jobs.dialects.base import instant
from agent_jobs.errors import FieldError, Invalid
from agent_jobs.schedules import definition as definitions

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ].*")
_ZONED = re.compile(r"(CRON_)?TZ=", re.IGNORECASE)
_OFFSET = re.compile(r".*([Zz]|[+-][0-9]{2}:[0-9]{2})")


def timing(text: str, time_zone: str) -> dict[str, Any]:
    """The timing of a definition: cron, or an ISO time for a single run. A time without an offset is UTC.

    Raises BadExpression for a time that does not exist. A cron expression is checked later, with the definition.
    """
    if not _TIME.fullmatch(text.strip()):
        return {"cron": text, "time_zone": time_zone}
    written = text.strip().replace(" ", "T", 1)
    try:
        at = parsing.moment(written if _OFFSET.fullmatch(written) else f"{written}Z")
    except ValueError as error:
        raise recurrence.BadExpression("time", str(error)) from None
    return {"run_at": instant(at), "time_zone": time_zone}


def rescheduled(before: Mapping[str, Any], text: str, kept: Any, zone: str | None) -> dict[str, Any]:
    """The definition with the timing of this text; as it is, if it shows the text already. Raises Invalid.

    `kept`: the text of an earlier request. `zone`: the value of the dialect's field for the zone; None if it has no
    such field.
    """
    if text == shown(before, kept, shows_zone=zone is not None) and zone in (None, before["time_zone"]):
        return dict(before)
    others = {key: value for key, value in before.items() if key not in definitions.TIMINGS}
    try:
        return others | timing(text, zone or "UTC")
    except recurrence.BadExpression as error:
        raise Invalid(FieldError("schedule", "invalid_schedule", str(error))) from None


def shown(definition: Mapping[str, Any], kept: Any, *, shows_zone: bool) -> str:
    """The text of a definition; "" for one without timing. `shows_zone`: the dialect has its own field for the zone."""
    if not any(key in definition for key in definitions.TIMINGS):
        return ""
    if isinstance(kept, str) and _says(definition, kept):
        return kept
    zone = definition["time_zone"]
    if "cron" in definition:
        is_plain = shows_zone or zone == "UTC" or _ZONED.match(definition["cron"])
        return str(definition["cron"]) if is_plain else f"CRON_TZ={zone} {definition['cron']}"
    if "every_seconds" in definition:
        return f"@every {recurrence.format_go_duration(timedelta(seconds=definition['every_seconds']))}"
    return instant(datetime.fromisoformat(definition["run_at"]).astimezone(UTC))


def _says(definition: Mapping[str, Any], text: str) -> bool:
    try:
        said = timing(text, definition["time_zone"])
    except recurrence.BadExpression:
        return False
    return {key: definition[key] for key in (*definitions.TIMINGS, "time_zone") if key in definition} == said
