"""Organisations and their users."""

import re
from decimal import Decimal
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction

from agent_jobs.audit import audit_log
from agent_jobs.errors import Conflict, FieldError, Invalid, NotFound
from agent_jobs.models import Membership, Org
from agent_jobs.models.orgs import ORG_ID_PATTERN
from agent_jobs.specs import MAX_COST, MAX_TOKENS, Actor, money

MAX_NAME = 200
# The quotas of an organisation: column, largest value, meaning.
QUOTAS = {
    "weight": (1_000, "claims in each round over the organizations (1)"),
    "max_waiting_jobs": (1_000_000_000, "jobs that may be SCHEDULED or WAITING at once"),
    "max_running_jobs": (1_000_000_000, "jobs that may be RUNNING at once"),
    "requests_per_minute": (1_000_000_000, "requests of all its tokens together"),
    "max_tokens_per_day": (MAX_TOKENS, "tokens of its model calls on a UTC day"),
    "max_cost_per_day": (MAX_COST, "money for its model calls on a UTC day"),
    "max_stored_bytes": (10**15, "bytes of its jobs, messages and their records"),
    "retention_days": (100_000, "days for which ended jobs are kept"),
}
MONEY = frozenset({"max_cost_per_day"})
_OPERATOR = Actor("system", "operator")
ROLES = tuple(Membership.Role.values)


def create(
    org_id: str,
    *,
    name: str,
    actor: Actor = _OPERATOR,
    allows_commands: bool | None = None,
    **quotas: int | Decimal | str,
) -> tuple[Org, bool]:
    """The organisation, and whether it is new. Calling again changes only the name and what is given beside it.

    `quotas` are columns of QUOTAS; those in MONEY may be texts.
    """
    if not re.match(ORG_ID_PATTERN, org_id):
        form = "must begin with a letter or digit and have up to 64 letters, digits, dots, dashes and underscores"
        raise Invalid(FieldError("org_id", "invalid", form))
    if not name.strip() or len(name) > MAX_NAME or "\x00" in name:
        raise Invalid(FieldError("name", "invalid", f"must be a text of 1 to {MAX_NAME} characters"))
    wanted: dict[str, Any] = {"name": name, **{column: _quota(column, value) for column, value in quotas.items()}}
    if allows_commands is not None:
        wanted["allows_commands"] = allows_commands
    with transaction.atomic():
        known = Org.objects.select_for_update(no_key=True).filter(pk=org_id).first()
        if known is not None and known.closed_at is not None:
            raise _closed(known)
        before = {column: getattr(known, column) for column in wanted} if known else None
        org, is_new = Org.objects.update_or_create(pk=org_id, defaults=wanted)
        audit_log.record_change(org_id, "org", org_id, actor=actor, before=before, after=wanted)
    return org, is_new


def allow_commands(org_id: str, *, is_allowed: bool, with_network: bool = False, actor: Actor) -> None:
    """Let the organisation run commands, or stop it: jobs that wait then fail. Raises NotFound and Conflict.

    `with_network`: its commands may ask for the machine's network; otherwise they may not, or not any more.
    """
    wanted = {"allows_commands": is_allowed, "allows_command_network": is_allowed and with_network}
    with transaction.atomic():
        org = open_org(org_id)
        before = {column: getattr(org, column) for column in wanted}
        Org.objects.filter(pk=org_id).update(**wanted)
        audit_log.record_change(org_id, "org", org_id, actor=actor, before=before, after=wanted)


def number_of(org_id: str) -> int:
    return Org.objects.values_list("number", flat=True).get(pk=org_id)


def _closed(org: Org) -> Conflict:
    if org.is_being_erased:
        message = f"the organization {org.pk!r} has been erased; its id is never used again"
    else:
        message = f"the organization {org.pk!r} is closed; reopen it with manage.py close_org {org.pk} --undo"
    return Conflict(message, code="org_closed")


def open_org(org_id: str) -> Org:
    """The organisation, for commands that change it. Raises NotFound, and Conflict if it is closed."""
    org = Org.objects.filter(pk=org_id).first()
    if org is None:
        raise NotFound("there is no such organization", code="org_not_found")
    if org.closed_at is not None:
        raise _closed(org)
    return org


def _quota(column: str, value: Any) -> int | Decimal:
    most = QUOTAS[column][0]
    if column in MONEY:
        try:
            return money(str(value))
        except ValueError as error:
            raise Invalid(FieldError(column, "invalid", str(error))) from None
    if not (isinstance(value, int) and 1 <= value <= most):
        raise Invalid(FieldError(column, "invalid", f"must be a whole number from 1 to {most}"))
    return value


def create_user(
    org: Org,
    *,
    username: str,
    role: str,
    password: str,
    full_name: str = "",
    resets_password: bool = False,
    actor: Actor = _OPERATOR,
) -> tuple[AbstractBaseUser, bool]:
    """Create a user with this role in the organisation, or update the role. Returns the user and whether it is new.

    The password of an existing user changes only with `resets_password`: the account may be a superuser's or belong to
    other organisations, too.
    """
    if role not in ROLES:
        raise Invalid(FieldError("role", "invalid", f"must be one of {', '.join(ROLES)}"))
    model = get_user_model()
    username = model.normalize_username(username)
    try:
        model._meta.get_field("username").clean(username, None)
    except ValidationError as error:
        raise Invalid(FieldError("username", "invalid", "; ".join(error.messages))) from None
    with transaction.atomic():
        user = model._default_manager.filter(username=username).first()
        is_new = user is None
        if user is None:
            user = model(username=username)
        is_new_password = is_new or (resets_password and not user.check_password(password))
        if is_new_password:
            try:
                validate_password(password, user)
            except ValidationError as error:
                raise Invalid(FieldError("password", "invalid", "; ".join(error.messages))) from None
            user.set_password(password)
            if is_new:
                person: Any = user
                person.first_name, _, person.last_name = full_name.strip()[:150].partition(" ")
            user.save()
        known = Membership.objects.select_for_update().filter(org=org, user=user).first()
        Membership.objects.update_or_create(org=org, user=user, defaults={"role": role})
        if known is None or known.role != role or is_new_password:
            audit_log.record(
                org.pk,
                "member.updated" if known else "member.created",
                user.get_username(),
                actor=actor,
                before={"role": known.role} if known else None,
                after={"role": role, "is_new_password": is_new_password},
            )
    return user, is_new
