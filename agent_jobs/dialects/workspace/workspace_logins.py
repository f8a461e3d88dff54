"""Credentials of Workspace: name and password for two tokens, and the access token with each request.

`tenants.login_tokens` makes and checks the tokens, and has their lifetimes.

Wrong passwords are limited as at the console: by name and address (django-axes), and by address alone.
"""

from datetime import datetime
from typing import Any

from axes.handlers.proxy import AxesProxyHandler
from django.conf import settings
from django.contrib.auth import authenticate
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from structlog.contextvars import bind_contextvars

from agent_jobs.api import throttling
from agent_jobs.dialects.base import DialectResource, OpenResource
from agent_jobs.dialects.documentation import Documentation
from agent_jobs.dialects.workspace import workspace_json as shapes
from agent_jobs.errors import FieldError, Invalid
from agent_jobs.specs import Actor
from agent_jobs.tenants import login_tokens

described = Documentation("Workspace", shapes.WorkspaceError, refused=(400, 401, 403, 404, 422, 429, 503))
_WRONG = {"detail": "Invalid credentials"}
_DISABLED = {"detail": "The user is disabled"}
_LOCKED = {"detail": "Too many wrong tries; try again later"}
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


class PersonAuthentication(BaseAuthentication):
    """Sets `request.auth` to a Login and `request.user` to an Actor. Anything but a valid access token gets a 401."""

    def authenticate(self, request: Request) -> tuple[Any, Any]:
        scheme, _, token = (request.META.get("HTTP_AUTHORIZATION") or "").partition(" ")
        login = login_tokens.login_of(token.strip()) if scheme.lower() == "bearer" else None
        if login is None:
            throttling.check_address(request, "")
            throttling.failed(request)
            raise AuthenticationFailed
        bind_contextvars(user=login.user_pk)
        return Actor("user", login.username, getattr(request, "request_id", "")), login

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class IsSignedIn(BasePermission):
    def has_permission(self, request: Request, view: Any) -> bool:
        return request.auth is not None


class PersonScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = PersonAuthentication
    name = "workspaceLogin"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "From `/auth/login`."}


class WorkspaceResource(DialectResource):
    def object(self) -> dict[str, Any]:
        """The body as a JSON object. Raises ParseError if it is not JSON, and Invalid for another value: a 422."""
        found = self.json()
        if not isinstance(found, dict):
            raise Invalid(FieldError("body", "invalid", "must be a JSON object"))
        return found


def _tokens(user: Any, refresh_token: str, now: datetime) -> Response:
    pair = {"access_token": login_tokens.issue(user, login_tokens.ACCESS, now=now), "refresh_token": refresh_token}
    return Response({**pair, "token_type": "bearer"}, headers={"Cache-Control": "no-store"})


class WorkspaceLogin(WorkspaceResource, OpenResource):
    @described(
        "login",
        "Sign in",
        shapes.WorkspaceTokens,
        refused=(400, 401, 403, 415, 422, 429, 503),
        request=shapes.WorkspaceCredentials,
    )
    def post(self, request: Request) -> Response:
        stated = self.fields(shapes.WorkspaceCredentials)
        asked = request._request
        if not AxesProxyHandler.is_allowed(asked, {"username": stated["username"]}):
            wait = int(settings.AXES_COOLOFF_TIME.total_seconds())
            return Response(_LOCKED, status=429, headers={"Retry-After": str(wait)})
        user = authenticate(asked, **stated)
        asked.axes_locked_out = False  # type: ignore[attr-defined]  # else a page of the console replaces this answer
        if user is None:
            if login_tokens.is_disabled(**stated):
                return Response(_DISABLED, status=403)
            return Response(_WRONG, status=401, headers=_CHALLENGE)
        now = timezone.now()
        return _tokens(user, login_tokens.issue(user, login_tokens.REFRESH, now=now), now)


class WorkspaceRefresh(WorkspaceResource, OpenResource):
    @described(
        "refresh",
        "Get a new access token",
        shapes.WorkspaceTokens,
        refused=(400, 401, 415, 422, 429, 503),
        request=shapes.WorkspaceRefreshRequest,
    )
    def post(self, request: Request) -> Response:
        token = self.fields(shapes.WorkspaceRefreshRequest)["refresh_token"]
        user = login_tokens.user_of(token, login_tokens.REFRESH)
        if user is None:
            throttling.check_address(request, "")
            throttling.failed(request)
            return Response({"detail": "Invalid refresh token"}, status=401, headers=_CHALLENGE)
        return _tokens(user, token, timezone.now())
