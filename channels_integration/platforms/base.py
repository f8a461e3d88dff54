"""The interface of a platform: send one message, and find out whether it was sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from channels_integration.messages import Form, FormPress, Incoming, Lookup, Outgoing, Receipt, Submission, Target


class Platform(Protocol):
    """A platform: one file each, one line in the tuple of the package. No platform knows another.

    `title`: its name for people. `has_channel_names`: jobs show their channel's name, which is in our register.
    `accepts_on_commit`: writing a message down is its delivery. `is_paced`: at most one post a second in a channel, one
    in flight. `can_change`: a sent message can be changed (`messages.Change`); repeating a change is safe. `has_forms`:
    a button can open one (`messages.Form`). `can_look_up`: `find` tells whether a message was posted.
    `is_registered_by_name`: a channel is registered by its code alone, without an address and a secret.
    """

    name: str
    title: str
    has_channel_names: bool
    accepts_on_commit: bool
    is_paced: bool
    can_change: bool
    has_forms: bool
    can_look_up: bool
    is_registered_by_name: bool

    def unreachable_reason(self, target: Target) -> tuple[str, str] | None:
        """Why the organisation cannot reach this place, as (field, predicate): `must be …`; None if it can."""

    def parts(self, text: str) -> tuple[str, ...]:
        """The messages into which a text without buttons is split, each as long as the platform takes whole."""

    def send(self, outgoing: Outgoing, *, thread: str, before_post: Callable[[], None]) -> Receipt:
        """Post once, with no retry. `thread` is '' for the message that opens it.

        Calls `before_post` right before the first byte that could have an effect. If that raises, nothing is posted.
        Raises DeliveryError (`messages`).
        """

    def find(self, lookup: Lookup) -> Receipt | None:
        """The receipt of a message whose outcome is unknown; None if it is safe to send it again.

        Raises TemporaryDeliveryError where the platform cannot tell yet, and PermanentDeliveryError where it never can.
        """


@dataclass(frozen=True, slots=True)
class Heard:
    """A signed request as a platform read it: the answer, and the messages to store, or the forms to open or handle.

    A form appears once for each organisation that it may be for.
    """

    status: int
    answer: Mapping[str, Any]
    incoming: tuple[Incoming, ...] = field(default=())
    form_presses: tuple[FormPress, ...] = field(default=())
    submissions: tuple[Submission, ...] = field(default=())


class Listener(Protocol):
    """A platform that sends us signed events."""

    name: str

    def hear(self, headers: Mapping[str, str], body: bytes, *, installation_id: UUID | None = None) -> Heard:
        """Verify the raw bytes, then read them. A 401 answer does not say why.

        An installation's own address accepts only that installation's signature.
        """

    def hear_press(self, headers: Mapping[str, str], body: bytes) -> Heard:
        """Verify and read a request to the platform's other address, which receives pressed buttons and submitted
        forms.
        """

    def open_form(self, asked: FormPress, form: Form) -> None:
        """Show the form to the person who pressed the button, within a second or two. Raises DeliveryError."""

    def refusal(self, complaint: str) -> Mapping[str, Any]:
        """The answer that rejects a form: it stays open and shows the complaint."""
