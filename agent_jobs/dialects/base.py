"""The frame of all dialects: what a `Dialect` states, and the base of its views.

The views differ from those of the native API: they also take HTTP Basic and `X-API-Key`, they ignore unknown fields
and parameters, they read a body only where they use it, and they replace characters that cannot be stored.
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import QueryDict
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework import serializers
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from agent_jobs.api import errors, parsing
from agent_jobs.api.auth import AppTokenAuthentication
from agent_jobs.api.base import JsonOnly, Resource
from agent_jobs.api.errors import Envelope, RefusedRequest
from agent_jobs.api.parsing import Param
from agent_jobs.catalog import entries
from agent_jobs.errors import FieldError, Invalid, summary
from infra.storable_text import marked

_PLAIN = re.compile(r"(?:bearer|apikey) ([0-9A-Za-z_]{1,100})", re.IGNORECASE)
_BASIC = re.compile(r"basic ([0-9A-Za-z+/]{1,400}={0,2})", re.IGNORECASE)
_ID = re.compile(r"(?:[a-z]+-)?([0-9a-fA-F]{32}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})")


# --- A dialect -------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Dialect:
    """One foreign API. `routes` are its addresses below `mount` (`chadburn/`; "" for the root) and their views.

    `areas` are the beginnings of its addresses at the root: an unknown address there gets its own 404. `envelope` makes
    its error responses.
    """

    name: str
    mount: str
    routes: tuple[tuple[str, type[APIView]], ...]
    envelope: Envelope
    areas: tuple[str, ...] = ("api/v1",)

    def owns(self, path: str) -> bool:
        """Whether an address, without its leading slash, is the dialect's."""
        if self.mount:
            return f"{path}/".startswith(self.mount)
        return self.owns_at_root(path)

    def owns_at_root(self, path: str) -> bool:
        is_in_area = any(path == area or path.startswith(f"{area}/") for area in self.areas)
        return is_in_area or any(path == route for route, _ in self.routes)


# --- Credentials -----------------------------------------------------------------------------------------------
class ForeignAuthentication(AppTokenAuthentication):
    """An app token as Bearer or ApiKey, as the password of HTTP Basic with any user name, or as X-API-Key.

    Go's clients turn `https://user:token@host/` into HTTP Basic by themselves, and can carry nothing else.
    """

    def plain_token(self, request: Request) -> str:
        header = request.META.get("HTTP_AUTHORIZATION") or ""
        if found := _PLAIN.fullmatch(header):
            return found[1]
        if found := _BASIC.fullmatch(header):
            return _password(found[1])
        return str(request.META.get("HTTP_X_API_KEY") or "")[:400]

    def authenticate_header(self, request: Request) -> str:
        return 'Basic realm="agent-jobs"'


def _password(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode("utf-8", "replace").partition(":")[2]
    except (ValueError, binascii.Error):
        return ""


class ForeignScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = ForeignAuthentication
    name = ["bearer", "basic", "apiKey"]

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, str]]:
        return [
            {"type": "http", "scheme": "bearer"},
            {"type": "http", "scheme": "basic", "description": "Any user; the password is an app token."},
            {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        ]

    def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[Any]]]:
        return [{name: []} for name in self.name]


# --- Requests --------------------------------------------------------------------------------------------------
class ForeignJSONParser(BaseParser):
    """Any JSON value, of at most the view's `max_body_bytes`. Characters that PostgreSQL cannot store become U+FFFD."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        view = (parser_context or {}).get("view")
        most = getattr(view, "max_body_bytes", settings.MAX_BODY_BYTES)
        raw = stream.read(most + 1)
        if len(raw) > most:
            raise parsing.BodyTooLarge(most)
        return marked(parsing.read_json(raw, replaces_broken_text=True))


class _JsonIfUnnamed(JsonOnly):
    """Takes a body without a Content-Type for JSON, as the upstreams do."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return super().select_parser(request, parsers) if request.content_type else parsers[0]


