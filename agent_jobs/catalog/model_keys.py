"""Model access: by the organisation's own key, else by the operator's, and the host to which each key may be sent.

A key is sent only to the host that was stored with it. Without that rule, a client who may write profiles (WRITE) could
have a key that they may not see (ADMIN) sent to their own server. The operator's key is never sent to an address that
an organisation configured. Both rules are checked when a profile is saved and again at each call, since keys change.
"""

import re
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from agent_jobs import llm
from agent_jobs.audit import audit_log
from agent_jobs.budgets import prices
from agent_jobs.errors import FieldError, Invalid, NotFound, PermanentError
from agent_jobs.models import ModelKey, Profile
from agent_jobs.specs import Actor
from infra import prepared_sql, sealing
from infra.egress import requests_client
from infra.sealing import SealingError

_OF_ORG = "org_id = %(org)s AND provider = %(provider)s"
PROFILE_COLUMNS = ("base_url", "fallback_model", "max_output_tokens", "timeout_seconds", "context_tokens")
MODEL_COLUMNS = ("model", "base_url", "fallback_model")
# The columns on which each column's validity depends, beside the stored keys and prices.
_HANGS_ON = {
    "model": {"model"},
    "base_url": {"model", "base_url"},
    "fallback_model": {"model", "fallback_model"},
}
_KEY = re.compile(r"[\x21-\x7e]{1,500}")


# --- Keys ------------------------------------------------------------------------------------------------------
def put_key(org_id: str, provider: str, *, key: str, base_url: str = "", actor: Actor) -> ModelKey:
    """Store a key and replace any previous one. Raises NotFound, Invalid, and SealingError if sealing is not
    configured.
    """
    if provider not in llm.PROVIDERS:
        raise _no_provider(provider)
    errors = []
    if not _KEY.fullmatch(key):
        errors.append(FieldError("key", "invalid", "must be 1 to 500 printable ASCII characters without spaces"))
    if base_url and (reason := _refusal(base_url)):
        errors.append(FieldError("base_url", "invalid", reason))
    if errors:
        raise Invalid(*errors)
    with transaction.atomic():
        row = ModelKey.objects.select_for_update(no_key=True).filter(org_id=org_id, provider=provider).first()
        before = _told(row) if row else None
        if row is None:
            row = _new(org_id, provider)
        row.sealed_key = sealing.seal_for(row, "sealed_key", key)
        row.base_url = base_url
        row.updated_at = Now()
        row.save()
        verb = "updated" if before else "created"
        after = _told(row) | {"is_new_key": True}
        audit_log.record(org_id, f"model_key.{verb}", provider, actor=actor, before=before, after=after)
    row.refresh_from_db(fields=["created_at", "updated_at"])
    return row


def remove_key(org_id: str, provider: str, *, actor: Actor) -> None:
    """Delete a key. Jobs that need it then end FAILED with `model_key_missing`. Raises NotFound."""
    with transaction.atomic():
        row = ModelKey.objects.select_for_update().filter(org_id=org_id, provider=provider).first()
        if row is None:
            raise key_not_found(provider)
        before = _told(row)
        row.delete()
        audit_log.record(org_id, "model_key.removed", provider, actor=actor, before=before)


def key_not_found(provider: str) -> NotFound:
    if provider not in llm.PROVIDERS:
        return _no_provider(provider)
    return NotFound(f"there is no key for {provider}", code="model_key_not_found")


def _no_provider(provider: str) -> NotFound:
    known = ", ".join(llm.PROVIDERS)
    return NotFound(f"there is no provider {provider[:32]!r}; providers are {known}", code="provider_not_found")


def _new(org_id: str, provider: str) -> ModelKey:
    """The row, locked by this transaction: created here or by a concurrent request."""
    try:
        with transaction.atomic():
            return ModelKey.objects.create(org_id=org_id, provider=provider, sealed_key="")
    except IntegrityError:
        return ModelKey.objects.select_for_update(no_key=True).get(org_id=org_id, provider=provider)


def _told(row: ModelKey) -> dict[str, Any]:
    return {"base_url": row.base_url, "key": audit_log.MASK}


# --- Profiles --------------------------------------------------------------------------------------------------
def profile_errors(profile: Profile, changed: Collection[str] = MODEL_COLUMNS) -> list[FieldError]:
    """Errors in the models of a profile that is about to be saved with these columns changed.

    Keys and prices change independently of the profile. Unchanged columns that were valid when saved therefore do not
    block other changes. Each call checks them again.
    """
    return [error for error in _model_errors(profile) if _HANGS_ON[error.field] & set(changed)]


def _model_errors(profile: Profile) -> list[FieldError]:
    if complaint := llm.check(profile.model):
        return [FieldError("model", "invalid", complaint)]
    own = _own_keys(profile.org_id, profile)
    errors = []
    provider = llm.provider_of(profile.model)
    if provider and not _has_key(provider, own):
        errors.append(FieldError("model", "no_key", _no_key(provider)))
    if profile.base_url and (complaint := _address_complaint(provider, profile.base_url, own)):
        errors.append(FieldError("base_url", "invalid", complaint))
    if profile.fallback_model and (complaint := _fallback_complaint(profile, own)):
        errors.append(FieldError("fallback_model", "invalid", complaint))
    for name in ("model", "fallback_model"):
        if complaint := prices.check(getattr(profile, name) or ""):
            errors.append(FieldError(name, "invalid", complaint))
    return errors


