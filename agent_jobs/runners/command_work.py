"""The work of a command job: a program and its surroundings, as `infra.commands` runs them.

    {"argv": ["sort", "-u"], "stdin": "b\\na\\n", "environment": {"TOKEN": "…"}, "working_directory": "here",
     "network": false, "limits": {"memory_bytes": 268435456}}

`shell`, a line for /bin/sh, stands in place of `argv`. All values of the environment are secrets. Nothing is a
template: the params come to the command as JSON in the variable AGENT_JOBS_PARAMS.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import timedelta
from typing import Any

from agent_jobs.errors import FieldError
from agent_jobs.runners.base import Run
from agent_jobs.work import Path, WorkRules
from infra.commands import CommandSpec, InvalidCommandError, Limits

_MAX_VARIABLES = 100
_KEYS = ("argv", "shell", "environment", "working_directory", "stdin", "network", "limits")
_TEXTS = ("shell", "working_directory", "stdin")
_LIMITS = tuple(field.name for field in fields(Limits))
_OUR_PREFIX = "AGENT_JOBS_"


def spec(work: Mapping[str, Any], *, timeout: timedelta, told: Mapping[str, str]) -> CommandSpec:
    """The command of a checked work, with the variables `told`. InvalidCommandError: a limit is out of range."""
    return CommandSpec(
        argv=tuple(work.get("argv", ())),
        shell=work.get("shell", ""),
        environment={**work.get("environment", {}), **told},
        working_directory=work.get("working_directory", ""),
        stdin=work.get("stdin", "").encode("utf-8", "replace"),
        timeout=timeout,
        allow_network=work.get("network", False),
        limits=Limits(**work.get("limits", {})),
    )


def told_variables(run: Run) -> dict[str, str]:
    """The variables that name the job, the attempt and its time, and hold the params."""
    at = run.fire_at or run.scheduled_at
    told = {
        "JOB_ID": run.job_id,
        "EXECUTION_ID": run.task_id,
        "SCHEDULE_ID": run.schedule_id,
        "SCHEDULED_TIME": f"{at:%Y-%m-%dT%H:%M:%SZ}" if at else "",
        "ATTEMPT": str(run.failed_attempts + 1),
        "PARAMS": json.dumps(dict(run.params)) if run.params else "",
    }
    return {_OUR_PREFIX + name: value for name, value in told.items() if value}


# --- Checks ----------------------------------------------------------------------------------------------------
def _check(work: Mapping[str, Any], params: Mapping[str, Any] | None) -> list[FieldError]:
    errors = list(_shape_errors(work))
    if not errors and "argv" not in work and "shell" not in work:
        errors.append(FieldError("work.argv", "required", "is missing: give argv or shell"))
    if errors:
        return errors
    told = {f"{_OUR_PREFIX}PARAMS": json.dumps(dict(params))} if params else {}
    try:
        spec(work, timeout=timedelta(seconds=1), told=told)
    except InvalidCommandError as error:
        return [FieldError(f"work.{error.field}", "invalid", error.message)]
    return []


def _shape_errors(work: Mapping[str, Any]) -> Iterator[FieldError]:
    for key, value in work.items():
        field = f"work.{key}"
        if key not in _KEYS:
            message = f"is not a key of a command's work; the keys are {', '.join(_KEYS)}"
            yield FieldError(field, "unknown_field", message)
        elif key in _TEXTS and not isinstance(value, str):
            yield FieldError(field, "invalid", "must be a text")
        elif key == "argv" and not (isinstance(value, list) and all(isinstance(part, str) for part in value)):
            yield FieldError(field, "invalid", "must be a list of texts: the program and its arguments")
        elif key == "network" and not isinstance(value, bool):
            yield FieldError(field, "invalid", "must be true or false")
    yield from _environment_errors(work.get("environment", {}))
    yield from _limits_errors(work.get("limits", {}))


def _environment_errors(environment: Any) -> Iterator[FieldError]:
    if not isinstance(environment, Mapping) or not all(isinstance(value, str) for value in environment.values()):
        yield FieldError("work.environment", "invalid", "must be an object of names and texts")
    elif len(environment) > _MAX_VARIABLES:
        yield FieldError("work.environment", "too_many", f"has more than {_MAX_VARIABLES} variables")
    else:
        for name in environment:
            if name.startswith(_OUR_PREFIX):
                yield FieldError(f"work.environment.{name[:128]}", "invalid", "is set by the service")


def _limits_errors(limits: Any) -> Iterator[FieldError]:
    if not isinstance(limits, Mapping):
        yield FieldError("work.limits", "invalid", f"must be an object with {', '.join(_LIMITS)}")
        return
    for name, value in limits.items():
        field = f"work.limits.{name[:128]}"
        if name not in _LIMITS:
            yield FieldError(field, "unknown_field", f"is not a limit; the limits are {', '.join(_LIMITS)}")
        elif not isinstance(value, int) or isinstance(value, bool):
            yield FieldError(field, "invalid", "must be a whole number")
        elif value > getattr(Limits(), name):
            yield FieldError(field, "invalid", f"must be at most {getattr(Limits(), name):,}")


def _secret_paths(work: Mapping[str, Any]) -> Iterator[Path]:
    environment = work.get("environment")
    if isinstance(environment, Mapping):
        yield from (("environment", name) for name in environment)


def _recipient(work: Mapping[str, Any]) -> Any:
    """Whatever else the work says decides where a command may send its environment."""
    return {key: value for key, value in work.items() if key != "environment"}


RULES = WorkRules(check=_check, secret_paths=_secret_paths, recipient=_recipient, runs_commands=True)
