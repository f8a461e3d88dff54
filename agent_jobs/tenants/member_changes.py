"""Changes the roles of an organisation's people, and removes them. An organisation keeps at least one admin."""

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from agent_jobs.audit import audit_log
from agent_jobs.errors import Conflict, FieldError, Invalid, NotFound
from agent_jobs.models import Membership, Org
from agent_jobs.specs import Actor
from agent_jobs.tenants import members, orgs

Row = Mapping[str, Any]


def listed(org_id: str) -> list[Row]:
    """The people: username, names, role, last sign-in; by name."""
    found = Membership.objects.filter(org_id=org_id).order_by("user__username")
    columns = ("role", "user__username", "user__first_name", "user__last_name", "user__is_active", "user__last_login")
    return list(found.values(*columns)[: members.MOST_SHOWN])


def add(org_id: str, *, username: str, role: str, password: str, actor: Actor) -> None:
    """Add a person. Somebody who has an account keeps their password. Raises Invalid, and Conflict for a member."""
    with transaction.atomic():
        org = Org.objects.select_for_update(no_key=True).get(pk=org_id)
        if Membership.objects.filter(org=org, user__username=username).exists():
            raise Conflict(f"{username!r} is a member already", code="member_exists")
        orgs.create_user(org, username=username, role=role, password=password, actor=actor)


def change_role(org_id: str, username: str, role: str, *, actor: Actor) -> None:
    """Change a person's role. Raises NotFound, Invalid, and Conflict if no admin would be left. The same role is no
    change.
    """
    if role not in orgs.ROLES:
        raise Invalid(FieldError("role", "invalid", f"must be one of {', '.join(orgs.ROLES)}"))
    with transaction.atomic():
        found = _locked(org_id, username)
        if found.role == role:
            return
        before, found.role = found.role, role
        if role != members.ADMIN:
            _require_another_admin(org_id, found)
        found.save(update_fields=["role"])
        audit_log.record(org_id, "member.updated", username, actor=actor, before={"role": before}, after={"role": role})


def remove(org_id: str, username: str, *, actor: Actor) -> None:
    """Remove a person from the organisation; their account stays. Raises NotFound, and Conflict for the last admin."""
    with transaction.atomic():
        found = _locked(org_id, username)
        _require_another_admin(org_id, found)
        before = {"role": found.role}
        found.delete()
        audit_log.record(org_id, "member.removed", username, actor=actor, before=before)


def not_found(username: str) -> NotFound:
    return NotFound(f"there is no member {username[:64]!r}", code="member_not_found")


def _locked(org_id: str, username: str) -> Membership:
    """The membership. The organisation's row is locked, so that two admins cannot remove each other."""
    Org.objects.select_for_update(no_key=True).get(pk=org_id)
    found = Membership.objects.filter(org_id=org_id, user__username=username.replace("\x00", "")).first()
    if found is None:
        raise not_found(username)
    return found


def _require_another_admin(org_id: str, leaving: Membership) -> None:
    others = Membership.objects.filter(org_id=org_id, role=members.ADMIN, user__is_active=True).exclude(pk=leaving.pk)
    if not others.exists():
        raise Conflict("the organization needs at least one admin", code="last_admin")
