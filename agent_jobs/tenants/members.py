"""The people of an organisation, and the organisations of a person."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from agent_jobs import models

ADMIN, MEMBER = str(models.Membership.Role.ADMIN), str(models.Membership.Role.MEMBER)
MOST_SHOWN = 1_000


@dataclass(frozen=True, slots=True)
class MemberOf:
    org_id: str
    org_name: str
    role: str
    org_number: int


def of_user(user_pk: int) -> Sequence[MemberOf]:
    """The open organisations of an active user, by name."""
    found = models.Membership.objects.filter(user_id=user_pk, user__is_active=True, org__closed_at__isnull=True)
    rows = found.order_by("org__name", "org_id").values_list("org_id", "org__name", "role", "org__number")
    return [MemberOf(*row) for row in rows]


def full_names(org_id: str) -> Mapping[str, str]:
    """The names of an organisation's people by user name; those without a name are left out."""
    found = models.Membership.objects.filter(org_id=org_id)
    rows = found.values_list("user__username", "user__first_name", "user__last_name")[:MOST_SHOWN]
    return {username: f"{first} {last}".strip() for username, first, last in rows if first or last}


def living(asked: Collection[tuple[int, str]]) -> frozenset[tuple[int, str]]:
    """The pairs (user, organisation) among these that are still memberships."""
    if not asked:
        return frozenset()
    users, orgs = {user for user, _ in asked}, {org for _, org in asked}
    found = models.Membership.objects.filter(
        user_id__in=users, org_id__in=orgs, user__is_active=True, org__closed_at__isnull=True
    )
    return frozenset(found.values_list("user_id", "org_id")) & frozenset(asked)
