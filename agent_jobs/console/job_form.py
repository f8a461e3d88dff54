"""The parts of a job that forms of jobs and of schedules share: work, config, and the channel that hears of the end."""

from collections.abc import Mapping
from typing import Any

from agent_jobs.console import body_checks
from agent_jobs.errors import FieldError, Invalid

_OBJECTS = ("config", "work")


def values(job: Mapping[str, Any]) -> dict[str, str]:
    """A stored job as the values of the fields. Secrets in `work` are masks, which keep their values when sent back."""
    outcome = job.get("outcome_channel") or {}
    return {
        **{f"{name}_json": body_checks.pretty(job.get(name)) for name in _OBJECTS},
        **{f"outcome_{name}": str(outcome.get(name, "")) for name in ("platform", "code", "template")},
    }


def read(sent: Mapping[str, str], *, kept_outcome: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read the form's fields into a job request. Leaves out empty fields. Raises Invalid.

    The outcome channel keeps those of its parts that the form does not show.
    """
    found: dict[str, Any] = {}
    for name in _OBJECTS:
        stated = body_checks.json_of(sent.get(f"{name}_json", ""), name, default={})
        if not isinstance(stated, dict):
            raise Invalid(FieldError(name, "invalid", "must be a JSON object"))
        if stated:
            found[name] = stated
    outcome = {name: sent.get(f"outcome_{name}", "").strip() for name in ("platform", "code", "template")}
    if any(outcome.values()):
        kept = kept_outcome or {}
        is_same = (kept.get("platform"), kept.get("code")) == (outcome["platform"], outcome["code"])
        rest = {name: value for name, value in kept.items() if is_same and name in ("type", "data")}
        stated = {name: value for name, value in outcome.items() if value or name != "template"}
        found["outcome_channel"] = {**rest, **stated}
    return found
