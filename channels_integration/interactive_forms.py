"""Forms that people open by a button and send back. Both requests are answered at once: nothing is stored or routed.

The messages' owner (`message_owner`) fills a form, and accepts it when it comes back. No state is kept between the two.
No transaction is open during a call to a platform.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from channels_integration import message_owner
from channels_integration.messages import DeliveryError
from channels_integration.platforms.base import Heard, Listener

log = logging.getLogger(__name__)


def opened(listener: Listener, heard: Heard) -> Heard:
    """Show the requested form. Answers 502 if the platform refuses it: the person sees an error, and may try again."""
    forms = [(asked, message_owner.get().form(asked.press)) for asked in heard.form_presses]
    # If the message's owner is unknown, choose the organisation that has something to change.
    asked, form = next((pair for pair in forms if pair[1].text is not None), forms[0])
    try:
        listener.open_form(asked, form)
    except DeliveryError as error:
        log.warning("could not open a form for %s: %s: %s", asked.press.org_id, error.code, error)
        return Heard(502, {"code": "form_not_opened", "message": f"the form could not be opened: {error.code}"})
    return heard


def sent_back(listener: Listener, heard: Heard) -> Heard:
    """Hand a submitted form to the messages' owner. The answer shows the complaint, if there is one."""
    complaint = ""
    for submission in heard.submissions:
        if not (complaint := message_owner.get().submit(submission)):
            return heard
    return replace(heard, answer=listener.refusal(complaint))
