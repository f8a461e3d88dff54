"""How a dialect describes its operations and answers in the OpenAPI document."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import GenericAlias, UnionType
from typing import Any, TypeVar
from uuid import UUID

from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers

from agent_jobs.api.fields import Choice, Object
from agent_jobs.api.parsing import Param

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Documentation:
    """Describes the operations of one dialect in the OpenAPI document, under its own heading."""

    title: str
    refusal: type[serializers.Serializer[Any]]
    refused: Sequence[int] = (400, 401, 403, 404, 429, 503)

    def __call__(
        self,
        name: str,
        summary: str,
        answers: Any,
        *,
        request: Any = None,
        query: Mapping[str, Param] | None = None,
        refused: Sequence[int] = (),
    ) -> Callable[[_F], _F]:
        """Decorate a handler with its description. `answers`: the shape of a 200, or shapes by status."""
        return extend_schema(
            operation_id=f"{self.title.lower()}_{name}",
            summary=summary,
            description=summary,
            tags=[self.title],
            request=request,
            parameters=[
                OpenApiParameter(key, dict(param.schema), OpenApiParameter.QUERY, description=param.about)
                for key, param in (query or {}).items()
            ],
            responses={
                **(answers if isinstance(answers, dict) else {200: answers}),
                **dict.fromkeys(refused or self.refused, self.refusal),
            },
        )


@extend_schema_field({"type": "string"})
class WordChoice(Choice):
    """A choice without a named enumeration in the document, because several dialects have a field of that name."""

    def __init__(self, words: Sequence[str], **options: Any) -> None:
        super().__init__(words, **{"help_text": ", ".join(words), **options})


_FIELDS: Mapping[type, type[serializers.Field[Any, Any, Any, Any]]] = {
    str: serializers.CharField,
    int: serializers.IntegerField,
    bool: serializers.BooleanField,
    datetime: serializers.DateTimeField,
    UUID: serializers.UUIDField,
    object: serializers.JSONField,
    dict: Object,
}


@dataclass(frozen=True, slots=True)
class MayLack:
    kind: Any


def shape(name: str, /, **kinds: Any) -> type[serializers.Serializer[Any]]:
    """A serializer that only describes an answer: `shape("Page", total=int, ended_at=datetime | None, data=[Job])`.

    A kind is a type, another shape, a list of one of them, a dict of texts or numbers, `MayLack(kind)` for a key that
    may be absent, or a pair of a kind and a remark.
    """
    return type(name, (serializers.Serializer,), {key: _field(kind) for key, kind in kinds.items()})


def _field(kind: Any, **options: Any) -> Any:
    match kind:
        case MayLack():
            return _field(kind.kind, required=False, **options)
        case (inner, str(remark)):
            return _field(inner, help_text=remark, **options)
        case UnionType():
            return _field(kind.__args__[0], allow_null=True, **options)
        case [inner] if isinstance(inner, type) and issubclass(inner, serializers.Serializer):
            return inner(many=True, **options)
        case [inner]:
            return serializers.ListField(child=_field(inner), **options)
        case GenericAlias():
            return serializers.DictField(child=_field(kind.__args__[1]), **options)
    return (kind if issubclass(kind, serializers.Serializer) else _FIELDS[kind])(**options)
