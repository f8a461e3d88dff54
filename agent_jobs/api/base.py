"""What every resource's view does alike, in the order that decides which error wins.

401, then 403 for the scope, then 411, 413 and 415, then what is wrong with the JSON, then (together) with query and
fields, and only then is anything looked up: 404 for organisation, type or profile, 403 or 404 for the object, 409, 422.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django_filters import FilterSet
from rest_framework import serializers
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.permissions import SAFE_METHODS
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from agent_jobs import queries
from agent_jobs.api import errors, filters, paging, parsing
from agent_jobs.api.parsing import Param
from agent_jobs.errors import FieldError, Forbidden, Invalid, NotFound
from agent_jobs.services import idempotency
from agent_jobs.specs import Actor

_PREFIXES = ("/api/v0",)


class JsonOnly(BaseContentNegotiation):
    """Answers are JSON, whatever `Accept` says; bodies are taken by their Content-Type."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        kind = (request.content_type or "").partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == kind), None)

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asked for: parameters (with defaults), the body's fields, and the rows that its filters leave."""

    query: Mapping[str, Any]
    sent: frozenset[str] = frozenset()
    body: Mapping[str, Any] = field(default_factory=dict)
    rows: Any = None


class StrictSerializer(serializers.Serializer[Any]):
    """A serializer that refuses fields it does not know."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping) and (unknown := [key for key in data if key not in self.fields]):
            known = ", ".join(name for name, at in self.fields.items() if not at.read_only)
            message = serializers.ErrorDetail(f"is not a field here; the fields are {known}", "unknown_field")
            problems: dict[str, Any] = {key: [message] for key in unknown}
            try:
                super().to_internal_value(data)
            except serializers.ValidationError as error:
                if isinstance(error.detail, dict):
                    problems = {**error.detail, **problems}
            raise serializers.ValidationError(problems)
        return super().to_internal_value(data)


class Text(serializers.CharField):
    """Text as it is: numbers and flags are not taken for text, nothing is trimmed, blanks alone are not a value."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", parsing.MAX_TEXT)
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise serializers.ValidationError("must be a text", code="invalid")
        if not data.strip() and not self.allow_blank:
            self.fail("blank")
        return super().to_internal_value(data)


class Whole(serializers.IntegerField):
    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, int) or isinstance(data, bool):
            raise serializers.ValidationError("must be a whole number", code="invalid")
        return super().to_internal_value(data)


class Flag(serializers.BooleanField):
    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            raise serializers.ValidationError("must be true or false", code="invalid")
        return data


class Moment(serializers.DateTimeField):
    def to_internal_value(self, value: Any) -> Any:
        if not isinstance(value, str):
            raise serializers.ValidationError(parsing.MOMENT_FORM, code="invalid")
        try:
            return parsing.moment(value)
        except ValueError as error:
            raise serializers.ValidationError(str(error), code="invalid") from None


