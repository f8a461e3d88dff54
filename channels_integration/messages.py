"""The normalised shapes that every platform reads and writes, and the errors of a send.

Nothing here knows what a job is: `owner_key` and `thread_key` are opaque to this package.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Target:
    """One place on a platform, to which an organisation sends."""

    org_id: str
    platform: str
    code: str
    type: str = ""
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Button:
    """A button under a message. `value` comes back with the press, and is opaque here."""

    label: str
    value: str


# A button with this prefix in its value opens a form, on platforms that have forms (`Form`).
OPENS_FORM = "edit:"
MOST_FORM_TEXT = 3_000


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a message that we sent: remove its buttons and append `line`, with `person` at its end.

    `of` is that message's own id. `person` is their id on the platform. `posted_as` is the message's id on the
    platform, known when the change is sent.
    """

    of: UUID
    line: str
    person: str = ""
    posted_as: str = ""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send.

    `id` is opaque and travels with the message. Messages of one `thread_key` are sent one after the other; the first
    opens the thread on platforms that have threads. `trace` is the traceparent of the cause. Platforms without buttons
    ignore `buttons`, so the text has to be enough. With a `change` this is no new message: it changes an earlier one,
    whose `text` this is. `mentions` are ids of people and channels: where the text writes `<@U0ANN>` or `<#C0ONE>`, it
    mentions those, on platforms that have mentions.
    """

    id: UUID
    target: Target
    text: str
    owner_key: str
    thread_key: str
    trace: str = ""
    buttons: tuple[Button, ...] = ()
    change: Change | None = None
    mentions: tuple[str, ...] = ()


class Did(StrEnum):
    """An act of a person: they said something, edited or deleted a message, or pressed a button."""

    SAID = "said"
    EDITED = "edited"
    DELETED = "deleted"
    PRESSED = "pressed"


@dataclass(frozen=True, slots=True)
class Incoming:
    """An act of a person, as a platform reported it: usually a message.

    `event_id` is unique within the platform. `thread` is the platform's name of the thread ('' at top level).
    `owner_key` is set where the sender named the owner. `sent_at` is the platform's time of the act. `message_id` is
    the platform's id of the message that was said, edited or deleted, or that has the button. `text` is the message,
    its text after an edit, or the button's value. `is_outsider` is set for presses only: the person belongs to another
    workspace than the one that has the app installed.
    """

    org_id: str
    platform: str
    code: str
    event_id: str
    author: str
    text: str
    sent_at: datetime
    thread: str = ""
    team: str = ""
    owner_key: str = ""
    is_direct: bool = False
    is_outsider: bool = False
    did: Did = Did.SAID
    message_id: str = ""


@dataclass(frozen=True, slots=True)
class Form:
    """The form that a button opens: a `notice`, and below it, under a `label`, a `text` to edit and send back.

    `text` has at most MOST_FORM_TEXT characters; None where there is nothing to send back.
    """

    title: str
    notice: str
    label: str = ""
    text: str | None = None
    submit: str = "Send"


@dataclass(frozen=True, slots=True)
class FormPress:
    """A press of a button that opens a form. The `ticket` opens it once, within seconds. `context` comes back."""

    press: Incoming
    ticket: str
    context: str


@dataclass(frozen=True, slots=True)
class Submission:
    """A form that came back. `press` holds the sender, the channel and the value of the button that opened the form;
    `text` is the edited text.

    Only the person and the team come from the platform. We wrote the rest into the form, so treat it like the value of
    any button.
    """

    press: Incoming
    text: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """The platform's answer to a message that it accepted: its id of the message, and of the thread."""

    platform_message_id: str
    thread: str = ""


@dataclass(frozen=True, slots=True)
class Lookup:
    """A look-up whether a message was posted: from `since` on, in `thread` ('' for top level).

    `cursor` is the position where an earlier look-up paused.
    """

    outgoing: Outgoing
    thread: str
    since: datetime
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """The owner's quiet hours: `seconds` until they end (0: send now).

    `closed_seconds` counts how long they lasted since the message was written.
    """

    seconds: float
    closed_seconds: float


@dataclass(frozen=True, slots=True)
class Delivery:
    """The end of an outgoing message: sent (with a receipt), or given up (with a code and a sentence)."""

    outgoing_id: UUID
    owner_key: str
    at: datetime
    receipt: Receipt | None = None
    error_code: str = ""
    error_message: str = ""

    @property
    def is_sent(self) -> bool:
        return self.receipt is not None


class DeliveryError(Exception):
    """
    DeliveryError
    ├── PermanentDeliveryError   surely not posted, and never will be: a dead letter
    ├── TemporaryDeliveryError   surely not posted; may be tried again after `retry_after` seconds
    │   └── LookupPaused         a history look-up that continues from `cursor` later
    └── UnknownOutcome           may have been posted: looked up in the history before any second try
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class PermanentDeliveryError(DeliveryError):
    pass


class TemporaryDeliveryError(DeliveryError):
    """The message was surely not posted, or a second copy does no harm. `is_doubtful`: the receiver may have got it,
    but drops a second copy by its id.
    """

    def __init__(self, message: str, *, code: str, retry_after: float | None = None, is_doubtful: bool = False) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after
        self.is_doubtful = is_doubtful


class LookupPaused(TemporaryDeliveryError):
    def __init__(self, message: str, *, code: str, retry_after: float, cursor: str) -> None:
        super().__init__(message, code=code, retry_after=retry_after)
        self.cursor = cursor


class UnknownOutcome(DeliveryError):
    pass
