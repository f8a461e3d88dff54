"""Forms that people open by a button and send back. Both requests are answered at once: nothing is stored or routed.

`settings.CHANNELS_FORM_HANDLER` fills a form: it takes a `FormPress.press` and returns a `Form`.
`settings.CHANNELS_SUBMISSION_HANDLER` accepts it: it takes a `Submission` and returns a complaint, or ''.
No state is kept between the two. No transaction is open during a call to a platform.
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
    """Show the requested form. Answers 502 if the platform refuses it: the person sees an error, and may try again."""
    handler: Callable[[Incoming], Form] = import_string(settings.CHANNELS_FORM_HANDLER)
    forms = [(asked, handler(asked.press)) for asked in heard.form_presses]
    # If the message's owner is unknown, choose the organisation that has something to change.
    asked, form = next((pair for pair in forms if pair[1].text is not None), forms[0])
    try:
        listener.open_form(asked, form)
    except DeliveryError as error:
        log.warning("could not open a form for %s: %s: %s", asked.press.org_id, error.code, error)
        return Heard(502, {"code": "form_not_opened", "message": f"the form could not be opened: {error.code}"})
    return heard


def sent_back(listener: Listener, heard: Heard) -> Heard:
    """Hand a submitted form to its handler. The answer shows the complaint, if there is one."""
    handler: Callable[[Submission], str] = import_string(settings.CHANNELS_SUBMISSION_HANDLER)
    complaint = ""
    for submission in heard.submissions:
        if not (complaint := handler(submission)):
            return heard
    return replace(heard, answer=listener.refusal(complaint))
