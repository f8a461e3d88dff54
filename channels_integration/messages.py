"""The normalised shapes that every platform reads and writes, and the two ways in which a send can fail.

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
    """One place on a platform: where an organisation's message goes."""

    org_id: str
    platform: str
    code: str
    type: str = ""
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Button:
    """Something to press under a message. `value` comes back with the press, and is opaque here."""

    label: str
    value: str


# A button whose value begins so opens a form, where its platform has any (`Form`).
OPENS_FORM = "edit:"
MOST_FORM_TEXT = 3_000


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a message of ours that is out: its buttons go, and `line` is put below it, `person` at its end.

    `of` is that message's own id, `person` whoever the platform knows by it. `posted_as` is the platform's id of it,
    known when the change is sent.
    """

    of: UUID
    line: str
    person: str = ""
    posted_as: str = ""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send.

    `id` is opaque and travels with the message; messages of one `thread_key` are sent one after the other, the
    first of them opening the thread on platforms that have threads. `trace` is the traceparent of what caused it.
    `buttons` are shown by platforms that have any; on others the text has to do. With a `change` it is no
    message of its own: that earlier one, whose `text` this is, becomes another.
    """

    id: UUID
    target: Target
    text: str
    owner_key: str
    thread_key: str
    trace: str = ""
    buttons: tuple[Button, ...] = ()
    change: Change | None = None


class Did(StrEnum):
    """What a person did: said something, edited or deleted what they had said, pressed a button under a message."""

    SAID = "said"
    EDITED = "edited"
    DELETED = "deleted"
    PRESSED = "pressed"


@dataclass(frozen=True, slots=True)
class Incoming:
    """What a person did, as a platform reported it: as a rule, a message.

    `event_id` is unique within the platform; `thread` is the platform's name of the thread ('' at top level);
    `owner_key` is set where the sender named the owner; `sent_at` is the platform's own time of what was done.
    `message_id` is the platform's own of the message that was said, edited or deleted, or that has the button. `text`
    is what was said, what an edit made of it, or the button's value. `is_outsider` is told with presses: the person
    belongs to another workspace than the one that the app is installed in.
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
    """What a person is shown who pressed a button that opens one: a `notice`, and below it, under a `label`, a `text`
    to change and send back, of at most MOST_FORM_TEXT characters; None where there is nothing to send back."""

    title: str
    notice: str
    label: str = ""
    text: str | None = None
    submit: str = "Send"


@dataclass(frozen=True, slots=True)
class FormPress:
    """A press of a button that opens a form. It is opened with the `ticket`, once and within seconds; the `context`
    comes back with it."""

    press: Incoming
    ticket: str
    context: str


@dataclass(frozen=True, slots=True)
class Submission:
    """A form that came back. `press` is who sent it, where, and the value of the button that had opened it; `text` is
    what they made of the form's.

    Only the person and the team are the platform's word. The rest is what we wrote into the form, and to be looked at
    as the value of any button.
    """

    press: Incoming
    text: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a platform answered to a message that it took: its own id of it, and of the thread that it is in."""

    platform_message_id: str
    thread: str = ""


@dataclass(frozen=True, slots=True)
class Lookup:
    """The question whether a message was posted after all: from `since` on, in `thread` ('' for top level).

    `cursor` is where an earlier look was paused.
    """

    outgoing: Outgoing
    thread: str
    since: datetime
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """A message's owner keeps hours: how long it has to wait for them to open (0: it may go), and how much of the time
    since it was written they were closed."""

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
    ├── PermanentError   surely not posted, and never will be: a dead letter
    ├── TemporaryError   surely not posted; may be tried again after `retry_after` seconds
    │   └── LookupPaused a look into the history that goes on from `cursor` later
    └── UnknownOutcome   may have been posted: looked up in the history before any second try
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class PermanentError(DeliveryError):
    pass


class TemporaryError(DeliveryError):
    """`is_doubtful`: it may have been received after all, but a receiver that gets it twice knows it by its id."""

    def __init__(self, message: str, *, code: str, retry_after: float | None = None, is_doubtful: bool = False) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after
        self.is_doubtful = is_doubtful


class LookupPaused(TemporaryError):
    def __init__(self, message: str, *, code: str, retry_after: float, cursor: str) -> None:
        super().__init__(message, code=code, retry_after=retry_after)
        self.cursor = cursor


class UnknownOutcome(DeliveryError):
    pass
