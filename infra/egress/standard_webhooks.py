"""The signature headers of Standard Webhooks (https://www.standardwebhooks.com)."""

from collections.abc import Sequence
from datetime import datetime

import standardwebhooks


def headers(message_id: str, body: str, secrets: Sequence[str | bytes], *, now: datetime) -> dict[str, str]:
    """One signature for each secret: a receiver that knows any of them accepts the message.

    The id stays the same in all attempts, so that the receiver can drop repeats.
    """
    signatures = [standardwebhooks.Webhook(one).sign(msg_id=message_id, timestamp=now, data=body) for one in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