def _fallback_complaint(profile: Profile, own: dict[str, ModelKey]) -> str:
    stands_in = llm.provider_of(profile.fallback_model)
    if stands_in not in llm.PROVIDERS:
        return f"must be a hosted model as provider:model; providers are {', '.join(llm.PROVIDERS)}"
    if not llm.provider_of(profile.model):
        return f"is for hosted models: {profile.model} always answers"
    if profile.fallback_model == profile.model:
        return "must differ from model"
    return "" if _has_key(stands_in, own) else _no_key(stands_in)


def _address_complaint(provider: str, base_url: str, own: dict[str, ModelKey]) -> str:
    if not provider:
        return "is for hosted models"
    if complaint := _refusal(base_url):
        return complaint
    if provider not in own:
        return f"needs the organization's own key for {provider}: the operator's goes to no address but {provider}'s"
    if _origin(base_url) != _origin(_address_of(own[provider])):
        return f"must be at the host that the organization's key for {provider} is for: {_address_of(own[provider])}"
    return ""


# --- Calls -----------------------------------------------------------------------------------------------------
def resolve(org_id: str, profile: Profile | None) -> tuple[llm.Route, ...]:
    """The routes to the profile's model and then to its fallback, if any. An unreachable fallback does not prevent the
    call.

    Raises PermanentError: `model_unknown`, `model_key_missing`, `model_key_unreadable`, `model_address_refused`.
    """
    if profile is None:
        return (llm.Route("scripted"),)
    if complaint := llm.check(profile.model):
        raise PermanentError(f"there is no model {profile.model!r}: it {complaint}", code="model_unknown")
    own = _own_keys(org_id, profile)
    first = _route(profile, profile.model, profile.base_url, own)
    if not llm.provider_of(profile.fallback_model):
        return (first,)
    try:
        return first, _route(profile, profile.fallback_model, "", own)
    except PermanentError as error:
        return first, llm.Route(profile.fallback_model, unreachable=error.message)


def _route(profile: Profile, model: str, base_url: str, own: dict[str, ModelKey]) -> llm.Route:
    provider = llm.provider_of(model)
    if not provider:
        return llm.Route(model)
    stated = {name: getattr(profile, name) for name in ("timeout_seconds", "max_output_tokens", "context_tokens")}
    bounds: dict[str, Any] = {name: value for name, value in stated.items() if value is not None}
    rules = requests_client.rules()
    if key := own.get(provider):
        if base_url and _origin(base_url) != _origin(_address_of(key)):
            message = f"base_url is not at the host that the organization's key for {provider} is for"
            raise PermanentError(message, code="model_address_refused")
        address = base_url or key.base_url
        opened, allow_private, ports = _open(key), rules.allow_private, rules.ports
    else:
        if base_url or not settings.MODEL_KEYS.get(provider):
            why = ", and the operator's does not go to the profile's base_url" if base_url else ""
            raise PermanentError(_no_key(provider) + why, code="model_key_missing")
        address = settings.MODEL_ADDRESSES.get(provider, "")
        # The operator may configure any address, such as one in their own network.
        opened, allow_private, ports = settings.MODEL_KEYS[provider], rules.allow_private or bool(address), rules.ports
    access = llm.Access(api_key=opened, base_url=address, ports=ports, allow_private=allow_private, **bounds)
    return llm.Route(model, access)


def _own_keys(org_id: str, profile: Profile) -> dict[str, ModelKey]:
    """The organisation's keys for the profile's models, by provider."""
    providers = {llm.provider_of(name) for name in (profile.model, profile.fallback_model)} - {""}
    found = (prepared_sql.instance(ModelKey, _OF_ORG, {"org": org_id, "provider": name}) for name in providers)
    return {key.provider: key for key in found if key}


def _open(key: ModelKey) -> str:
    try:
        return sealing.opened(key, "sealed_key")
    except SealingError as error:
        message = f"the organization's key for {key.provider} cannot be read: {error.message}"
        raise PermanentError(message, code="model_key_unreadable") from None


def _has_key(provider: str, own: dict[str, ModelKey]) -> bool:
    return provider in own or bool(settings.MODEL_KEYS.get(provider))


def _no_key(provider: str) -> str:
    return f"there is no key for {provider}: neither the organization nor the operator has one"


def _refusal(base_url: str) -> str | None:
    return "must not contain a query" if "?" in base_url else requests_client.refusal(base_url)


def _address_of(key: ModelKey) -> str:
    return key.base_url or llm.PROVIDERS[key.provider]


def _origin(url: str) -> tuple[str, str, int]:
    """The origin of a URL that was validated before."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
