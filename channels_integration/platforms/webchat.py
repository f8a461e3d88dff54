"""The web chat: our own database holds its channels, and the API reads and writes them (`web_messages`)."""

from __future__ import annotations

from collections.abc import Callable

from channels_integration import transcript
from channels_integration.messages import Lookup, Outgoing, Receipt, Target


class WebChat:
    name = "web"
    title = "Web chat"
    has_channel_names = True
    accepts_on_commit = False
    is_paced = False
    can_change = True
    has_forms = False
    can_look_up = True
    is_registered_by_name = True

    def unreachable_reason(self, target: Target) -> tuple[str, str] | None:
        return None

    def parts(self, text: str) -> tuple[str, ...]:
        return (text,)

    def send(self, outgoing: Outgoing, *, thread: str, before_post: Callable[[], None]) -> Receipt:
        before_post()
        if outgoing.change:
            transcript.change(outgoing, outgoing.change)
            return Receipt(platform_message_id=str(outgoing.change.of))
        transcript.show(outgoing)
        return Receipt(platform_message_id=str(outgoing.id))

    def find(self, lookup: Lookup) -> Receipt | None:
        if lookup.outgoing.change or not transcript.is_shown(lookup.outgoing.id):
            return None
        return Receipt(platform_message_id=str(lookup.outgoing.id))
