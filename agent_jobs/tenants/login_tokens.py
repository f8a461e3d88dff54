"""Logins of people at APIs: an access token for half an hour, and a refresh token that gets new ones for a week.

Both are JSON Web Tokens, signed with a key of their own, and name the user and a fingerprint of the password's hash. So
a new password, a disabled account or another SECRET_KEY ends them all; nothing is stored. What the user may see is read
at each request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import jwt
from django.contrib.auth import get_user_model
from django.utils.crypto import constant_time_compare, salted_hmac

from agent_jobs.tenants import members
from agent_jobs.tenants.members import MemberOf

ACCESS, REFRESH = "access", "refresh"
LIFETIMES = {ACCESS: timedelta(minutes=30), REFRESH: timedelta(days=7)}
_ALGORITHM = "HS256"
_SALT = "agent_jobs.tenants.logins"  # another salt would end all log-ins
_ISSUER = "agent-jobs"
MAX_TOKEN = 2_000


@dataclass(frozen=True, slots=True)
class Login:
    """A signed-in person. `org_id` is the first organisation's, "" without any."""

    user_pk: int
    username: str
    memberships: Sequence[MemberOf]

    @property
    def org_id(self) -> str:
        return self.memberships[0].org_id if self.memberships else ""


def issue(user: Any, kind: str, *, now: datetime) -> str:
    """A token of this kind for an active user."""
    claims = {
        "iss": _ISSUER,
        "sub": str(user.pk),
        "kind": kind,
        "iat": now,
        "exp": now + LIFETIMES[kind],
        "jti": uuid4().hex,
        "pwd": _fingerprint(user),
    }
    return jwt.encode(claims, _key(), algorithm=_ALGORITHM)


def user_of(token: str, kind: str) -> Any | None:
    """The active user of a valid token of this kind; None for any other text."""
    if len(token) > MAX_TOKEN:
        return None
    try:
        needed = ["sub", "kind", "exp", "iat", "pwd"]
        claims = jwt.decode(token, _key(), algorithms=[_ALGORITHM], issuer=_ISSUER, options={"require": needed})
        user_pk = int(claims["sub"])
    except (jwt.InvalidTokenError, ValueError):
        return None
    if claims["kind"] != kind:
        return None
    user = get_user_model()._default_manager.filter(pk=user_pk, is_active=True).first()
    return user if user and constant_time_compare(claims["pwd"], _fingerprint(user)) else None


def login_of(token: str) -> Login | None:
    """The person of a valid access token."""
    user = user_of(token, ACCESS)
    return Login(user.pk, user.get_username(), members.of_user(user.pk)) if user else None


def is_disabled(username: str, password: str) -> bool:
    """Whether these belong to a user who may not sign in."""
    user = get_user_model()._default_manager.filter(username=username, is_active=False).first()
    return user is not None and user.check_password(password)


def _key() -> bytes:
    return salted_hmac(_SALT, "", algorithm="sha256").digest()


def _fingerprint(user: Any) -> str:
    return salted_hmac(f"{_SALT}.password", user.password, algorithm="sha256").hexdigest()[:32]
