"""Sets X-Request-ID on every response, and gives errors from outside the views the API's error format.

`TlsMiddleware` refuses plain HTTP at foreign APIs, if the service wants HTTPS.
"""

import logging
import re
import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from structlog.contextvars import bind_contextvars, clear_contextvars
from uuid_utils import uuid7

from agent_jobs.api import errors
from agent_jobs.api.streams import OpenResponse, OpenStream
from agent_jobs.api.throttling import TooManyRequests
from infra import database, meters, tracing

access = logging.getLogger("agent_jobs.access")
# Monitoring requests these every few seconds, so the access log has them at DEBUG.
_WATCHERS = {"/health/live", "/health/ready", "/metrics"}
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


class TlsMiddleware:
    """Refuses plain HTTP at foreign APIs, where Django would redirect: their clients turn a redirected POST into a GET.

    It stands before Django's SecurityMiddleware.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if settings.SECURE_SSL_REDIRECT and not request.is_secure() and errors.is_foreign(request.path):
            return errors.plain(403, "https_required", "this API is served over https only", request)
        return self.get_response(request)


class RequestIdMiddleware:
    """Uses the client's X-Request-ID if it is well-formed, else makes one. Sets it as `request.request_id` too."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        stated = request.META.get("HTTP_X_REQUEST_ID", "")
        request_id = stated if _SANE_ID.fullmatch(stated) else str(uuid7())
        request.request_id = request_id  # type: ignore[attr-defined]
        began = time.monotonic()
        clear_contextvars()  # an aborted request of this thread may have left its values
        bind_contextvars(request_id=request_id)
        stated_trace = request.META.get("HTTP_TRACEPARENT", "")
        with tracing.span("request", parent=stated_trace, kind="server", request_id=request_id) as traced:
            response = self._answer(request)
            if traced:
                _tell(traced, request, response)
        if isinstance(response, HttpResponseNotAllowed):
            response = errors.method_not_allowed(request, response["Allow"])
        response["X-Request-ID"] = request_id
        opened = response.opened if isinstance(response, OpenResponse) else None
        if not opened and not response.streaming and "Content-Length" not in response:
            response["Content-Length"] = str(len(response.content))  # else the server answers in chunks
        if not opened or isinstance(opened, OpenStream):  # a waiting request runs again, and is logged then
            _note(request, response, time.monotonic() - began)
        clear_contextvars()
        return response

    def _answer(self, request: HttpRequest) -> HttpResponse:
        """Serve only hosts of the setting ALLOWED_HOSTS. Health checks may use any name of the machine."""
        if not request.path.startswith("/health/"):
            try:
                request.get_host()
            except DisallowedHost:
                return errors.plain(400, "unknown_host", "the host of the address is not served here", request)
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """For views outside REST framework: answer a database outage with 503, too many log-ins with 429."""
        if isinstance(exception, TooManyRequests):
            return errors.throttled(request, exception)
        return errors.unavailable(request, exception) if database.is_unavailable(exception) else None


def _tell(traced: Any, request: HttpRequest, response: HttpResponse) -> None:
    route = route_of(request)
    traced.update_name(f"{request.method} {route}" if request.method in _METHODS else route)
    traced.set_attribute("http.route", route)
    traced.set_attribute("http.response.status_code", response.status_code)


def _note(request: HttpRequest, response: HttpResponse, seconds: float) -> None:
    """Record metric and log line under the URL's template, which identifies nobody; unknown methods count as "other".

    The line contains no header, body or query value. Its context has the organisation and the token.
    """
    method, route = str(request.method if request.method in _METHODS else "other"), route_of(request)
    meters.observe("http_request_seconds", seconds, method=method, route=route, status=str(response.status_code))
    access.log(
        logging.DEBUG if route in _WATCHERS else logging.INFO,
        "request",
        extra={"method": method, "route": route, "status": response.status_code, "ms": round(seconds * 1000, 1)},
    )


def route_of(request: HttpRequest) -> str:
    match = request.resolver_match
    return f"/{match.route}" if match else "unknown"
