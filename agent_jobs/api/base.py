"""The base class of all views: runs the steps of a request in the order that decides which error wins.

401, then 429, then 403 for the scope, then 411, 413 and 415, then invalid JSON, then (together) errors in query and
fields. Only then does a view look anything up: 404 for organisation, type or profile, 403 or 404 for the object, 409,
422.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django_filters import FilterSet  # type: ignore[import-untyped]
from rest_framework import serializers
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.permissions import SAFE_METHODS
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from agent_jobs.api import errors, filters, paging, parsing, throttling
from agent_jobs.api.parsing import Param
from agent_jobs.errors import FieldError, Forbidden, Invalid, NotFound
from agent_jobs.jobs import idempotency
from agent_jobs.reads import pages, queries
from agent_jobs.specs import Actor

# A key in the WSGI environment: this request runs again, after the wait (an OpenAnswer) that is its value.
HAS_WAITED = "agent_jobs.has_waited"
_PREFIXES = ("/api/v0",)
# Every operation takes these: clients of the document send `org_id` with each request.
COMMON_QUERY = {"org_id": parsing.text(about="The token's own organization; any other gets a 403.")}


class JsonOnly(BaseContentNegotiation):
    """Always answers JSON and ignores `Accept`. Chooses the body's parser by Content-Type."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        kind = (request.content_type or "").partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == kind), None)

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked request: parameters with defaults, names of those sent, the body's fields, the filtered rows, and the
    page of a list.
    """

    query: Mapping[str, Any]
    sent: frozenset[str] = frozenset()
    body: Mapping[str, Any] = field(default_factory=dict)
    rows: Any = None
    page: Any = None


class Resource(APIView):
    """The base of every view of the native API. `self.org_id` comes from the token alone."""

    content_negotiation_class = JsonOnly
    throttle_classes: tuple[type[BaseThrottle], ...] = (throttling.ByToken,)
    # The web process reads larger bodies only for addresses whose view says so.
    max_body_bytes = settings.MAX_BODY_BYTES

    def check_permissions(self, request: Request) -> None:
        """Checks rate limits before the scope. In REST framework's order, requests without the scope would not
        count.
        """
        if HAS_WAITED not in request.META:  # already counted before it waited
            super().check_throttles(request)
        super().check_permissions(request)

    def check_throttles(self, request: Request) -> None:
        """Does nothing here: `check_permissions` checks the limits."""

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        throttling.add_headers(request, response)
        return response

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        method = (request.method or "").lower()
        if method not in self.http_method_names or not hasattr(self, method):
            raise MethodNotAllowed(method.upper())
        if request.method not in SAFE_METHODS:
            parsing.check_transfer(request, most=self.max_body_bytes)
            self.read_body(request)

    def read_body(self, request: Request) -> None:
        """Read and check the body before the view runs."""
        request.data  # noqa: B018 - reads it

    @property
    def token(self) -> Any:
        return self.request.auth

    @property
    def org_id(self) -> str:
        return str(self.token.org_id)

    @property
    def owner(self) -> dict[str, Any]:
        """The owner of an open answer (`streams`), which ends with the token."""
        return {"org_id": self.org_id, "token_pk": self.token.pk}

    @property
    def actor(self) -> Actor:
        actor: Actor = self.request.user  # type: ignore[assignment]
        return actor

    def asked(
        self,
        *,
        query: Mapping[str, Param] | None = None,
        sorting: paging.Sorting | None = None,
        body: type[serializers.Serializer[Any]] | None = None,
        rows: QuerySet[Any] | None = None,
        filtered: type[FilterSet] | None = None,
        partial: bool = False,
        check: Callable[[Mapping[str, Any]], list[FieldError]] = lambda fields: [],
    ) -> Asked:
        """Read query and body. Raises one Invalid with all errors in both.

        Raises Forbidden if the query names another organization than the token's.

        `check` finds errors that the serializer cannot express; it gets the fields that the serializer has accepted.
        """
        pairs = parsing.query_pairs(self.request.META.get("QUERY_STRING", ""))
        known = {**COMMON_QUERY, **(sorting.params() if sorting else {}), **(query or {})}
        by = filters.params(filters.stated(filtered, (name for name, _ in pairs))) if filtered else {}
        sent, problems = parsing.gather(pairs, {**known, **by})
        values, invalid = parsing.read(known, sent)
        problems += invalid
        if filtered:
            rows, invalid = filters.narrowed(rows, filtered, {name: sent[name] for name in by if name in sent})
            problems += invalid
        fields: Mapping[str, Any] = {}
        if body is not None:
            read = body(data=self.request.data, partial=partial)
            if read.is_valid():
                fields = read.validated_data
                problems += check(fields)
            else:
                problems += errors.flatten(read.errors)
        elif self.request.method not in SAFE_METHODS and self.request.data:
            problems.append(FieldError("body", "invalid", "must be empty here"))
        if problems:
            raise Invalid(*problems)
        asked = {name: values.get(name, param.default) for name, param in known.items()}
        self._refuse_other_org(asked["org_id"])
        page = paging.place(sorting, asked) if sorting else None
        return Asked(asked, frozenset(sent), fields, rows, page)

    def meta(self, identity: object) -> dict[str, Any]:
        return {"org_id": self.org_id, "id": str(identity)}

    def listed(
        self,
        asked: Asked,
        rows: QuerySet[Any],
        columns: Sequence[str],
        shown: Callable[[list[queries.Row]], list[dict[str, Any]]],
        *,
        more_bytes: Any = None,
    ) -> Response:
        """The answer with the page of `rows` that was asked for with a `sorting`. `shown` turns its rows into JSON."""
        found, has_more = pages.page(rows, asked.page.window, columns, more_bytes=more_bytes)
        meta = asked.page.meta(found, total=rows.count(), has_more=has_more)
        return Response({"data": shown(found), "meta": {"org_id": self.org_id, **meta}})

    def require_org(self, org_id: str) -> None:
        """Raise NotFound for any other organisation, as if it did not exist."""
        if org_id != self.org_id:
            denied = ("organization", org_id)
            raise NotFound("there is no such organization", code="org_not_found", denied=denied)

    def _refuse_other_org(self, org_id: str | None) -> None:
        """Raise Forbidden for any other organisation. The response does not reveal whether that one exists."""
        if org_id is not None and org_id != self.org_id:
            raise Forbidden("the token belongs to a different organization", denied=("organization", org_id))

    def once(
        self,
        effect: Callable[[], tuple[int, Mapping[str, Any]]],
        *,
        secrets: Mapping[str, str] = MappingProxyType({}),
    ) -> HttpResponseBase:
        """Run a POST's effect, once for each Idempotency-Key if the client sent one.

        `secrets`, which the effect may fill, are shown in the first response's `data` and never stored.
        """
        key = self.request.META.get("HTTP_IDEMPOTENCY_KEY")
        if key is None:
            status, answer = effect()
            return Response(_with(secrets, answer), status=status)
        if not (0 < len(key) <= idempotency.MAX_KEY and key.isascii() and key.isprintable() and key.strip()):
            message = f"must be 1 to {idempotency.MAX_KEY} printable ASCII characters"
            raise Invalid(FieldError("Idempotency-Key", "invalid", message))

        def rendered() -> idempotency.StoredAnswer:
            status, answer = effect()
            return idempotency.StoredAnswer(status, JSONRenderer().render(answer).decode())

        kept = idempotency.once(self.org_id, key, fingerprint=_fingerprint(self.request), effect=rendered)
        if not kept.is_repeated:
            return Response(_with(secrets, json.loads(kept.text)), status=kept.status_code)
        response = HttpResponse(kept.text, status=kept.status_code, content_type="application/json")
        response["Idempotency-Replayed"] = "true"
        return response


def _with(secrets: Mapping[str, str], answer: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**answer, "data": {**answer["data"], **secrets}} if secrets else answer


def each(show: Callable[[queries.Row], dict[str, Any]]) -> Callable[[list[queries.Row]], list[dict[str, Any]]]:
    """Adapt a function that shows one row to `Resource.listed`, which hands over all rows of a page."""
    return lambda rows: [show(row) for row in rows]


def read_id(text: str, not_found: Callable[[str], NotFound]) -> UUID:
    """Parse an id in an address. Malformed text raises the same NotFound as an unknown id."""
    try:
        return parsing.read_uuid(text)
    except ValueError:
        raise not_found(text) from None


def read_job_id(text: str) -> UUID:
    return read_id(text, queries.job_not_found)


def _fingerprint(request: HttpRequest | Request) -> str:
    """Hash the request's meaning: spaces and key order in the JSON, and the URL's prefix, do not count."""
    path = request.path
    for prefix in _PREFIXES:
        path = path.removeprefix(prefix)
    query = json.dumps(sorted(parsing.query_pairs(request.META.get("QUERY_STRING", ""))))
    body = json.dumps(request.data, sort_keys=True)  # type: ignore[union-attr]
    return idempotency.fingerprint(request.method or "", path, query, body)