class Object(serializers.JSONField):
    """A JSON object with anything in it."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            raise serializers.ValidationError("must be an object", code="invalid")
        return data


class Tags(serializers.Field):  # type: ignore[type-arg]
    """A list of texts, or one text with commas; without repeats, in the order sent."""

    MOST = 50
    LONGEST = 64

    def to_internal_value(self, data: Any) -> list[str]:
        found = data.split(",") if isinstance(data, str) else data
        if not isinstance(found, list) or not all(isinstance(tag, str) for tag in found):
            raise serializers.ValidationError("must be a list of texts or a text with commas", code="invalid")
        tags = list(dict.fromkeys(tag.strip() for tag in found))
        if data == "" or data == []:
            return []
        if len(tags) > self.MOST:
            raise serializers.ValidationError(f"may be at most {self.MOST}", code="too_many")
        if not all(tag and len(tag) <= self.LONGEST and "," not in tag for tag in tags):
            raise serializers.ValidationError(
                f"must have 1 to {self.LONGEST} characters each, and no comma", code="invalid"
            )
        return tags

    def to_representation(self, value: Any) -> Any:
        return value


class Resource(APIView):
    """Every view of the native API. `self.org_id` comes from the token and from nowhere else."""

    content_negotiation_class = JsonOnly

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        method = (request.method or "").lower()
        if method not in self.http_method_names or not hasattr(self, method):
            raise MethodNotAllowed(method.upper())
        if request.method not in SAFE_METHODS:
            parsing.check_length(request)
            request.data  # noqa: B018 - reads and checks the body before anything else is looked at

    @property
    def org_id(self) -> str:
        return str(self.request.auth.org_id)

    @property
    def actor(self) -> Actor:
        actor: Actor = self.request.user  # type: ignore[assignment]
        return actor

    def asked(
        self,
        *,
        query: Mapping[str, Param] | None = None,
        body: type[serializers.Serializer[Any]] | None = None,
        rows: QuerySet[Any] | None = None,
        filtered: type[FilterSet] | None = None,
        partial: bool = False,
        check: Callable[[Mapping[str, Any]], list[FieldError]] = lambda fields: [],
    ) -> Asked:
        """Read query and body; everything that is wrong with either is told at once, as one Invalid.

        `check` looks for what a serializer cannot say, in the fields that have passed it.
        """
        known, by = dict(query or {}), filters.params(filtered) if filtered else {}
        pairs = parsing.query_pairs(self.request.META.get("QUERY_STRING", ""))
        sent, problems = parsing.gather(pairs, {**known, **by})
        values = {}
        for name, param in known.items():
            try:
                values[name] = param.parse(sent[name]) if name in sent else param.default
            except ValueError as error:
                problems.append(FieldError(name, "invalid", str(error)))
        if filtered is not None:
            found = filtered({name: sent[name] for name in by if name in sent}, queryset=rows)
            problems += [
                FieldError(name, "invalid", message)
                for name, messages in found.form.errors.items()
                for message in messages
            ]
            rows = None if problems else found.qs
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
        return Asked(values, frozenset(sent), fields, rows)

    def listed(self, asked: Asked, sorting: paging.Sorting) -> paging.Page:
        return paging.place(sorting, asked.query)

    def require_org(self, org_id: str) -> None:
        """Another organisation is as if it were not there."""
        if org_id != self.org_id:
            raise NotFound("there is no such organization", code="org_not_found")

    def refuse_other_org(self, org_id: str | None) -> None:
        """For a filter by organisation: there is no list of another one's, whether it exists or not."""
        if org_id is not None and org_id != self.org_id:
            raise Forbidden("the token belongs to a different organization")

    def once(self, effect: Callable[[], tuple[int, Mapping[str, Any]]]) -> HttpResponseBase:
        """Run a POST's effect, once for each Idempotency-Key where the client sent one."""
        key = self.request.META.get("HTTP_IDEMPOTENCY_KEY")
        if key is None:
            status, answer = effect()
            return Response(answer, status=status)
        if not (0 < len(key) <= idempotency.MAX_KEY and key.isascii() and key.isprintable() and key.strip()):
            message = f"must be 1 to {idempotency.MAX_KEY} printable ASCII characters"
            raise Invalid(FieldError("Idempotency-Key", "invalid", message))

        def rendered() -> idempotency.Answer:
            status, answer = effect()
            return idempotency.Answer(status, JSONRenderer().render(answer).decode())

        kept = idempotency.once(self.org_id, key, fingerprint=_fingerprint(self.request), effect=rendered)
        response = HttpResponse(kept.text, status=kept.status_code, content_type="application/json")
        if kept.is_repeated:
            response["Idempotency-Replayed"] = "true"
        return response


def read_job_id(text: str) -> UUID:
    """What cannot be an id is the id of no job."""
    try:
        return filters.read_uuid(text)
    except ValueError:
        raise queries.job_not_found(text) from None


def _fingerprint(request: HttpRequest | Request) -> str:
    """Of what the request says, not of how it is written down: spaces, and the prefix it came under, do not count."""
    path = request.path
    for prefix in _PREFIXES:
        path = path.removeprefix(prefix)
    query = json.dumps(sorted(parsing.query_pairs(request.META.get("QUERY_STRING", ""))))
    body = json.dumps(request.data, sort_keys=True)  # type: ignore[union-attr]
    return idempotency.fingerprint(request.method or "", path, query, body)
