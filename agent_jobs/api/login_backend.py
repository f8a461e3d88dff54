"""Limits password log-ins by address before the password is hashed, which takes a quarter of a second of CPU."""

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.http import HttpRequest

from agent_jobs.api import throttling


class LimitedByAddress(ModelBackend):
    """First of settings.AUTHENTICATION_BACKENDS. Authenticates nobody; raises TooManyRequests over the limit."""

    def authenticate(self, request: HttpRequest | None, *args: Any, **credentials: Any) -> None:
        if request is not None:
            throttling.count_login(request)
