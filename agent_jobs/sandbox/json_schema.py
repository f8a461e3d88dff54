"""JSON Schema 2020-12 for params, results and arguments of tools: checks schemas, and validates values.

Every holder of a WRITE token writes schemas, and so do tool servers. `agent_jobs.sandbox` estimates their cost. This
module decides what is refused and what runs in this process; the rest runs in a child process with a CPU limit.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from agent_jobs.errors import FieldError
from agent_jobs.sandbox import costs, pool, validators

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_MESSAGE = validators.MAX_MESSAGE
MAX_REPORTED = validators.MAX_REPORTED
# Limit for this process, because it keeps compiled schemas, and their patterns keep automata.
_MAX_SCHEMA = 20_000
_MAX_STATES = 1_000
_MAX_EXPRESSIONS = 10
# Estimated nanoseconds that validation and its errors may hold this process.
_MAX_NS = 10_000_000
# An estimate so far beyond the child's 250 ms is refused without a try; estimates are upper bounds.
_REFUSED_NS = 10_000_000_000


def check_schema(schema: Any, *, at: str = "params_schema") -> list[FieldError]:
    """Complaints about a schema; empty if it is valid. Raises RetryableError (`busy`)."""
    if not isinstance(schema, dict):
        return [FieldError(at, "invalid", "must be an object")]
    if str(schema.get("$schema", DIALECT)).rstrip("#") != DIALECT:
        return [FieldError(f"{at}.$schema", "invalid", f"must be {DIALECT}")]
    try:
        text = json.dumps(schema)
        judged = _judged(schema, text)
        compile_fault = validators.compile_fault if judged.is_small else _compile_fault_by_child
        fault = compile_fault(text, at)
    except (costs.Unacceptable, pool.TooComplexError) as error:
        return [FieldError(at, "invalid", str(error))]
    except RecursionError:
        return [FieldError(at, "invalid", "is nested too deeply")]
    return [FieldError(*fault)] if fault else []


def params_errors(schema: Mapping[str, Any], params: Any, *, at: str = "params") -> list[FieldError]:
    """Complaints about params: `[FieldError("params.items.0", "type", "must be …")]`, at most 20 of them.

    A missing property has its own field (`params.name`, `required`), and so has an unknown one (`unknown_field`). An
    instance that takes too long to validate is an error too (`too_complex`). Raises RetryableError (`busy`).
    """
    if not schema:
        return []
    text, instance = json.dumps(schema), json.dumps(params)
    try:
        judged = _judged(schema, text)
    except costs.Unacceptable as error:
        return [FieldError(at, "too_complex", f"cannot be validated: the schema {error}")]
    needed = judged.cost.validation_ns(instance)
    if needed > _REFUSED_NS:
        return [FieldError(at, "too_complex", _TOO_COMPLEX)]
    if judged.is_small and needed <= _MAX_NS:
        if validators.is_valid(text, params):
            return []
        if judged.cost.errors_ns(instance) <= _MAX_NS:
            return [FieldError(*fault) for fault in validators.faults(text, params, at)]
    try:
        return [FieldError(*fault) for fault in pool.run("validate", schema=text, instance=instance, at=at)]
    except pool.TooComplexError as error:
        if error.so_far:
            return [FieldError(at, "invalid", "does not fit the schema, in too many ways to list them")]
        return [FieldError(at, "too_complex", _TOO_COMPLEX)]


_TOO_COMPLEX = "takes too much time or memory to validate: make it or its schema smaller"


@dataclass(frozen=True, slots=True)
class _Judged:
    cost: costs.Cost
    is_small: bool


def _judged(schema: Mapping[str, Any], text: str) -> _Judged:
    """The cost of a schema, and whether this process runs it. Raises costs.Unacceptable."""
    return _judged_by_text(text) if len(text) <= _MAX_SCHEMA else _Judged(costs.of(schema), False)


@lru_cache(maxsize=500)
def _judged_by_text(text: str) -> _Judged:
    cost = costs.of(json.loads(text))
    return _Judged(cost, cost.all_states <= _MAX_STATES and cost.expressions <= _MAX_EXPRESSIONS)


def _compile_fault_by_child(text: str, at: str) -> validators.Fault | None:
    fault = pool.run("compile", schema=text, at=at)
    return (fault[0], fault[1], fault[2]) if fault else None
