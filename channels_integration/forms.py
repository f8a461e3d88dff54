"""Forms that people open by a button and send back: both while they wait, so neither is kept and routed later.

What is in a form says `settings.CHANNELS_FORM_HANDLER` (`FormPress.press` to a `Form`), and what becomes of one that
came back `settings.CHANNELS_SUBMISSION_HANDLER` (a `Submission` to a complaint for who sent it, '' where it is taken).
Between them nothing is remembered. No transaction is open while a platform is spoken to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from django.conf import settings
from django.utils.module_loading import import_string

from channels_integration.messages import DeliveryError, Form, Incoming, Submission
from channels_integration.platforms.base import Heard, Listener

log = logging.getLogger(__name__)


def opened(listener: Listener, heard: Heard) -> Heard:
    """Show the form that was asked for. 502 where the platform did not take it: it tells the person so, who may press
    again."""
    handler: Callable[[Incoming], Form] = import_string(settings.CHANNELS_FORM_HANDLER)
    forms = [(asked, handler(asked.press)) for asked in heard.form_presses]
    # Where it is not known whose message it was, the organisation that has something to change.
    asked, form = next((pair for pair in forms if pair[1].text is not None), forms[0])
    try:
        listener.open_form(asked, form)
    except DeliveryError as error:
        log.warning("a form could not be opened for %s: %s: %s", asked.press.org_id, error.code, error)
        return Heard(502, {"code": "form_not_opened", "message": f"the form could not be opened: {error.code}"})
    return heard


def sent_back(listener: Listener, heard: Heard) -> Heard:
    """Hand in what was sent back, and say at once what is wrong with it."""
    handler: Callable[[Submission], str] = import_string(settings.CHANNELS_SUBMISSION_HANDLER)
    complaint = ""
    for submission in heard.submissions:
        if not (complaint := handler(submission)):
            return heard
    return replace(heard, answer=listener.refusal(complaint))
