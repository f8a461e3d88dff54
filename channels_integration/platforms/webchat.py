"""The web chat: its channels live in our own database, and are written and read through the API (`webchat`)."""

from __future__ import annotations

from collections.abc import Callable

from channels_integration import transcript
from channels_integration.messages import Lookup, Outgoing, Receipt, Target


class WebChat:
    name = "web"
    accepts_on_commit = False
    is_paced = False
    can_change = True
    has_forms = False

    def unreachable_reason(self, target: Target) -> tuple[str, str] | None:
        return None

    def send(self, outgoing: Outgoing, *, thread: str, before_post: Callable[[], None]) -> Receipt:
        before_post()
        if outgoing.change:
            transcript.change(outgoing, outgoing.change)
            return Receipt(platform_message_id=str(outgoing.change.of))
        transcript.show(outgoing)
        return Receipt(platform_message_id=str(outgoing.id))

    def find(self, lookup: Lookup) -> Receipt | None:
        # Not looked for: `show` is idempotent by the message's id, so it may always be called again.
        return None
