"""Accepts every message and shows it to nobody: for measuring the service without a channel's own speed.

A null channel has to be registered by name, so that no job speaks into the void by mistake.
"""

from __future__ import annotations

from collections.abc import Callable

from channels_integration.messages import Lookup, Outgoing, Receipt, Target
from channels_integration.models import Channel


class Null:
    name = "null"
    title = "Nowhere (null)"
    has_channel_names = False
    accepts_on_commit = True
    is_paced = False
    can_change = False
    has_forms = False
    can_look_up = True
    is_registered_by_name = True

    def unreachable_reason(self, target: Target) -> tuple[str, str] | None:
        if Channel.objects.filter(org_id=target.org_id, platform=self.name, code=target.code).exists():
            return None
        return "target_channel.code", f"names no registered null channel: {target.code!r}"

    def parts(self, text: str) -> tuple[str, ...]:
        return (text,)

    def send(self, outgoing: Outgoing, *, thread: str, before_post: Callable[[], None]) -> Receipt:
        before_post()
        return Receipt(platform_message_id=str(outgoing.id))

    def find(self, lookup: Lookup) -> Receipt | None:
        return Receipt(platform_message_id=str(lookup.outgoing.id))
