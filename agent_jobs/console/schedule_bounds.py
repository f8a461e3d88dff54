"""The first and last time of a schedule and its planned pauses, as fields of a form in the viewer's zone."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from agent_jobs.console import body_checks
from agent_jobs.errors import FieldError, Invalid
from agent_jobs.schedules import definition as definitions

_EDGES = ("starts_at", "ends_at")
_EMPTY_ROWS = 2


def values(definition: Mapping[str, Any], zone: ZoneInfo) -> dict[str, str]:
    found = {name: local(definition.get(name), zone) for name in _EDGES}
    for number, pause in enumerate(definition.get("pauses", ())):
        found |= {f"pause.{number}.{name}": local(pause.get(name), zone) for name in _EDGES}
    return found


def rows(fields: Mapping[str, str]) -> list[tuple[int, str, str]]:
    """Number, begin and end of each pause that the form shows: the stated ones, and empty ones for more."""
    stated = [number for number in range(definitions.MAX_PAUSES) if any(_pause(fields, number))]
    shown = min((stated[-1] + 1 if stated else 0) + _EMPTY_ROWS, definitions.MAX_PAUSES)
    return [(number, *_pause(fields, number)) for number in range(shown)]


def read(sent: Mapping[str, str], zone: ZoneInfo, known: Mapping[str, Any]) -> dict[str, Any]:
    """Read start, end and pauses from the form. A time that the person did not change keeps its seconds.

    Raises Invalid.
    """
    times = [known.get(name) for name in _EDGES]
    times += [pause.get(name) for pause in known.get("pauses", ()) for name in _EDGES]
    whole = {local(at, zone): at for at in times if at}
    found: dict[str, Any] = {}
    for name in _EDGES:
        if at := _moment(sent.get(name, ""), name, zone, whole):
            found[name] = at
    found["pauses"] = pauses = []
    for number in range(definitions.MAX_PAUSES):
        begin, end = _pause(sent, number)
        if not begin and not end:
            continue
        if not begin:
            raise Invalid(FieldError("pauses", "required", "a pause needs a begin"))
        pause = {"starts_at": _moment(begin, "pauses", zone, whole)}
        pauses.append({**pause, "ends_at": _moment(end, "pauses", zone, whole)} if end else pause)
    return found


def local(at: str | None, zone: ZoneInfo) -> str:
    """A moment as the value of a `datetime-local` field, on the clocks of the zone."""
    return f"{datetime.fromisoformat(at).astimezone(zone):%Y-%m-%dT%H:%M}" if at else ""


def _pause(fields: Mapping[str, str], number: int) -> tuple[str, str]:
    begin, end = (fields.get(f"pause.{number}.{name}", "").strip() for name in _EDGES)
    return begin, end


def _moment(text: str, field: str, zone: ZoneInfo, whole: Mapping[str, str]) -> str | None:
    text = text.strip()
    if text in whole:
        return whole[text]
    at = body_checks.moment(text, field, zone)
    return at.isoformat() if at else None
