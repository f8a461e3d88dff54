"""The catalogue: job types and profiles. One set of functions serves both; a `Kind` describes the differences.

Every change of an entry raises its `version`. A job runs with the copy that it took when it was created.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from agent_jobs import runners, sealed_work, tools
from agent_jobs.audit import audit_log
from agent_jobs.catalog import model_keys, type_work
from agent_jobs.errors import Conflict, FieldError, Invalid, NotFound
from agent_jobs.models import JobType, Profile
from agent_jobs.runners import prompts
from agent_jobs.sandbox import json_schema
from agent_jobs.specs import Actor, config_errors
from agent_jobs.tenants import row_limits
from agent_jobs.tools import tool_secrets

KEY_FORM = "must begin with a letter or digit and have up to 128 letters, digits, dots, dashes and underscores"
VISIBILITIES = ("org", "private", "public")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
CAPS = ("max_running", "max_running_per_channel", "max_tokens_per_day", "max_cost_per_day")
_SHARED = ("name", "description", "emoji", "visibility", "active", "tags")


@dataclass(frozen=True, slots=True)
class Kind:
    """The differences between job types and profiles. `word` names one for people, `code` in error codes and audit.
    `columns`: those that a client may set beside the key. `check` validates a whole entry before it is saved, and gets
    the names of the changed columns.
    """

    model: type[JobType] | type[Profile]
    word: str
    code: str
    columns: tuple[str, ...]
    check: Callable[[Any, Collection[str]], list[FieldError]]

    def not_found(self, key: str) -> NotFound:
        return NotFound(f"there is no {self.word} {key[:128]!r}", code=f"{self.code}_not_found")

    def require_key(self, key: str) -> None:
        """Check the form of a key. Raises NotFound for text that cannot be one."""
        if not _KEY.fullmatch(key):
            raise self.not_found(key)


def create(kind: Kind, org_id: str, key: str, values: Mapping[str, Any], *, actor: Actor) -> Any:
    """Create an entry with version 1. Raises Invalid, Conflict (`job_type_exists`) if the key is taken, and Conflict
    (`too_many_job_types`) if the organisation has reached its limit.
    """
    stated = dict(values)
    given_work = stated.pop("work", None)
    entry = kind.model(org_id=org_id, key=key, **stated)
    _check(kind, entry, kind.columns)
    try:
        with transaction.atomic():
            there = kind.model.objects.filter(org_id=org_id)
            row_limits.require(
                org_id, there, row_limits.MOST_ENTRIES, what=f"{kind.word}s", code=f"too_many_{kind.code}s"
            )
            entry.save(force_insert=True)
            if given_work and isinstance(entry, JobType) and type_work.store(entry, given_work):
                entry.save(update_fields=["work", "sealed_work"])
            audit_log.record(org_id, f"{kind.code}.created", key, actor=actor, after=_told(kind, entry))
    except IntegrityError:
        raise Conflict(f"there is a {kind.word} {key!r} already", code=f"{kind.code}_exists") from None
    entry.refresh_from_db(fields=["created_at", "updated_at"])
    return entry


def ensure(kind: Kind, org_id: str, key: str, values: Mapping[str, Any], *, actor: Actor) -> Any:
    """The entry with this key, created privately if it is missing. Calling twice is safe.

    For entries of the service's own making, such as the job types of dialects. An existing entry stays as it is. Raises
    Invalid and Conflict.
    """
    found = kind.model.objects.filter(org_id=org_id, key=key).first()
    if found is not None:
        return found
    try:
        return create(kind, org_id, key, {"visibility": "private", **values}, actor=actor)
    except Conflict:
        found = kind.model.objects.filter(org_id=org_id, key=key).first()
        if found is None:
            raise
        return found


def replace(kind: Kind, org_id: str, key: str, values: Mapping[str, Any], *, actor: Actor) -> Any:
    """Replace the whole entry: columns missing from `values` return to their defaults. Raises as `change`."""
    blank = kind.model()
    whole = {column: getattr(blank, column) for column in kind.columns} | dict(values)
    return _save(kind, org_id, key, whole, actor)


def change(kind: Kind, org_id: str, key: str, values: Mapping[str, Any], *, actor: Actor) -> Any:
    """Change only the columns in `values`. Equal values are no change. Raises NotFound, and Invalid (`check`)."""
    return _save(kind, org_id, key, values, actor)


def remove(kind: Kind, org_id: str, key: str, *, actor: Actor) -> None:
    """Delete the entry. Jobs that use it keep their copy. Raises NotFound."""
    kind.require_key(key)
    with transaction.atomic():
        entry = kind.model.objects.select_for_update().filter(org_id=org_id, key=key).first()
        if entry is None:
            raise kind.not_found(key)
        before = _told(kind, entry)
        entry.delete()
        audit_log.record(org_id, f"{kind.code}.removed", key, actor=actor, before=before)


def _save(kind: Kind, org_id: str, key: str, values: Mapping[str, Any], actor: Actor) -> Any:
    kind.require_key(key)
    with transaction.atomic():
        entry = kind.model.objects.select_for_update().filter(org_id=org_id, key=key).first()
        if entry is None:
            raise kind.not_found(key)
        before = _told(kind, entry)
        stated = {column: value for column, value in values.items() if column != "work"}
        changed = {column: value for column, value in stated.items() if _differs(getattr(entry, column), value)}
        for column, value in changed.items():
            setattr(entry, column, value)
        if isinstance(entry, JobType) and type_work.store(entry, values.get("work", sealed_work.whole(entry))):
            changed |= {"work": entry.work, "sealed_work": entry.sealed_work}
        _check(kind, entry, changed)
        if changed:
            entry.version += 1
            entry.updated_at = Now()
            entry.save(update_fields=[*changed, "version", "updated_at"])
            entry.refresh_from_db(fields=["updated_at"])
            old, new = audit_log.changes(before, _told(kind, entry))
            audit_log.record(org_id, f"{kind.code}.updated", key, actor=actor, before=old, after=new)
    return entry


def _differs(old: Any, new: Any) -> bool:
    """Compare as JSON: order of keys counts, and so do types that Python calls equal (1 and true)."""
    if isinstance(new, dict | list):
        return json.dumps(old) != json.dumps(new)
    return bool(old != new)


def _told(kind: Kind, entry: Any) -> dict[str, Any]:
    """The entry as the audit shows it."""
    return {column: getattr(entry, column) for column in (*kind.columns, "version")}


def _check(kind: Kind, entry: JobType | Profile, changed: Collection[str]) -> None:
    errors = kind.check(entry, changed)
    if not _KEY.fullmatch(entry.key):
        errors.append(FieldError("id", "invalid", KEY_FORM))
    if entry.visibility not in VISIBILITIES:
        errors.append(FieldError("visibility", "invalid", f"must be one of {', '.join(VISIBILITIES)}"))
    if errors:
        raise Invalid(*errors)


def _job_type_errors(job_type: JobType, changed: Collection[str]) -> list[FieldError]:
    errors = json_schema.check_schema(job_type.params_schema)
    errors += json_schema.check_schema(job_type.result_schema, at="result_schema")
    errors += config_errors(job_type.default_config, at="default_config")
    tools_errors = tools.check(job_type.tools)
    if not tools_errors and "tools" in changed:  # secrets change independently of the type
        tools_errors = tool_secrets.complaints(job_type.org_id, job_type.tools)
    errors += tools_errors
    names = runners.names()
    if job_type.runner not in names:
        errors.append(FieldError("runner", "invalid", f"must be one of {', '.join(names)}"))
    prompt = job_type.default_config.get("start_prompt") if isinstance(job_type.default_config, dict) else None
    if isinstance(prompt, str) and (complaint := prompts.check(prompt)):
        errors.append(FieldError("default_config.start_prompt", "invalid", complaint))
    return errors


def _profile_errors(profile: Profile, changed: Collection[str]) -> list[FieldError]:
    errors = model_keys.profile_errors(profile, changed)
    if complaint := tools.allowed_complaint(profile.allowed_tools):
        errors.append(FieldError("allowed_tools", "invalid", complaint))
    return errors


JOB_TYPES = Kind(
    JobType,
    "job type",
    "job_type",
    (*_SHARED, "runner", "params_schema", "result_schema", "default_config", "work", "tools", *CAPS),
    _job_type_errors,
)
PROFILES = Kind(
    Profile,
    "profile",
    "profile",
    (*_SHARED, "instructions", "model", *model_keys.PROFILE_COLUMNS, "allowed_tools"),
    _profile_errors,
)
