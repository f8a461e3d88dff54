"""A webhook: POSTs each message to the channel's registered address, signed by Standard Webhooks.

Bridges to other platforms (`whatsapp`, say) are webhooks under that platform's name. A bridge registered with the code
`*` gets the messages to every code that has no registration of its own. The `webhook-id` is the message's own id, and
the same at each attempt. A receiver that follows Standard Webhooks drops an id that it has seen, so we may repeat an
attempt of unknown outcome. There is no history to look into. A changed secret and the new one both sign for a day.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime

from channels_integration import transcript
from channels_integration.errors import UnknownChannel
from channels_integration.messages import (
    Lookup,
    Outgoing,
    PermanentDeliveryError,
    Receipt,
    Target,
    TemporaryDeliveryError,
)
from channels_integration.models import Channel
from infra.egress import addresses, requests_client, retry_after, standard_webhooks
from infra.sealing import SealingError

# A receiver that is being deployed, or given a new secret, may answer 401 or 404 for some minutes.
_LATER = (401, 404, 408, 425, 429)


class Webhook:
    name = "webhook"
    title = "Webhook"
    has_channel_names = True
    accepts_on_commit = False
    is_paced = False
    can_change = True
    has_forms = False
    can_look_up = False
    is_registered_by_name = False

    def unreachable_reason(self, target: Target) -> tuple[str, str] | None:
        if target.code == transcript.EVERY:
            return "target_channel.code", f"must name one channel: {transcript.EVERY} stands for all of them"
        if transcript.registered(target.org_id, target.platform, target.code):
            return None
        known = Channel.objects.filter(org_id=target.org_id, platform=target.platform)
        if target.platform == self.name or known.exists():
            return "target_channel.code", f"names no registered {target.platform} channel: {target.code!r}"
        return (
            "target_channel.platform",
            f"names {target.platform!r}, which the organization has no way to reach: "
            "register a channel under this name, or use slack, web or webhook",
        )

    def parts(self, text: str) -> tuple[str, ...]:
        return (text,)

    def send(self, outgoing: Outgoing, *, thread: str, before_post: Callable[[], None]) -> Receipt:
        if outgoing.change:
            # Change the line in our transcript. Receivers get messages, not changes.
            before_post()
            transcript.change(outgoing, outgoing.change)
            return Receipt(platform_message_id=str(outgoing.change.of))
        target = outgoing.target
        channel = transcript.registered(target.org_id, target.platform, target.code)
        if channel is None:
            raise PermanentDeliveryError("the channel is not registered any more", code="channel_not_found")
        now = datetime.now(UTC)
        body = json.dumps(_payload(outgoing, now), ensure_ascii=False)
        headers = {"Content-Type": "application/json", **_signature(channel, str(outgoing.id), now, body)}
        has_begun = False

        def begin() -> None:
            nonlocal has_begun
            before_post()
            has_begun = True

        try:
            with addresses.asking_for(target.org_id):
                answer = requests_client.post(
                    channel.address, body=body.encode(), headers=headers, is_guarded=True, before_post=begin
                )
        except requests_client.Refused as error:
            raise PermanentDeliveryError(str(error), code="address_refused") from error
        except requests_client.SlowAnswer as error:
            seconds = min(requests_client.READ_SECONDS, requests_client.send_seconds())
            said = f"the receiver is slow: no answer within {seconds:g} s"
            raise TemporaryDeliveryError(said, code="receiver_slow", is_doubtful=has_begun) from error
        except requests_client.HttpError as error:
            raise TemporaryDeliveryError(str(error), code="receiver_unreachable", is_doubtful=has_begun) from error
        if not 200 <= answer.status < 300:
            raise _refusal(answer)
        with suppress(UnknownChannel):  # unregistered meanwhile; the delivery still counts
            transcript.show(outgoing)
        return Receipt(platform_message_id=str(outgoing.id))

    def find(self, lookup: Lookup) -> Receipt | None:
        return None


def _payload(outgoing: Outgoing, now: datetime) -> dict[str, object]:
    return {
        "type": "message.created",
        "timestamp": now.isoformat(),
        "data": {
            "id": str(outgoing.id),
            "org_id": outgoing.target.org_id,
            "platform": outgoing.target.platform,
            "channel_code": outgoing.target.code,
            "text": outgoing.text,
            **({"buttons": [asdict(button) for button in outgoing.buttons]} if outgoing.buttons else {}),
            # A reply names this as its `job_id`.
            "job_id": outgoing.owner_key,
            "channel_data": dict(outgoing.target.data),
        },
    }


def _signature(channel: Channel, message_id: str, now: datetime, body: str) -> Mapping[str, str]:
    columns = ["sealed_secret"]
    if channel.sealed_previous_secret and channel.previous_secret_until and channel.previous_secret_until > now:
        columns.append("sealed_previous_secret")
    try:
        secrets = [channel.opened(column) for column in columns]
    except SealingError as error:
        raise TemporaryDeliveryError(error.message, code="secret_unreadable") from error
    return standard_webhooks.headers(message_id, body, secrets, now=now)


def _refusal(answer: requests_client.Answer) -> Exception:
    said = f"the receiver answered {answer.status}"
    if answer.status >= 500 or answer.status in _LATER:
        wait = retry_after.seconds(answer.headers.get("Retry-After", "")) if answer.status in (429, 503) else None
        return TemporaryDeliveryError(said, code=f"http_{answer.status}", retry_after=wait)
    return PermanentDeliveryError(said, code=f"http_{answer.status}")
