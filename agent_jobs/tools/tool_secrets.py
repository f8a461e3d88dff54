"""An organisation's secrets for its tools: sealed, put into headers just before sending, removed from answers.

A value cannot be read back: no client, model, log or record of calls shows it. It is sent only to the hosts that were
stored with it. Storing a secret needs ADMIN, declaring a tool only WRITE; without these hosts a declaration could send
the value anywhere. The hosts are compared when a job type is saved and again at each call.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from django.db import transaction
from django.db.models.functions import Now

from agent_jobs.audit import audit_log
from agent_jobs.errors import FieldError, Invalid, NotFound, PermanentError
from agent_jobs.models import Org, ToolSecret
from agent_jobs.specs import Actor
from agent_jobs.tenants import row_limits
from agent_jobs.tools.declarations import SECRET, SECRET_NAME, destinations, hosts_complaint, is_covered
from infra import sealing
from infra.egress import addresses
from infra.redaction import Blotter
from infra.sealing import SealingError

MAX_SECRETS = 100
# Redacting shorter values would destroy half of every answer.
MIN_VALUE, MAX_VALUE = 8, 4_000
NAME_FORM = "must begin with a letter or digit and have up to 64 letters, digits, dots, dashes and underscores"
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")


def store(org_id: str, name: str, value: str, *, hosts: Sequence[str], actor: Actor) -> tuple[ToolSecret, bool]:
    """Create or replace a secret; returns it and whether it is new. Raises Invalid, Conflict, SealingError.

    Value and hosts change together. Otherwise an admin could direct a value that they do not know to hosts of their
    choice.
    """
    errors = []
    if not SECRET_NAME.fullmatch(name):
        errors.append(FieldError("name", "invalid", NAME_FORM))
    if not MIN_VALUE <= len(value) <= MAX_VALUE or not _VALUE.fullmatch(value):
        form = f"must be {MIN_VALUE} to {MAX_VALUE:,} printable ASCII characters, without spaces at its ends"
        errors.append(FieldError("value", "invalid", form))
    if complaint := hosts_complaint(hosts):
        errors.append(FieldError("hosts", "invalid", complaint))
    if errors:
        raise Invalid(*errors)
    with transaction.atomic():
        # Serialise per organisation, even if both requests replace an existing secret.
        Org.objects.select_for_update(no_key=True).get(pk=org_id)
        secret = ToolSecret.objects.filter(org_id=org_id, name=name).first()
        is_new = secret is None
        before = None if secret is None else _told(secret)
        if secret is None:
            stored = ToolSecret.objects.filter(org_id=org_id)
            row_limits.require(org_id, stored, MAX_SECRETS, what="secrets", code="too_many_secrets")
            secret = ToolSecret(org_id=org_id, name=name)
        secret.sealed_value = sealing.seal_for(secret, "sealed_value", value)
        secret.hosts = list(hosts)
        secret.updated_at = Now()
        secret.save(force_insert=is_new)
        secret.refresh_from_db()
        verb = "created" if is_new else "updated"
        after = _told(secret)
        audit_log.record(org_id, f"tool_secret.{verb}", name, actor=actor, before=before, after=after)
    return secret, is_new


def find(org_id: str, name: str) -> ToolSecret:
    """The secret of this name. Raises NotFound, for another organisation's secret exactly as for a missing one."""
    is_name = SECRET_NAME.fullmatch(name)
    secret = ToolSecret.objects.filter(org_id=org_id, name=name).first() if is_name else None
    if secret is None:
        raise NotFound(f"there is no secret {name[:128]!r}", code="tool_secret_not_found")
    return secret


def remove(org_id: str, name: str, *, actor: Actor) -> None:
    """Delete the secret. Tools that name it fail from then on. Raises NotFound."""
    with transaction.atomic():
        find(org_id, name).delete()
        audit_log.record(org_id, "tool_secret.removed", name, actor=actor)


