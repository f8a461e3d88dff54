"""Handles the buttons under our messages. Each decides an approval; its value is `approve:<id>` or `deny:<id>`."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models.fields.json import KT
from django.db.models.functions import Now

from agent_jobs.approvals import decisions
from agent_jobs.approvers import Person
from agent_jobs.audit import audit_log
from agent_jobs.errors import Conflict, FieldError, Forbidden, Invalid, NotFound
from agent_jobs.lifecycle import activities, approval_closing
from agent_jobs.models import Activity, Approval
from agent_jobs.specs import Actor
from agent_jobs.states import SourceType
from channels_integration.messages import Incoming

# Longer than people who press at the same moment are apart.
_TIME_TO_CLOSE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Editable:
    """The action that a button approves, and the JSON schema of arguments that may replace the agent's."""

    arguments: Mapping[str, Any]
    schema: Mapping[str, Any]


def press(
    org_id: str,
    *,
    platform: str,
    code: str,
    value: str,
    by: Person,
    actor: Actor,
    team: str = "",
    arguments: Mapping[str, Any] | None = None,
) -> Approval:
    """Apply the button's decision for `by`, who pressed it in this channel (on Slack: in this `team`).

    `arguments` are the agent's arguments as edited by `by`. Raises Invalid if the value is not one of our buttons, or
    its button takes no arguments; NotFound if the question belongs to another channel; Forbidden and Conflict if this
    person may not decide, or nobody may any more.
    """
    decision, approval_id = _read(value)
    if arguments is not None and decision != "approve":
        raise Invalid(FieldError("arguments", "invalid", "go only with the button that approves"))
    require_place(org_id, approval_id, platform=platform, code=code, team=team)
    return decisions.decide(org_id, approval_id, decision, by=by, actor=actor, arguments=arguments)


def editable(org_id: str, values: Iterable[str]) -> dict[str, Editable]:
    """The buttons, by value, whose arguments may be edited now. One query, or none if no button approves."""
    asked: dict[UUID, str] = {}
    for value in values:
        with suppress(Invalid):
            decision, approval_id = _read(value)
            asked |= {approval_id: value} if decision == "approve" else {}
    if not asked:
        return {}
    pending = Approval.objects.filter(org_id=org_id, pk__in=asked, status=Approval.Status.PENDING)
    return {
        asked[found.pk]: Editable(found.arguments, decisions.schema_of(found))
        for found in pending.select_related("step")
        if decisions.has_arguments(found)
    }


def require_place(org_id: str, approval_id: UUID, *, platform: str, code: str, team: str = "") -> None:
    """Check that the question was asked in this channel. Raises NotFound if it was not.

    Another organisation's approval passes here: `decisions` refuses it and writes the audit entry.
    """
    asked = Approval.objects.filter(pk=approval_id, org_id=org_id).select_related("job").first()
    if asked and not _is_place_of(asked, platform, code, team):
        raise decisions.not_found(str(approval_id))


def receive(incoming: Incoming) -> bool:
    """Handle a button press reported by a platform. False asks to try again in a second: the question is still being
    created.

    A refused press changes nothing, and the person is not told. It is recorded with the job, or in the audit if the
    approval belongs to another organisation.
    """
    actor = Actor("person", incoming.author[:200])
    try:
        press(
            incoming.org_id,
            platform=incoming.platform,
            code=incoming.code,
            value=incoming.text,
            by=person(incoming),
            actor=actor,
            team=incoming.team,
        )
    except Invalid:
        return True
    except NotFound as error:
        if error.denied:
            audit_log.record_denied(incoming.org_id, *error.denied, actor=actor, method="PRESS", code=error.code)
    except Forbidden:
        note_refused(_read(incoming.text)[1], incoming.author)
    except Conflict as error:
        if error.code == "approval_closed":
            _close_again(incoming)
        return error.code != "approval_not_open"
    return True


def _close_again(incoming: Incoming) -> None:
    """Take the buttons off once more: the message still has them after a while, so the first change was lost."""
    decided = Approval.objects.filter(org_id=incoming.org_id, pk=_read(incoming.text)[1])
    for approval in decided.filter(decided_at__lt=Now() - _TIME_TO_CLOSE):
        approval_closing.close(approval)


def person(incoming: Incoming) -> Person:
    return Person(incoming.platform, incoming.author, incoming.is_outsider)


def _read(value: str) -> tuple[str, UUID]:
    decision, _, stated = value.partition(":")
    if decision in decisions.DECISIONS:
        try:
            return decision, UUID(stated)
        except ValueError:
            pass
    raise Invalid(FieldError("value", "invalid", "is not the value of a button"))


def _is_place_of(approval: Approval, platform: str, code: str, team: str) -> bool:
    """Whether the question was asked there: in the job's own channel, or in another one after that failed."""
    job, elsewhere = approval.job, approval.asked_in
    places = [(job.platform, job.channel_code, job.channel_data.get("team_id"))]
    if elsewhere:
        places.append((elsewhere["platform"], elsewhere["code"], elsewhere["data"].get("team_id")))
    return any(
        (asked_on, asked_at) == (platform, code) and (not team or stated in (None, team))
        for asked_on, asked_at, stated in places
    )


def note_refused(approval_id: UUID, author: str) -> None:
    """Record that somebody tried to decide without being allowed to: once per person, however often they press."""
    approval = Approval.objects.select_related("job").get(pk=approval_id)
    actor = Actor("person", author[:200])
    noted = Activity.objects.filter(job_id=approval.job_id, code="approval.refused", actor=str(actor))
    if noted.alias(approval_id=KT("input__approval_id")).filter(approval_id=str(approval.pk)).exists():
        return
    activities.note(
        approval.job,
        "approval.refused",
        f"{author} may not decide about {approval.what}",
        actor=actor,
        source=SourceType.DIRECT,
        input={"approval_id": str(approval.pk), "author": author},
    )
