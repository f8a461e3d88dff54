"""Describes all operations for the OpenAPI document in the same way, and serves the document and its pages."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from django.http import HttpRequest
from django_filters import FilterSet  # type: ignore[import-untyped]
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema, inline_serializer
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework import serializers
from rest_framework.negotiation import DefaultContentNegotiation

from agent_jobs.api import filters, throttling
from agent_jobs.api.auth import AppTokenAuthentication
from agent_jobs.api.base import COMMON_QUERY
from agent_jobs.api.paging import Sorting
from agent_jobs.api.parsing import Param

_F = TypeVar("_F", bound=Callable[..., Any])

REFUSALS: Mapping[int, tuple[str, str, str]] = {
    400: ("bad_request", "invalid", "The request is invalid; `errors` names each field and parameter."),
    401: ("unauthenticated", "unauthenticated", "No valid app token."),
    403: ("forbidden", "insufficient_scope", "The token's scopes do not allow it, or another organization owns it."),
    404: ("not_found", "not_found", "No such object exists in the token's organization."),
    409: ("conflict", "conflict", "The object's state does not allow it, or its Idempotency-Key is in progress."),
    411: ("length_required", "length_required", "The body came without a Content-Length."),
    413: ("too_large", "body_too_large", "The body is larger than 256 KiB."),
    415: ("unsupported_media_type", "unsupported_media_type", "The body is not application/json."),
    429: ("throttled", "throttled", "Too many requests; `Retry-After` says when to try again."),
    422: ("key_reused", "idempotency_key_reused", "Another request has used this Idempotency-Key before."),
    503: (
        "unavailable",
        "unavailable",
        "The database cannot be reached. Or (`busy`) other requests hold the same rows, the database is slow, or too "
        "many costly schemas and templates wait. `Retry-After` says when to try again.",
    ),
}
_READING = (400, 401, 403, 429, 503)
_WRITING = (400, 401, 403, 411, 413, 415, 429, 503)
_IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255},
    OpenApiParameter.HEADER,
    description="A repeated request with the same key gets the first answer again, for 48 hours.",
)

_HEADERS = (
    OpenApiParameter(
        "X-Request-ID", str, OpenApiParameter.HEADER, required=True, response=True, description="The request's id."
    ),
    OpenApiParameter(
        "RateLimit-Policy",
        str,
        OpenApiParameter.HEADER,
        response=True,
        description='Requests (q) allowed in a window of seconds (w): `"token";q=6000;w=60, "org";q=12000;w=60`.',
    ),
    OpenApiParameter(
        "RateLimit",
        str,
        OpenApiParameter.HEADER,
        response=True,
        description='Requests left (r), and for how many seconds (t): `"token";r=5999;t=60, "org";r=11999;t=60`.',
    ),
    OpenApiParameter(
        "Retry-After",
        int,
        OpenApiParameter.HEADER,
        required=True,
        response=[429, 503],
        description="Seconds to wait before another try.",
    ),
)

# The headings of the documentation page, by the start of an operation's path.
_TAGS = {
    "/services/agent-jobs": "Jobs",
    "/services/agent-schedules": "Schedules",
    "/services/approvals": "Jobs",
    "/services/activities": "Activities",
    "/services/organizations": "Catalogue",
    "/services/executors": "Executors",
    "/services/usage": "Usage",
    "/services/stats": "Statistics",
    "/services/workers": "Statistics",
    "/services/channels": "Channels",
    "/services/webhook-endpoints": "Webhooks",
    "/services/app-tokens": "Administration",
    "/services/audit": "Administration",
    "/services/tool-secrets": "Administration",
    "/health": "Health",
}


def put_under_headings(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """drf-spectacular's post-processing hook (settings.SPECTACULAR_SETTINGS): tags each operation with its heading.

    Dialects state their headings themselves.
    """
    for address, operations in result["paths"].items():
        found = [tag for prefix, tag in _TAGS.items() if address.startswith(prefix)]
        for described in operations.values():
            described["tags"] = found or described["tags"]
    return result


class AppTokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = AppTokenAuthentication
    name = "appToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "ajt_live_…",
            "description": "An app token. GET needs the scope SERVICES:READ, everything else SERVICES:WRITE;"
            " calls of executors need SERVICES:EXECUTE; operations under Administration, and keys for models, need"
            " SERVICES:ADMIN, which implies all others.",
        }


class FieldProblem(serializers.Serializer[Any]):
    field = serializers.CharField()
    code = serializers.CharField()
    message = serializers.CharField()


class RequestMeta(serializers.Serializer[Any]):
    request_id = serializers.CharField()


class Refusal(serializers.Serializer[Any]):
    code = serializers.CharField(help_text="For machines; never changes.")
    message = serializers.CharField(help_text="For people.")
    errors = FieldProblem(many=True)  # type: ignore[assignment]
    meta = RequestMeta()


class SortMeta(serializers.Serializer[Any]):
    field = serializers.CharField()
    direction = serializers.ChoiceField(["asc", "desc"])


class PageMeta(serializers.Serializer[Any]):
    org_id = serializers.CharField()
    limit = serializers.IntegerField()
    offset = serializers.IntegerField()
    count = serializers.IntegerField(help_text="How many are in this answer; add it to `offset` for the next page.")
    total = serializers.IntegerField(help_text="How many there are under these filters.")
    sort = SortMeta(many=True)
    next_cursor = serializers.CharField(required=False, help_text="Only where more follow.")


class ItemMeta(serializers.Serializer[Any]):
    org_id = serializers.CharField()
    id = serializers.CharField()


_Shape = type[serializers.Serializer[Any]]


def item_of(name: str, shape: _Shape, meta: _Shape = ItemMeta, *, has_message: bool = False) -> Any:
    """An answer with one object. `name` is the name in the document."""
    fields: dict[str, Any] = {"data": shape(), "meta": meta()}
    return inline_serializer(name, {**fields, "message": serializers.CharField()} if has_message else fields)


def page_of(name: str, shape: _Shape, meta: _Shape = PageMeta) -> Any:
    return inline_serializer(name, {"data": shape(many=True), "meta": meta()})


def removal(name: str, meta: _Shape = ItemMeta) -> Any:
    """The answer to a DELETE."""
    return inline_serializer(name, {"meta": meta(), "message": serializers.CharField()})


def operation(
    name: str,
    summary: str,
    *,
    answers: Mapping[Any, Any],
    refused: Sequence[int] = (),
    request: Any = None,
    query: Mapping[str, Param] | None = None,
    sorting: Sorting | None = None,
    filtered: type[FilterSet] | None = None,
    has_key: bool = True,
    may_be_missing: bool = True,
    examples: Sequence[OpenApiExample] = (),
    headers: Sequence[OpenApiParameter] = (),
    description: str = "",
) -> Callable[[_F], _F]:
    """Describe one handler. Adds the error responses of all reads or all writes to the operation's own, and a 404 where
    the address names an object, unless `may_be_missing` is false.

    A POST takes an Idempotency-Key, unless `has_key` is false.
    """
    params = {**COMMON_QUERY, **(query or {}), **(filters.params(filters.stated(filtered)) if filtered else {})}
    params |= sorting.params() if sorting else {}

    def describe(handler: _F) -> _F:
        is_repeatable = handler.__name__ == "post" and has_key
        common = _WRITING if request is not None or is_repeatable else _READING
        has_id = may_be_missing and len(inspect.signature(handler).parameters) > 2  # besides self and the request
        codes = sorted({*common, *refused, *((409, 422) if is_repeatable else ()), *((404,) if has_id else ())})
        described = extend_schema(
            operation_id=name,
            summary=summary,
            description=description or summary,
            request=request,
            parameters=[_parameter(key, param) for key, param in params.items()]
            + [_IDEMPOTENCY_KEY] * is_repeatable
            + [*headers, *_HEADERS],
            responses={**answers, **{code: _refusal(code) for code in codes}},
            examples=list(examples),
        )
        return described(handler)

    return describe


def _parameter(name: str, param: Param) -> OpenApiParameter:
    return OpenApiParameter(name, dict(param.schema), OpenApiParameter.QUERY, description=param.about)


def _refusal(status: int) -> OpenApiResponse:
    title, code, description = REFUSALS[status]
    body = {"code": code, "message": description, "errors": [], "meta": {"request_id": "0193…"}}
    example = OpenApiExample(title, body, response_only=True, status_codes=[str(status)])
    return OpenApiResponse(Refusal, description=description, examples=[example])


class Schema(SpectacularAPIView):
    """The OpenAPI document; YAML, or JSON with `?format=json`."""

    content_negotiation_class = DefaultContentNegotiation
    authentication_classes = ()
    permission_classes = ()
    throttle_classes = (throttling.ByAddress,)


class Docs(SpectacularSwaggerSplitView):
    """Swagger UI for the document. This server serves all its files; the policy forbids requests to other hosts."""

    content_negotiation_class = DefaultContentNegotiation
    authentication_classes = ()
    permission_classes = ()
    schema = None
    POLICY = (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
        " connect-src 'self'; font-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    )

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        response = super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]
        if "settings" in response.data:
            # Without a null here the page shows a badge that sends the document's address to a public validator.
            response.data["settings"] = json.dumps({"deepLinking": True, "validatorUrl": None})
        response["Content-Security-Policy"] = self.POLICY
        return response
