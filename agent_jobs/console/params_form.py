"""The params of a job in a form: a field for each property of the type's schema, or one JSON text without a schema."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent_jobs.console import body_checks, schema_form
from agent_jobs.errors import FieldError, Invalid
from agent_jobs.reads import queries

WHOLE = "params_json"


@dataclass(frozen=True, slots=True)
class ParamsForm:
    """The fields for the params of one job type. `whole` is their JSON text if the type has no schema, else None."""

    fields: list[schema_form.FormField]
    whole: str | None


def of(org_id: str, type_key: str, values: Mapping[str, Any], *, sent: Mapping[str, str] | None = None) -> ParamsForm:
    schema = queries.job_type_schema(org_id, type_key)
    if schema.get("properties"):
        return ParamsForm(schema_form.fields(schema, values, sent=sent), None)
    stated = (sent or {}).get(WHOLE)
    return ParamsForm([], body_checks.pretty(values) if stated is None else stated)


def read(org_id: str, type_key: str, sent: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, Any]:
    """The params that the form states. Raises Invalid."""
    schema = queries.job_type_schema(org_id, type_key)
    if schema.get("properties"):
        return schema_form.read(schema, sent, values=values)
    stated = body_checks.json_of(sent.get(WHOLE, ""), "params", default={})
    if not isinstance(stated, dict):
        raise Invalid(FieldError("params", "invalid", "must be a JSON object"))
    return stated
