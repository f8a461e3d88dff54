"""The error format: `{"code", "message", "errors": [{"field", "code", "message"}], "meta": {"request_id"}}`.

Only this module turns exceptions into error responses, inside REST framework (`exception_handler`) and outside it
(`handler404` and its siblings, named in `config/urls.py`).

Addresses of a foreign API (`agent_jobs.dialects`) have other formats. `speak` registers the function that finds the
format of an address.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, DataError
from django.http import Http404, HttpRequest, JsonResponse
from rest_framework import exceptions
from rest_framework.response import Response

from agent_jobs import errors
from agent_jobs.audit import audit_log
from agent_jobs.errors import MAX_REPORTED, FieldError
from channels_integration.errors import InvalidField, UnknownChannel
from infra import database
from infra.sealing import SealingError

logger = logging.getLogger(__name__)
RETRY_AFTER_SECONDS = 5
_SOON = {"Retry-After": str(RETRY_AFTER_SECONDS)}
MAX_FIELD = 200
MAX_ERROR = 1_000
MAX_MESSAGE = 2_100
UNAUTHENTICATED = "a valid app token is required, as Authorization: Bearer ajt_live_…"
_UNAUTHENTICATED_BASIC = f"{UNAUTHENTICATED}, as the password of HTTP Basic, or as X-API-Key"

# HTTP statuses of our own errors; the first matching class wins.
STATUSES: tuple[tuple[type[errors.AgentJobsError], int], ...] = (
    (errors.NotFound, 404),
    (errors.Forbidden, 403),
    (errors.Invalid, 400),
    (errors.Conflict, 409),
    (errors.KeyReused, 422),
    (errors.QuotaReached, 429),
    (errors.RetryableError, 503),
)
_CODES = {
    400: "bad_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    415: "unsupported_media_type",
    429: "throttled",
}


@dataclass(frozen=True, slots=True)
class RefusedRequest:
    """The content of an error response, before it has a format."""

    status: int
    code: str
    message: str
    errors: tuple[FieldError, ...] = ()
    request_id: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)


# The status and the JSON body of an error response, in one format.
Envelope = Callable[[RefusedRequest], tuple[int, dict[str, Any]]]


def _native(refused: RefusedRequest) -> tuple[int, dict[str, Any]]:
    return refused.status, {
        "code": refused.code,
        "message": refused.message,
        "errors": [{"field": one.field, "code": one.code, "message": one.message} for one in refused.errors],
        "meta": {"request_id": refused.request_id, **refused.meta},
    }


_envelope_of: Callable[[str], Envelope | None] = lambda path: None  # noqa: E731 - replaced by `speak`


def speak(envelope_of: Callable[[str], Envelope | None]) -> None:
    """Register the function that finds the error format of a path; None is the API's own. Call it once per process."""
    global _envelope_of
    _envelope_of = envelope_of


def is_foreign(path: str) -> bool:
    """Whether the address belongs to a foreign API."""
    return _envelope_of(path) is not None


def enveloped(path: str, refused: RefusedRequest) -> tuple[int, dict[str, Any]]:
    """The status and the body of an error response at this address."""
    return (_envelope_of(path) or _native)(refused)


def exception_handler(exc: Exception, context: Mapping[str, Any]) -> Response | None:
    """REST framework's EXCEPTION_HANDLER. Returns None only for our own bugs: Django then logs them and answers 500."""
    request = context["request"]
    if isinstance(exc, InvalidField):
        exc = errors.Invalid(FieldError(exc.field, "invalid", exc.message))
    elif isinstance(exc, UnknownChannel):
        exc = errors.NotFound(exc.message, code="channel_not_found")
    elif isinstance(exc, SealingError):
        exc = errors.Conflict("cannot store secrets: the operator has set no sealing key", code="sealing_unavailable")
    if isinstance(exc, errors.AgentJobsError):
        if exc.denied:
            _note_denied(exc, exc.denied, request)
        return _own(exc, request)
    if isinstance(exc, exceptions.ValidationError):
        return _refusal(400, "invalid", errors.summary(fields := list(flatten(exc.detail))), request, errors=fields)
    if isinstance(exc, exceptions.APIException):
        return _framework(exc, request)
    if isinstance(exc, Http404):
        return _refusal(404, "not_found", "there is nothing at this address", request)
    if isinstance(exc, PermissionDenied):
        return _refusal(403, "forbidden", "this is not allowed", request)
    if isinstance(exc, DataError):  # the parsers let a value pass that the database cannot store
        logger.warning("the database refused a value that the parsers accepted: %s", exc)
        return _refusal(400, "invalid", "a value cannot be stored", request)
    if database.is_unavailable(exc):
        return _refusal(503, *_unavailable(exc), request, headers=_SOON)
    return None


def body(
    status: int,
    code: str,
    message: str,
    request: HttpRequest | Any,
    *,
    errors: Iterable[FieldError] = (),
    meta: Mapping[str, Any] | None = None,
) -> tuple[int, dict[str, Any]]:
    """An error's status and JSON body: at most 20 errors, long texts cut. A request of 200 KB may have 18,000 unknown
    fields.
    """
    shown = tuple(
        FieldError(_cut(error.field, MAX_FIELD), _cut(error.code, MAX_FIELD), _cut(error.message, MAX_ERROR))
        for error in islice(errors, MAX_REPORTED)
    )
    told = RefusedRequest(
        status, code, _cut(message, MAX_MESSAGE), shown, getattr(request, "request_id", ""), meta or {}
    )
    return enveloped(request.path, told)


