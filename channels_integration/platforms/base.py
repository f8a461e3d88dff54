"""What a platform is: a way to send one message, and a way to find out whether it was sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from channels_integration.messages import Form, FormPress, Incoming, Lookup, Outgoing, Receipt, Submission, Target


class Platform(Protocol):
    """One file each, one line in the tuple of the package. No platform knows another.

    `accepts_on_commit`: a message counts as sent by being written down. `is_paced`: at most one post a second in a
    channel, one in flight. `can_change`: what is out can be changed (`messages.Change`), any number of times alike.
    `has_forms`: a button can open one (`messages.Form`). `can_look_up`: `find` tells whether a message was posted.
    """

    name: str
    accepts_on_commit: bool
    is_paced: bool
    can_change: bool
    has_forms: bool
    can_look_up: bool

    def unreachable_reason(self, target: Target) -> tuple[str, str] | None:
        """Why the organisation cannot reach this place, as (field, sentence); None if it can."""

    def send(self, outgoing: Outgoing, *, thread: str, before_post: Callable[[], None]) -> Receipt:
        """Post once, with no retry. `thread` is '' for the message that opens it.

        Calls `before_post` right before the first byte that could have an effect leaves; if that raises, nothing is
        posted. Raises DeliveryError (`messages`).
        """

    def find(self, lookup: Lookup) -> Receipt | None:
        """The receipt of a message whose outcome is unknown; None if it is safe to send it again.

        Raises TemporaryError where that cannot be told yet and PermanentError where it never can.
        """


@dataclass(frozen=True, slots=True)
class Heard:
    """What a platform made of a signed request: an answer for it, and the messages in it to keep; or forms that are to
    be opened, or came back. Of these there is one for each organisation that it may be for."""

    status: int
    answer: Mapping[str, Any]
    incoming: tuple[Incoming, ...] = field(default=())
    form_presses: tuple[FormPress, ...] = field(default=())
    submissions: tuple[Submission, ...] = field(default=())


class Listener(Protocol):
    """A platform that sends us signed events."""

    name: str

    def hear(self, headers: Mapping[str, str], body: bytes, *, installation_id: UUID | None = None) -> Heard:
        """Verify on the raw bytes, then read. An answer of 401 tells nothing about why. An installation's own address
        takes only what this one has signed."""

    def hear_press(self, headers: Mapping[str, str], body: bytes) -> Heard:
        """The same for the platform's other address, which tells of buttons that were pressed and forms that were
        sent back."""

    def open_form(self, asked: FormPress, form: Form) -> None:
        """Show it to who pressed, in a second or two. Raises DeliveryError."""

    def refusal(self, complaint: str) -> Mapping[str, Any]:
        """The answer to a form that is not taken: it stays open, with the complaint."""
