"""Pagination of lists: `limit`, `offset`, `sort`, and an opaque `cursor` for pages far down."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.core import signing

from agent_jobs.api import parsing
from agent_jobs.api.parsing import Param
from agent_jobs.errors import FieldError, Invalid
from agent_jobs.reads.pages import MAX_BYTES, Order, Row, Window

DEFAULT_LIMIT = 50
MAX_LIMIT = 1_000
MAX_OFFSET = 1_000_000_000
MAX_SORTS = 3
_ABOUT_LIMIT = (
    f"How many to return at most. An answer ends early once its texts and JSON have {MAX_BYTES >> 20} MiB. Then"
    " `meta.count` is smaller, and `meta.next_cursor` continues the list."
)


@dataclass(frozen=True, slots=True)
class Sorting:
    """The sort fields of a list. `columns`: client name to column, `{"job_status": "status"}`. `default` is a value of
    `sort`. `name` ties cursors to this list. `key`, a unique column, comes last in every order.
    """

    name: str
    columns: Mapping[str, str]
    default: str
    key: str = "id"
    # The second sort column of a list that is sorted by one column only. Its direction is the opposite one, as in the
    # index that serves this order.
    then: Mapping[str, str] = field(default_factory=dict)
    # Names without an index: they may follow another name, but not come first.
    not_first: frozenset[str] = frozenset()

    def params(self) -> dict[str, Param]:
        return {
            "limit": parsing.whole(1, MAX_LIMIT, default=DEFAULT_LIMIT, about=_ABOUT_LIMIT),
            "offset": parsing.whole(0, MAX_OFFSET, default=0, about="How many to skip."),
            "sort": Param(
                self.read,
                f"`field:asc`, `field:desc` or `-field`; up to {MAX_SORTS}, with commas. "
                f"The fields are {', '.join(self.columns)}.",
                {"type": "string", "default": self.default},
            ),
            "cursor": Param(
                self.read_cursor,
                "Goes on where a page ended: send its `meta.next_cursor`, with the same filters, without `offset`.",
                {"type": "string"},
            ),
        }

    def read(self, text: str) -> tuple[tuple[str, bool], ...]:
        """A value of `sort` as names, with True for descending ones; ValueError says what is wrong with it.

        `"-created_at,job_status:asc"` → `(("created_at", True), ("job_status", False))`
        """
        found = []
        for part in text.split(","):
            name, separator, direction = part.partition(":")
            is_descending = direction.lower() == "desc"
            if name.startswith("-") and not separator:
                name, is_descending = name[1:], True
            elif separator and direction.lower() not in {"asc", "desc"}:
                raise ValueError("must be field:asc, field:desc or -field")
            if name not in self.columns:
                raise ValueError(f"must name one of {', '.join(self.columns)}")
            found.append((name, is_descending))
        if found[0][0] in self.not_first:
            raise ValueError(f"must not begin with {found[0][0]}: name another field before it")
        if len(found) > MAX_SORTS or len({name for name, _ in found}) < len(found):
            raise ValueError(f"may name at most {MAX_SORTS} fields, each once")
        return tuple(found)

    def read_cursor(self, text: str) -> dict[str, Any]:
        try:
            cursor: dict[str, Any] = self.signer.unsign_object(text)
            return cursor
        except signing.BadSignature:
            raise ValueError("is not a cursor of this list") from None

    @property
    def signer(self) -> signing.Signer:
        return signing.Signer(salt=f"agent_jobs.cursor.{self.name}")


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list: the window to query, and the `meta` for the client."""

    sorting: Sorting
    window: Window
    sorts: tuple[tuple[str, bool], ...]

    def meta(self, rows: Sequence[Row], *, total: int, has_more: bool) -> dict[str, Any]:
        meta: dict[str, Any] = {
            "limit": self.window.limit,
            "offset": self.window.offset,
            "count": len(rows),
            "total": total,
            "sort": [
                {"field": name, "direction": "desc" if is_descending else "asc"} for name, is_descending in self.sorts
            ],
        }
        if has_more:
            values = [_packed(rows[-1][by.column]) for by in self.window.order]
            meta["next_cursor"] = self.sorting.signer.sign_object({"sort": self.sorts, "after": values}, compress=True)
        return meta


def place(sorting: Sorting, query: Mapping[str, Any]) -> Page:
    """The page that a query asks for. Raises Invalid if a cursor contradicts the other parameters."""
    sorts, after = query["sort"], None
    if (cursor := query["cursor"]) is not None:
        kept = tuple((name, is_descending) for name, is_descending in cursor["sort"])
        if query["offset"]:
            raise Invalid(FieldError("offset", "invalid", "cannot be combined with a cursor"))
        if sorts is not None and sorts != kept:
            raise Invalid(FieldError("cursor", "invalid", "does not match this sort order"))
        sorts, after = kept, tuple(_unpacked(value) for value in cursor["after"])
    sorts = sorts or sorting.read(sorting.default)
    order = tuple(Order(sorting.columns[name], is_descending) for name, is_descending in sorts)
    if len(order) == 1 and (column := sorting.then.get(order[0].column)):
        order += (Order(column, not order[0].is_descending),)
    if sorting.key not in {by.column for by in order}:
        order += (Order(sorting.key, order[-1].is_descending),)
    if after is not None and len(after) != len(order):  # another release made it
        raise Invalid(FieldError("cursor", "invalid", "is not a cursor of this list"))
    return Page(sorting, Window(order, query["limit"], query["offset"], after), sorts)


def _packed(value: Any) -> Any:
    if isinstance(value, datetime):
        return {"at": value.isoformat()}
    return str(value) if isinstance(value, UUID) else value


def _unpacked(value: Any) -> Any:
    return datetime.fromisoformat(value["at"]) if isinstance(value, dict) else value