def flatten(detail: Any, at: str = "") -> Iterator[FieldError]:
    """Flatten a serializer's errors: `{"target_channel": {"code": ["…"]}}` is for the field `target_channel.code`."""
    if isinstance(detail, Mapping):
        for key, inner in detail.items():
            is_whole = key == "non_field_errors"
            yield from flatten(inner, at if is_whole else f"{at}.{key}" if at else str(key))
    elif isinstance(detail, list) and any(isinstance(inner, Mapping | list) for inner in detail):
        for number, inner in enumerate(detail):
            yield from flatten(inner, f"{at}.{number}" if at else str(number))
    else:
        for inner in detail if isinstance(detail, list) else [detail]:
            yield FieldError(at or "body", getattr(inner, "code", None) or "invalid", str(inner))


# --- Outside REST framework ------------------------------------------------------------------------------------
def plain(
    status: int, code: str, message: str, request: HttpRequest, *, headers: Mapping[str, str] | None = None
) -> JsonResponse:
    shown_status, shown = body(status, code, message, request)
    return JsonResponse(shown, status=shown_status, headers=headers)


def _handler(status: int, code: str, message: str) -> Callable[..., JsonResponse]:
    return lambda request, exception=None: plain(status, code, message, request)


handler400 = _handler(400, "bad_request", "the request is malformed")
handler403 = _handler(403, "forbidden", "this is not allowed")
handler404 = _handler(404, "not_found", "there is nothing at this address")
handler500 = _handler(500, "internal_error", "something went wrong here; it has been recorded")


def method_not_allowed(request: HttpRequest, allowed: str) -> JsonResponse:
    message = f"{_method(request)} is not allowed here"
    return plain(405, "method_not_allowed", message, request, headers={"Allow": allowed})


def unavailable(request: HttpRequest, error: Exception) -> JsonResponse:
    """The answer to a request whose database error `database.is_unavailable`."""
    return plain(503, *_unavailable(error), request, headers=_SOON)


def throttled(request: HttpRequest, refusal: Any) -> JsonResponse:
    headers = {"Retry-After": str(int(refusal.wait) + 1)}
    return plain(429, "throttled", str(refusal.detail), request, headers=headers)


# --- Private helpers -------------------------------------------------------------------------------------------
def _note_denied(exc: errors.AgentJobsError, denied: tuple[str, str], request: Any) -> None:
    """Audit a refused access (promise I18), in its own transaction, because the request's is rolled back.

    If the audit fails, the request is refused all the same.
    """
    try:
        audit_log.record_denied(
            request.auth.org_id, *denied, actor=request.user, method=_method(request), code=exc.code
        )
    except DatabaseError as error:
        logger.error("a denied access of %s could not be audited: %s", request.user, error)


def _own(exc: errors.AgentJobsError, request: Any) -> Response | None:
    for kind, status in STATUSES:
        if isinstance(exc, kind):
            fields = exc.errors
            message = errors.summary(fields) if isinstance(exc, errors.Invalid) else exc.message
            headers = {}
            if isinstance(exc, errors.QuotaReached | errors.RetryableError):
                headers["Retry-After"] = str(math.ceil(exc.retry_after or RETRY_AFTER_SECONDS))
            told = {name: exc.context[name] for name in exc.told}
            return _refusal(status, exc.code, message, request, errors=fields, headers=headers, meta=told)
    return None


def _framework(exc: exceptions.APIException, request: Any) -> Response:
    status = exc.status_code
    if isinstance(exc, exceptions.NotAuthenticated | exceptions.AuthenticationFailed) and status == 401:
        challenge = getattr(exc, "auth_header", 'Bearer realm="agent-jobs"')
        said = _UNAUTHENTICATED_BASIC if challenge.startswith("Basic") else UNAUTHENTICATED
        return _refusal(status, "unauthenticated", said, request, headers={"WWW-Authenticate": challenge})
    code = exc.get_codes()
    message = str(exc.detail)
    if isinstance(exc, exceptions.MethodNotAllowed):
        message = f"{_method(request)} is not allowed here"
    elif isinstance(exc, exceptions.UnsupportedMediaType):
        message = "a body must be sent as application/json"
    headers = {}
    if (wait := getattr(exc, "wait", None)) is not None:
        headers["Retry-After"] = str(int(wait) + 1)
    fields: tuple[FieldError, ...] = ()
    if isinstance(exc, exceptions.ParseError):
        fields = (FieldError("body", str(code), message),)
    known = _CODES.get(status, "") if code in {"error", "permission_denied", "parse_error"} else str(code)
    return _refusal(status, known or str(code), message, request, errors=fields, headers=headers)


def _unavailable(error: Exception) -> tuple[str, str]:
    """Code and message for clients. Logs the error, and drops the session unless one statement alone failed."""
    code, message = database.for_clients(error)
    logger.error("database %s: %s", code, database.reason(error))
    if not database.is_of_one_statement(error):
        database.drop_session_after_request()
    return code, message


def _refusal(
    status: int,
    code: str,
    message: str,
    request: Any,
    *,
    errors: Iterable[FieldError] = (),
    headers: Mapping[str, str] | None = None,
    meta: Mapping[str, Any] | None = None,
) -> Response:
    shown_status, shown = body(status, code, message, request, errors=errors, meta=meta)
    return Response(shown, status=shown_status, headers=dict(headers or {}))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _method(request: Any) -> str:
    method = request.method or ""
    return method if method.isascii() and method.isalpha() and len(method) <= 16 else "this method"
