"""The parts that forms of jobs and of schedules share: job type, params, config, work and the outcome's channel.

Params have a field for each property of the type's schema, or one JSON text without a schema.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent_jobs.console import body_checks, schema_form
from agent_jobs.errors import FieldError, Invalid
from agent_jobs.reads import queries
from channels_integration import directory

_MOST = 200
_OBJECTS = ("config", "work")
_WHOLE = "params_json"


@dataclass(frozen=True, slots=True)
class ParamsForm:
    """`whole` is the JSON text where the type has no schema, else None."""

    fields: list[schema_form.FormField]
    whole: str | None


def types_offered(org_id: str) -> Sequence[Mapping[str, Any]]:
    """The active job types by name: key, name, description, runner, emoji."""
    found = queries.job_types(org_id).filter(active=True).order_by("name", "key")
    return list(found.values("key", "name", "description", "runner", "emoji")[:_MOST])


def channels(org_id: str) -> Sequence[tuple[str, str, str]]:
    """The registered channels: platform, code, name."""
    return list(directory.channels(org_id).values_list("platform", "code", "name")[:_MOST])


def params(
    org_id: str, type_key: str, values: Mapping[str, Any], *, sent: Mapping[str, str] | None = None
) -> ParamsForm:
    schema = queries.job_type_schema(org_id, type_key)
    if schema.get("properties"):
        return ParamsForm(schema_form.fields(schema, values, sent=sent), None)
    stated = (sent or {}).get(_WHOLE)
    return ParamsForm([], body_checks.pretty(values) if stated is None else stated)


def read_params(org_id: str, type_key: str, sent: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, Any]:
    """The params that the form states. Raises Invalid."""
    schema = queries.job_type_schema(org_id, type_key)
    if schema.get("properties"):
        return schema_form.read(schema, sent, values=values)
    stated = body_checks.json_of(sent.get(_WHOLE, ""), "params", default={})
    if not isinstance(stated, dict):
        raise Invalid(FieldError("params", "invalid", "must be a JSON object"))
    return stated


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
