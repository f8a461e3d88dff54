"""Authenticates app tokens (Bearer) and checks their scopes by method. The API ignores browser sessions."""

import re
from typing import Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from structlog.contextvars import bind_contextvars

from agent_jobs import scopes
from agent_jobs.api import throttling
from agent_jobs.specs import Actor
from agent_jobs.tenants import app_tokens

# Two Authorization headers arrive as one value, joined by a comma: this pattern rejects both.
_BEARER = re.compile(r"bearer ([0-9A-Za-z_]{1,100})", re.IGNORECASE)


class AppTokenAuthentication(BaseAuthentication):
    """Sets `request.auth` to the token and `request.user` to an Actor.

    Missing, unknown, expired and revoked tokens all get the same 401, or 429 after too many from one address.
    """

    def plain_token(self, request: Request) -> str:
        """The token that the request carries; "" without one."""
        found = _BEARER.fullmatch(request.META.get("HTTP_AUTHORIZATION") or "")
        return found[1] if found else ""

    def authenticate(self, request: Request) -> tuple[Any, Any]:
        plain = self.plain_token(request)
        throttling.check_address(request, plain)
        token = app_tokens.authenticate(plain)
        if token is None:
            throttling.failed(request, plain)
            raise AuthenticationFailed
        throttling.succeeded(plain)
        bind_contextvars(org=token.org_id, token=token.public_id)
        return Actor("token", token.public_id, getattr(request, "request_id", "")), token

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="agent-jobs"'


class HasScope(BasePermission):
    """Requires SERVICES:READ for GET, HEAD and OPTIONS, and SERVICES:WRITE for other methods.

    A view may set another `level` for all methods, or another `write_level` for those that write.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        token: Any = request.auth
        if token is None:
            return False
        write_level = getattr(view, "write_level", scopes.Level.WRITE)
        level = scopes.Level.READ if request.method in SAFE_METHODS else write_level
        level = getattr(view, "level", None) or level
        if not scopes.allows(token.scopes, level):
            raise PermissionDenied(f"this needs a token with the scope SERVICES:{level}", code="insufficient_scope")
        return True