def complaints(org_id: str, declared: Sequence[Mapping[str, Any]], *, at: str = "tools") -> list[FieldError]:
    """Errors where valid declarations would send a secret to a host outside its list. A secret that is not stored yet
    is checked at the call.
    """
    named = [
        (f"{place}.{field}", tool, _names(texts))
        for place, tool in enumerate(declared)
        for field, texts in (("headers", tool.get("headers", {})), ("oauth", tool.get("oauth", {})))
    ]
    wanted = {name for _, _, names in named for name in names}
    if not wanted:
        return []
    stored = ToolSecret.objects.filter(org_id=org_id, name__in=wanted).values_list("name", "hosts")
    hosts = {name: tuple(stated) for name, stated in stored}
    return [
        FieldError(f"{at}.{place}", "secret_not_for_host", _not_for(name, host, hosts[name]))
        for place, tool, names in named
        for name in sorted(names & set(hosts))
        for host in destinations(tool)
        if not is_covered(host, hosts[name])
    ]


class Filled:
    """Headers with their secrets for one call, and the redaction of these secrets in its answer."""

    def __init__(self, org_id: str, headers: Mapping[str, str], *, tool: str, url: str) -> None:
        """Fill in the headers of a request to `url`.

        Raises PermanentError if a secret is missing, does not allow this host or cannot be opened.
        """
        names = _names(headers)
        found = list(ToolSecret.objects.filter(org_id=org_id, name__in=names).order_by("name")) if names else []
        self._values = _opened(found, names, tool, addresses.host_of(url)) if names else {}
        self.headers = {
            header: SECRET.sub(lambda found: self._values[found[1]], text) for header, text in headers.items()
        }
        self._masked = set(self._values.values())
        self._blotter = Blotter(self._masked)

    def __repr__(self) -> str:
        return f"Filled({sorted(self.headers)})"

    def mask(self, value: str) -> None:
        """Another value that answers may not repeat."""
        if len(value) >= MIN_VALUE and value not in self._masked:
            self._masked.add(value)
            self._blotter = Blotter(self._masked)

    def blotted(self, text: str) -> str:
        return self._blotter.blotted(text) if self._masked else text


def opened(org_id: str, name: str, *, tool: str, host: str) -> tuple[str, tuple[str, ...]]:
    """A secret's value for a tool at this host, and the hosts to which alone the caller may send it. Raises
    PermanentError if it is missing, does not allow this host or cannot be opened.
    """
    found = list(ToolSecret.objects.filter(org_id=org_id, name=name))
    value = _opened(found, {name}, tool, host)[name]
    return value, tuple(found[0].hosts)


def blotter(org_id: str, headers: Mapping[str, str]) -> Blotter | None:
    """The redaction of the secrets that these headers name, whatever their hosts; None if they name none."""
    names = _names(headers)
    found = ToolSecret.objects.filter(org_id=org_id, name__in=names) if names else ()
    values = []
    for secret in found:
        with suppress(SealingError):  # such a secret is never sent, either
            values.append(sealing.opened(secret, "sealed_value"))
    return Blotter(values) if values else None


def _names(headers: Mapping[str, str]) -> set[str]:
    return {name for text in headers.values() for name in SECRET.findall(text)}


def _not_for(name: str, host: str, hosts: Sequence[str]) -> str:
    if not hosts:
        return f"would send the secret {name!r} to {host}: no hosts are stated for it yet"
    return f"would send the secret {name!r} to {host}, which is not one of its hosts: {', '.join(hosts)}"


def _told(secret: ToolSecret) -> dict[str, Any]:
    return {"value": audit_log.MASK, "hosts": secret.hosts}


def _opened(found: Sequence[ToolSecret], names: set[str], tool: str, host: str) -> dict[str, str]:
    if missing := sorted(names - {secret.name for secret in found}):
        raise PermanentError(
            f"the tool {tool} needs the secret {missing[0]!r}, which the organization does not have",
            code="tool_secret_missing",
        )
    for secret in found:
        if not is_covered(host, secret.hosts):
            message = f"the tool {tool} {_not_for(secret.name, host, secret.hosts)}"
            raise PermanentError(message, code="tool_secret_refused")
    try:
        return {secret.name: sealing.opened(secret, "sealed_value") for secret in found}
    except SealingError as error:
        raise PermanentError(
            f"a secret of the tool {tool} cannot be opened: {error}", code="tool_secret_unreadable"
        ) from None