class DialectResource(Resource):
    """The base of a dialect's views."""

    content_negotiation_class = _JsonIfUnnamed
    authentication_classes: tuple[type[BaseAuthentication], ...] = (ForeignAuthentication,)
    parser_classes = (ForeignJSONParser,)
    http_method_names = ["get", "head", "post", "put", "patch", "delete"]

    def ensure_job_type(self, org_id: str, key: str, name: str, runner: str) -> None:
        """Create the job type of this dialect's jobs at its first use. Calling twice is safe."""
        values = {"name": name, "runner": runner, "description": "Jobs that came in through a foreign API."}
        entries.ensure(entries.JOB_TYPES, org_id, key, values, actor=self.actor)

    def read_body(self, request: Request) -> None:
        """Leave the body to the views that use it: an empty one is no error for the others."""

    def json(self) -> Any:
        """The body as JSON. Raises ParseError, also for an empty one."""
        if (self.request.META.get("CONTENT_LENGTH") or "0") == "0":
            raise ParseError("the body is empty", code="invalid_json")
        return self.request.data

    def object(self) -> dict[str, Any]:
        """The body as a JSON object. Raises ParseError."""
        found = self.json()
        if not isinstance(found, dict):
            raise ParseError("the body must be a JSON object", code="invalid_json")
        return found

    def fields(self, kind: type[serializers.Serializer[Any]]) -> dict[str, Any]:
        """The known fields of the body, checked. Raises ParseError if it is no object, and Invalid."""
        return checked(kind, self.object())

    def query(self, known: Mapping[str, Param]) -> dict[str, Any]:
        """The values of known parameters; a list for one that may be repeated, else the last. Empty ones count as
        absent. Raises Invalid.
        """
        sent: dict[str, list[str]] = {}
        for name, value in parsing.query_pairs(self.request.META.get("QUERY_STRING", "")):
            if name in known and value.strip():
                sent.setdefault(name, []).append(marked(value))
        values, problems = {}, []
        for name, param in known.items():
            try:
                read = [param.parse(value) for value in sent.get(name, ())]
            except ValueError as error:
                problems.append(FieldError(name, "invalid", str(error)))
                continue
            values[name] = read if param.may_repeat else read[-1] if read else param.default
        if problems:
            raise Invalid(*problems)
        return values

    def with_rest(self, response: Response, offset: int) -> Response:
        """Add a link to the rest of a list that ended at its limit, or at the most bytes of a page."""
        query = QueryDict(self.request.META.get("QUERY_STRING", ""), mutable=True)
        query["offset"] = str(offset)
        response["Link"] = f'<{self.request.path}?{query.urlencode()}>; rel="next"'
        return response


class OpenResource(DialectResource):
    """The base of views that need no credentials: health checks and log-ins."""

    authentication_classes = ()
    permission_classes = ()
    throttle_classes = ()


def checked(kind: type[serializers.Serializer[Any]], value: Any, **options: Any) -> dict[str, Any]:
    """The fields of a JSON object that the serializer knows. Raises Invalid with the names of wrong ones."""
    read = kind(data=value, **options)
    if not read.is_valid():
        raise Invalid(*errors.flatten(read.errors))
    found: dict[str, Any] = read.validated_data
    return found


def read_id(text: str) -> UUID | None:
    """An id with or without dashes, and with or without a prefix such as `exec-`; None for any other text."""
    found = _ID.fullmatch(text)
    return UUID(found[1]) if found else None


# Codes of errors by their status, where a dialect has no other one.
ERROR_CODES: Mapping[int, str] = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    411: "length_required",
    413: "payload_too_large",
    415: "unsupported_media_type",
    422: "unprocessable_entity",
    500: "internal_error",
}


# --- Answers ---------------------------------------------------------------------------------------------------
def instant(at: datetime) -> str:
    """RFC 3339 in UTC, with a fraction only where there is one: `2026-01-31T09:00:00Z`."""
    text = at.astimezone(UTC).isoformat(timespec="microseconds")[:-6]
    return f"{text.rstrip('0').rstrip('.')}Z"


def instant_or_none(at: datetime | None) -> str | None:
    return instant(at) if at is not None else None


def renamed(problems: Sequence[FieldError], names: Mapping[str, str]) -> tuple[FieldError, ...]:
    """Errors with the dialect's names of fields. `names` maps beginnings of our names to those of the dialect.

    In a list a name begins with the place of its item, counted from 0: `3.work.type`.
    """
    return tuple(FieldError(_renamed(one.field, names), one.code, one.message) for one in problems)


def told(
    refused: RefusedRequest, names: Mapping[str, str], codes: Mapping[int, str], own: Sequence[str]
) -> tuple[str, str]:
    """The code and the message of an error. `own`: those of our codes that the dialect has too; for every other error
    it has a code by the status.
    """
    problems = renamed(refused.errors, names)
    stated = next((code for code in (refused.code, *(one.code for one in problems)) if code in own), None)
    return stated or codes.get(refused.status, refused.code), summary(problems) or refused.message


def _renamed(name: str, names: Mapping[str, str]) -> str:
    place, _, inner = name.partition(".")
    if place.isdigit():
        return f"{place}.{_renamed(inner, names)}".rstrip(".")
    for ours, theirs in names.items():
        if name == ours or name.startswith(f"{ours}."):
            return f"{theirs}{name[len(ours) :]}".removeprefix(".")
    return name
