"""The app on whose behalf channels send and receive. It registers itself once, so channels need not import it."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from django.http import HttpRequest

from channels_integration.messages import Delivery, Form, Hold, Incoming, Outgoing, Submission


class MessageOwner(Protocol):
    """Decides what messages mean. `owner_key` of a message is its own key for what the message belongs to."""

    def receive(self, incoming: Incoming) -> bool:
        """Handle a message, an edit, a deletion or a button press of a person. False: ask again in a moment.

        Runs in the transaction that marks the event as routed, and may run twice if that fails.
        """
        ...

    def awaits(self, incoming: Incoming) -> bool:
        """Whether somebody would take this message. Called within the platform's request."""
        ...

    def settle_delivery(self, delivery: Delivery) -> None:
        """Note that a message was sent, died or was withdrawn.

        Runs in the transaction that ends the message, before its row is locked. An exception undoes the end. For a
        withdrawn message it runs in a transaction of its own.
        """
        ...

    def hold(self, outgoing: Outgoing, written_at: datetime) -> Hold | None:
        """How long a message must be held, 0 s if it may be sent now; None if no hours hold for it."""
        ...

    def form(self, press: Incoming) -> Form:
        """The form for a person who pressed a button that opens one. Called within the platform's request."""
        ...

    def submit(self, submission: Submission) -> str:
        """Take a form that a person sent back. Returns the complaint to show, or '' if it is accepted."""
        ...

    def count_forgery(self, request: HttpRequest) -> tuple[str, int]:
        """Count an event with an invalid signature.

        Returns the refusal's text and the seconds to wait if there were too many from its sender; else ("", 0).
        """
        ...


_owner: MessageOwner | None = None


def register(owner: MessageOwner) -> None:
    """Register the owner of all messages. Call it once per process, when the apps are ready."""
    global _owner
    if _owner is not None:
        raise RuntimeError(f"the messages have an owner already: {_owner!r}")
    _owner = owner


def get() -> MessageOwner:
    if _owner is None:
        raise RuntimeError("no app has registered itself as the messages' owner")
    return _owner
