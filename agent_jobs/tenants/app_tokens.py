"""App tokens: issued, shown once, and verified by an HMAC. The plain token is never stored or logged.

A token is `ajt_live_`, 32 base62 characters (190 bits), and the CRC32 of all that in 6 more. The checksum detects a
typo without a database query and lets scanners find leaked tokens (`ajt_(live|test)_[0-9A-Za-z]{38}`). A fast keyed
hash is enough, because 190 random bits cannot be guessed. The key (pepper) has versions: add a new one beside the old,
and drop the old one when its last token has expired.
"""

import hashlib
import hmac
import logging
import re
import secrets
import zlib
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import DatabaseError, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from agent_jobs import scopes as scope_rules
from agent_jobs.audit import audit_log
from agent_jobs.errors import Conflict, FieldError, Forbidden, Invalid, NotFound
from agent_jobs.models import AppToken, Org
from agent_jobs.specs import Actor
from infra import prepared_sql

logger = logging.getLogger(__name__)
PREFIX = "ajt_live_"
PATTERN = re.compile(r"ajt_live_[0-9A-Za-z]{38}")
LAST_USED_STEP = timedelta(minutes=1)
MAX_DAYS = 3650
DEFAULT_DAYS = 90
# For tokens issued through the API.
MAX_DAYS_FOR_APPS = 365
MOST_ACTIVE = 2
_OPERATOR = Actor("system", "operator")
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PUBLIC_LENGTH = 16


def issue(
    org: Org,
    *,
    name: str,
    scopes: Iterable[str],
    app: str = "",
    expires_in: timedelta | None = None,
    actor: Actor = _OPERATOR,
) -> tuple[AppToken, str]:
    """Issue a token. Returns it with its plain text, which cannot be shown again. Raises Invalid, such as for unknown
    scopes.

    `app` owns the token and defaults to `name`. Without `expires_in` the token never expires.
    """
    try:
        held = sorted({f"SERVICES:{level}" for level in map(scope_rules.parse, scopes)})
    except ValueError as error:
        raise Invalid(FieldError("scopes", "invalid", str(error))) from None
    if not held:
        raise Invalid(FieldError("scopes", "required", "a token needs at least one scope"))
    if expires_in is not None and not timedelta() < expires_in <= timedelta(days=MAX_DAYS):
        raise Invalid(FieldError("expires_in_days", "invalid", f"must be from 1 to {MAX_DAYS} days"))
    for field, text in (("name", name), ("app", app or name)):
        if not text.strip() or len(text) > 200 or "\x00" in text:
            raise Invalid(FieldError(field, "invalid", "must be a text of 1 to 200 characters"))
    plain = PREFIX + "".join(secrets.choice(_BASE62) for _ in range(32))
    plain += _checksum(plain)
    version = max(settings.TOKEN_PEPPERS)
    token = AppToken(
        org=org,
        app=app or name,
        name=name,
        public_id=plain[:_PUBLIC_LENGTH],
        digest=_digest(plain, settings.TOKEN_PEPPERS[version]),
        pepper_version=version,
        scopes=held,
        created_by=str(actor),
        expires_at=Now() + expires_in if expires_in else None,
    )
    with transaction.atomic():
        token.save(force_insert=True)
        token.refresh_from_db(fields=["created_at", "expires_at"])
        audit_log.record(org.pk, "app_token.created", token.public_id, actor=actor, after=_told(token))
    return token, plain


def issue_for_app(
    org_id: str, *, app: str, name: str, scopes: Iterable[str], days: int, held: list[str], actor: Actor
) -> tuple[AppToken, str]:
    """Issue a token for an admin, with scopes from the admin's own (`held`) only, and at most two active tokens per
    app.

    Raises Invalid, Forbidden (`scope_not_held`) and Conflict (`too_many_active_tokens`).
    """
    wanted = list(scopes)
    with transaction.atomic():
        # Serialise per organisation, so that two concurrent requests cannot both issue the second token.
        org = Org.objects.select_for_update(no_key=True).get(pk=org_id)
        token, plain = issue(org, name=name, scopes=wanted, app=app, expires_in=timedelta(days=days), actor=actor)
        beyond = [scope for scope in token.scopes if not scope_rules.allows(held, scope_rules.parse(scope))]
        if beyond:
            raise Forbidden(f"the requesting token does not hold {', '.join(beyond)}", code="scope_not_held")
        if active(org_id).filter(app=app).count() > MOST_ACTIVE:
            message = f"{app!r} has {MOST_ACTIVE} active tokens already: revoke one first"
            raise Conflict(message, code="too_many_active_tokens")
    return token, plain


