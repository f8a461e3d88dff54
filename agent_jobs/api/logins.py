"""Limits log-ins with a password by address, before the password is hashed: that takes a quarter of a second of CPU."""

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.http import HttpRequest

from agent_jobs.api import throttling


class LimitedByAddress(ModelBackend):
    """The first of settings.AUTHENTICATION_BACKENDS. It lets nobody in; it raises TooManyRequests."""

    def authenticate(self, request: HttpRequest | None, *args: Any, **credentials: Any) -> None:
        if request is not None:
            throttling.count_login(request)
