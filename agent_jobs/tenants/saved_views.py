"""A person's saved filters of the jobs list."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent_jobs.errors import Conflict, FieldError, Invalid
from agent_jobs.models import SavedView

MOST_VIEWS = 20
MAX_NAME = 60
MAX_QUERY = 2_000


@dataclass(frozen=True, slots=True)
class NamedView:
    id: int
    name: str
    query: str


def of_user(org_id: str, user_pk: int) -> Sequence[NamedView]:
    """Oldest first."""
    rows = SavedView.objects.filter(user_id=user_pk, org_id=org_id).order_by("id").values_list("id", "name", "query")
    return [NamedView(*row) for row in rows[:MOST_VIEWS]]


def save(org_id: str, user_pk: int, *, name: str, query: str) -> None:
    """Save a view, or replace the one of this name."""
    name = " ".join(name.split())
    if not 1 <= len(name) <= MAX_NAME or "\x00" in name:
        raise Invalid(FieldError("name", "invalid", f"must be a text of 1 to {MAX_NAME} characters"))
    if len(query) > MAX_QUERY:
        raise Invalid(FieldError("query", "invalid", f"may have at most {MAX_QUERY} characters"))
    known = SavedView.objects.filter(user_id=user_pk, org_id=org_id)
    if not known.filter(name=name).exists() and known.count() >= MOST_VIEWS:
        raise Conflict(f"there are {MOST_VIEWS} saved views already; remove one first", code="too_many_views")
    SavedView.objects.update_or_create(user_id=user_pk, org_id=org_id, name=name, defaults={"query": query})


def remove(org_id: str, user_pk: int, view_id: int) -> bool:
    return bool(SavedView.objects.filter(pk=view_id, user_id=user_pk, org_id=org_id).delete()[0])