def active(org_id: str) -> QuerySet[AppToken]:
    return AppToken.objects.filter(Q(expires_at=None) | Q(expires_at__gt=Now()), org_id=org_id, revoked_at=None)


_LIVE = """
digest = ANY(%(digests)s) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > statement_timestamp())
ORDER BY id"""


def is_well_formed(plain: str) -> bool:
    """Whether the text has a token's form and checksum; needs no database query."""
    return bool(PATTERN.fullmatch(plain)) and hmac.compare_digest(plain[-6:], _checksum(plain[:-6]))


def authenticate(plain: str) -> AppToken | None:
    """The active token with this text, its organisation loaded; None if it is unknown, expired or revoked."""
    if not is_well_formed(plain):
        return None
    digests = [_digest(plain, pepper) for pepper in settings.TOKEN_PEPPERS.values()]
    token = prepared_sql.instance(AppToken, _LIVE, {"digests": digests})
    if token is None:
        return None
    org = prepared_sql.instance(Org, "id = %(id)s", {"id": token.org_id})
    if org is None or org.closed_at is not None:
        return None
    token.org = org
    _mark_used(token)
    return token


def living(token_pks: Iterable[int]) -> set[int]:
    """The tokens among these that are neither revoked nor expired, and whose organisation is not closed."""
    alive = AppToken.objects.filter(
        Q(expires_at=None) | Q(expires_at__gt=Now()), pk__in=list(token_pks), revoked_at=None, org__closed_at=None
    )
    return set(alive.values_list("pk", flat=True))


def revoke(token: AppToken, *, actor: Actor = _OPERATOR) -> None:
    """Revoke the token at once and for good. A second call changes nothing: the time of the first one stays."""
    with transaction.atomic():
        if AppToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=Now()):
            before = _told(token)
            token.refresh_from_db(fields=["revoked_at"])
            audit_log.record(
                token.org_id, "app_token.revoked", token.public_id, actor=actor, before=before, after=_told(token)
            )


def revoke_by_id(org_id: str, public_id: str, *, actor: Actor) -> AppToken:
    """Revoke by public id. Raises NotFound. Revoking again changes nothing and is no error."""
    token = find(org_id, public_id)
    revoke(token, actor=actor)
    token.refresh_from_db()
    return token


def find(org_id: str, public_id: str) -> AppToken:
    """The token with this public id. Raises NotFound, for another organisation's token exactly as for a missing one."""
    token = None if "\x00" in public_id else AppToken.objects.filter(org_id=org_id, public_id=public_id).first()
    if token is None:
        message = f"there is no app token {public_id[:_PUBLIC_LENGTH]!r}"
        raise NotFound(message, code="app_token_not_found", denied=("app_token", public_id))
    return token


def _told(token: AppToken) -> dict[str, Any]:
    """The token as the audit shows it."""
    return {
        "app": token.app,
        "name": token.name,
        "scopes": token.scopes,
        "expires_at": token.expires_at and token.expires_at.isoformat(),
        "revoked_at": token.revoked_at and token.revoked_at.isoformat(),
    }


def _mark_used(token: AppToken) -> None:
    """Record the use, about once a minute: it helps people find tokens that nobody needs any more."""
    if token.last_used_at and timezone.now() - token.last_used_at < LAST_USED_STEP:
        return
    try:
        AppToken.objects.filter(pk=token.pk).update(last_used_at=Now())
    except DatabaseError as error:  # a full disk must not stop read requests
        logger.warning("cannot record the use of token %s: %s", token.public_id, error)


def _digest(plain: str, pepper: str) -> bytes:
    return hmac.digest(pepper.encode(), plain.encode(), hashlib.sha256)


def _checksum(text: str) -> str:
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(6):
        number, rest = divmod(number, 62)
        digits = _BASE62[rest] + digits
    return digits
