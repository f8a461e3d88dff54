"""Limits how often passwords may be tried, at the console and at APIs where people log in.

- From one address: _PER_ADDRESS log-ins for all users together. `LimitedByAddress` counts them before the password is
  hashed, which takes a quarter of a second of CPU.
- For one user name from one address: django-axes locks the pair after AXES_FAILURE_LIMIT wrong passwords, for
  AXES_COOLOFF_TIME (`config/settings.py`). An attacker elsewhere cannot lock the user out.

The console answers by `console.signing_in`, Workspace's API by `dialects.workspace.workspace_logins`.
"""

from typing import Any

from django.conf import settings
from django.contrib.auth.backends import ModelBackend
from django.http import HttpRequest

from agent_jobs.api import throttling
from agent_jobs.tenants import rate_limits
from agent_jobs.tenants.rate_limits import Limit

_PER_ADDRESS = "20/minute"


class LimitedByAddress(ModelBackend):
    """First of settings.AUTHENTICATION_BACKENDS. Authenticates nobody; raises TooManyRequests over the limit."""

    def authenticate(self, request: HttpRequest | None, *args: Any, **credentials: Any) -> None:
        if request is not None and rate_limits.is_on(settings.RATE_ADDRESS):
            throttling.take(request, Limit("login", throttling.address_of(request.META), _PER_ADDRESS))


def client_address(request: HttpRequest) -> str | None:
    """The client's address for django-axes (settings.AXES_CLIENT_IP_CALLABLE), without a /64 suffix."""
    return throttling.address_of(request.META).removesuffix("/64") or None
