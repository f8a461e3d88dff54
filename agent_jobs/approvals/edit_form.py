"""The form in which an approver edits the arguments of a tool call, and how it is submitted.

The form is one JSON text, not a field per argument. Arguments may be nested, optional or of any type, and the approver
sees exactly what the tool receives. Submitting checks everything again, since somebody else may have decided meanwhile.
"""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from agent_jobs.approvals import button_presses, decisions, question_text
from agent_jobs.audit import audit_log
from agent_jobs.errors import Conflict, FieldError, Forbidden, Invalid, NotFound
from agent_jobs.models import Approval
from agent_jobs.specs import Actor
from channels_integration import platforms
from channels_integration.messages import MOST_FORM_TEXT, OPENS_FORM, Form, Incoming

_TITLE = "Edit and approve"
_GONE = "This question is not to be found any more."


def buttons(approval: Approval, platform: str) -> tuple[tuple[str, str], ...]:
    """Labels and values of the buttons under a question."""
    has_form = decisions.has_arguments(approval) and platforms.get(platform).has_forms
    approve = (("Approve", f"approve:{approval.pk}"),) if question_text.is_whole(approval) else ()
    edit = (("Edit", f"{OPENS_FORM}{approval.pk}"),) if has_form else ()
    return *approve, *edit, ("Deny", f"deny:{approval.pk}")


def opened(press: Incoming) -> Form:
    """The form for a person who wants to edit arguments, or the refusal."""
    try:
        found = decisions.require_decidable(press.org_id, _asked(press), by=button_presses.person(press))
    except (Invalid, NotFound, Forbidden, Conflict) as error:
        return Form("Not to be changed", _told(press, error))
    if not decisions.has_arguments(found):
        return Form("Not to be changed", "There is nothing to change in this: approve or deny it.")
    text = next((text for text in _texts(found.arguments) if len(text) <= MOST_FORM_TEXT), None)
    if text is None:
        address = f"POST /services/agent-jobs/{found.job_id}/approvals/{found.pk}"
        return Form("Too long to be changed", f"The arguments are too long for a form. The API takes others: {address}")
    return Form(_TITLE, f"What {found.tool} will be called with.", "Arguments, as JSON", text, "Approve")


def send_back(press: Incoming, arguments: Any) -> Approval:
    """Approve with these arguments for the person who sent the form. Sending it twice is harmless.

    Raises Invalid for wrong arguments or a button that opens no form; NotFound, Forbidden and Conflict as
    `decisions.decide`.
    """
    approval_id = _asked(press)
    actor = Actor("person", press.author[:200])
    if not isinstance(arguments, Mapping):
        raise Invalid(FieldError("arguments", "invalid", "must be an object"))
    try:
        by = button_presses.person(press)
        return decisions.decide(press.org_id, approval_id, "approve", by=by, actor=actor, arguments=arguments)
    except Conflict:
        decided = Approval.objects.get(pk=approval_id)
        taken = decided.arguments if decided.edited_arguments is None else decided.edited_arguments
        is_this = (decided.decided_by, taken) == (press.author[:255], arguments)
        if decided.status == Approval.Status.APPROVED and is_this:
            return decided
        raise
    except (NotFound, Forbidden) as error:
        _told(press, error)
        raise


def _asked(press: Incoming) -> UUID:
    if press.text.startswith(OPENS_FORM):
        try:
            approval_id = UUID(press.text.removeprefix(OPENS_FORM))
        except ValueError:
            pass
        else:
            button_presses.require_place(
                press.org_id, approval_id, platform=press.platform, code=press.code, team=press.team
            )
            return approval_id
    raise Invalid(FieldError("value", "invalid", "is not the value of a button"))


def _told(press: Incoming, error: Invalid | NotFound | Forbidden | Conflict) -> str:
    """The message for a person who may not or cannot edit. The refusal is recorded like a refused button press."""
    if isinstance(error, Forbidden):
        button_presses.note_refused(_asked(press), press.author)
    if isinstance(error, NotFound) and error.denied:
        actor = Actor("person", press.author[:200])
        audit_log.record_denied(press.org_id, *error.denied, actor=actor, method="PRESS", code=error.code)
    if isinstance(error, NotFound | Invalid):
        return _GONE
    return f"{error.message[:1].upper()}{error.message[1:]}."


def _texts(arguments: Mapping[str, Any]) -> tuple[str, str]:
    """The arguments as indented JSON, and as compact JSON for the case that the first is too long."""
    return (
        question_text.visible(json.dumps(arguments, ensure_ascii=False, indent=2, sort_keys=True)),
        question_text.visible(json.dumps(arguments, ensure_ascii=False, separators=(",", ":"), sort_keys=True)),
    )
