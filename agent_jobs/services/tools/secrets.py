"""The organisation's secrets for its tools: sealed, filled into headers at the last moment, blotted out of answers.

A value goes in and never comes out: not to a client, a model, a log, or a record of what was called.
"""

import base64
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from django.db import transaction
from django.db.models.functions import Now

from agent_jobs.errors import Conflict, FieldError, Invalid, NotFound, PermanentError
from agent_jobs.models import Org, ToolSecret
from agent_jobs.services import audit
from agent_jobs.services.tools.declaring import SECRET, SECRET_NAME
from agent_jobs.specs import Actor
from channels_integration import sealing
from channels_integration.errors import SealingError

MAX_SECRETS = 100
# Shorter ones would be blotted out of half of every answer.
MIN_VALUE, MAX_VALUE = 8, 4_000
NAME_FORM = "must begin with a letter or digit and have up to 64 letters, digits, dots, dashes and underscores"
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")


def store(org_id: str, name: str, value: str, *, actor: Actor) -> tuple[ToolSecret, bool]:
    """The secret, new or with a new value, and whether it is new. Raises Invalid, Conflict, SealingError."""
    errors = []
    if not SECRET_NAME.fullmatch(name):
        errors.append(FieldError("name", "invalid", NAME_FORM))
    if not MIN_VALUE <= len(value) <= MAX_VALUE or not _VALUE.fullmatch(value):
        form = f"must be {MIN_VALUE} to {MAX_VALUE:,} printable ASCII characters, without spaces at its ends"
        errors.append(FieldError("value", "invalid", form))
    if errors:
        raise Invalid(*errors)
    with transaction.atomic():
        # One after the other: whoever makes the last one that there is room for.
        Org.objects.select_for_update(no_key=True).get(pk=org_id)
        secret = ToolSecret.objects.filter(org_id=org_id, name=name).first()
        is_new = secret is None
        if secret is None:
            if ToolSecret.objects.filter(org_id=org_id).count() >= MAX_SECRETS:
                raise Conflict(f"there are {MAX_SECRETS} secrets already", code="too_many_secrets")
            secret = ToolSecret(org_id=org_id, name=name)
        secret.sealed_value = sealing.seal(value, **_cell(secret))
        secret.updated_at = Now()
        secret.save(force_insert=is_new)
        secret.refresh_from_db()
        verb = "created" if is_new else "updated"
        audit.record(org_id, f"tool_secret.{verb}", "tool_secret", name, actor=actor, after={"value": audit.MASK})
    return secret, is_new


def find(org_id: str, name: str) -> ToolSecret:
    """Raises NotFound, for another organisation's as for none."""
    is_name = SECRET_NAME.fullmatch(name)
    secret = ToolSecret.objects.filter(org_id=org_id, name=name).first() if is_name else None
    if secret is None:
        raise NotFound(f"there is no secret {name[:128]!r}", code="tool_secret_not_found")
    return secret


def remove(org_id: str, name: str, *, actor: Actor) -> None:
    """Tools that name it fail from now on. Raises NotFound."""
    with transaction.atomic():
        find(org_id, name).delete()
        audit.record(org_id, "tool_secret.removed", "tool_secret", name, actor=actor)


class Filled:
    """Headers with their secrets, for one call; and the pen that blots these out of what came back."""

    def __init__(self, org_id: str, headers: Mapping[str, str], *, tool: str) -> None:
        """Raises PermanentError where a secret is not there or cannot be opened."""
        names = {name for text in headers.values() for name in SECRET.findall(text)}
        self._values = _opened(org_id, names, tool) if names else {}
        self.headers = {
            header: SECRET.sub(lambda found: self._values[found[1]], text) for header, text in headers.items()
        }
        forms = {form for value in self._values.values() for form in _forms(value)}
        self._shown = re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)))

    def __repr__(self) -> str:
        return f"Filled({sorted(self.headers)})"

    def blotted(self, text: str) -> str:
        return self._shown.sub(audit.MASK, text) if self._values else text


def _opened(org_id: str, names: set[str], tool: str) -> dict[str, str]:
    found = {secret.name: secret for secret in ToolSecret.objects.filter(org_id=org_id, name__in=names)}
    if missing := sorted(names - set(found)):
        raise PermanentError(
            f"the tool {tool} needs the secret {missing[0]!r}, which the organisation does not have",
            code="tool_secret_missing",
        )
    try:
        return {name: sealing.open_sealed(secret.sealed_value, **_cell(secret)) for name, secret in found.items()}
    except SealingError as error:
        raise PermanentError(
            f"a secret of the tool {tool} does not open: {error}", code="tool_secret_unreadable"
        ) from None


def _forms(value: str) -> set[str]:
    """As it is, and as servers write it down: in JSON, in addresses, in base64."""
    encoded = base64.b64encode(value.encode()).decode()
    escaped = json.dumps(value)[1:-1]
    return {value, escaped, escaped.replace("/", "\\/"), quote(value, safe=""), quote(value), encoded.rstrip("=")}


def _cell(secret: ToolSecret) -> dict[str, Any]:
    table = ToolSecret._meta.db_table
    return {"org_id": secret.org_id, "table": table, "column": "sealed_value", "key": str(secret.pk)}
