"""App tokens: made, shown once, and recognised by an HMAC. The plain token is never stored or logged.

`ajt_live_`, 32 base62 characters (190 bits), and the CRC32 of all that in 6 more. The checksum tells a slip of the pen
from a real token before the database is asked, and lets scanners find leaked ones (`ajt_(live|test)_[0-9A-Za-z]{38}`).
With 190 random bits a fast keyed hash is enough: there is nothing to guess.
"""

import hashlib
import hmac
import logging
import re
import secrets
import zlib
from collections.abc import Iterable
from datetime import timedelta

from django.conf import settings
from django.db import DatabaseError
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from agent_jobs import scopes as scope_rules
from agent_jobs.errors import FieldError, Invalid
from agent_jobs.models import AppToken, Org

logger = logging.getLogger(__name__)
PREFIX = "ajt_live_"
PATTERN = re.compile(r"ajt_live_[0-9A-Za-z]{38}")
LAST_USED_STEP = timedelta(minutes=1)
MAX_DAYS = 3650
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PUBLIC_LENGTH = 16


def issue(org: Org, *, name: str, scopes: Iterable[str], expires_in: timedelta | None = None) -> tuple[AppToken, str]:
    """A new token and its plain text, which is not to be had again. Raises Invalid for an unknown scope."""
    try:
        held = sorted({":".join((area, level.name)) for area, level in map(scope_rules.parse, scopes)})
    except ValueError as error:
        raise Invalid(FieldError("scope", "invalid", str(error))) from None
    if not held:
        raise Invalid(FieldError("scope", "required", "a token needs at least one scope"))
    if expires_in is not None and not timedelta() < expires_in <= timedelta(days=MAX_DAYS):
        raise Invalid(FieldError("expires_in_days", "invalid", f"must be from 1 to {MAX_DAYS} days"))
    if not name.strip() or len(name) > 200 or "\x00" in name:
        raise Invalid(FieldError("name", "invalid", "must be a text of 1 to 200 characters"))
    plain = PREFIX + "".join(secrets.choice(_BASE62) for _ in range(32))
    plain += _checksum(plain)
    token = AppToken(
        org=org,
        app=name,
        name=name,
        public_id=plain[:_PUBLIC_LENGTH],
        digest=_digest(plain),
        scopes=held,
        expires_at=Now() + expires_in if expires_in else None,
    )
    token.save(force_insert=True)
    token.refresh_from_db(fields=["created_at", "expires_at"])
    return token, plain


def authenticate(plain: str) -> AppToken | None:
    """The live token with this text, its organisation loaded; None for unknown, expired and revoked ones alike."""
    if not PATTERN.fullmatch(plain) or not hmac.compare_digest(plain[-6:], _checksum(plain[:-6])):
        return None
    token = (
        AppToken.objects.select_related("org")
        .filter(Q(expires_at=None) | Q(expires_at__gt=Now()), digest=_digest(plain), revoked_at=None)
        .first()
    )
    if token is not None:
        _mark_used(token)
    return token


def revoke(token: AppToken) -> None:
    """At once, for good. Calling twice keeps the first time."""
    AppToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=Now())


def _mark_used(token: AppToken) -> None:
    """Once a minute, by a rough clock: it is for people who look for tokens that nobody needs any more."""
    if token.last_used_at and timezone.now() - token.last_used_at < LAST_USED_STEP:
        return
    try:
        AppToken.objects.filter(pk=token.pk).update(last_used_at=Now())
    except DatabaseError as error:  # a full disk must not stop those who only read
        logger.warning("cannot note the use of %s: %s", token.public_id, error)


def _digest(plain: str) -> bytes:
    return hmac.digest(settings.TOKEN_PEPPER.encode(), plain.encode(), hashlib.sha256)


def _checksum(text: str) -> str:
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(6):
        number, rest = divmod(number, 62)
        digits = _BASE62[rest] + digits
    return digits
