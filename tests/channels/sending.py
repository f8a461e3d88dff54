"""Messages under test: written, delivered, looked at."""

import json
import threading
import time
from typing import Any

from uuid_utils.compat import uuid7

from channels_integration import outbox, send_loop
from channels_integration.messages import Outgoing, Target
from channels_integration.models import OutboundMessage
from tests.waiting import PATIENCE

SIGNING_SECRET = "acme-signing-secret"
# Half of it is what Slack is given for an answer, which a busy machine has to manage, too.
GRACE = 1.5


def message(text: str = "Hello", **changes: Any) -> Outgoing:
    target = {"org_id": "acme", "platform": "slack", "code": "C0ONE", "data": {}}
    target |= {name: changes.pop(name) for name in list(changes) if name in target}
    owner = changes.pop("owner_key", "owner")
    fields = {"id": uuid7(), "owner_key": owner, "thread_key": owner}
    return Outgoing(target=Target(**target), text=text, **{**fields, **changes})


def post(text: str = "Hello", **changes: Any) -> Outgoing:
    outgoing = message(text, **changes)
    outbox.enqueue([outgoing])
    return outgoing


def deliver(seconds: float = PATIENCE) -> int:
    """Everything that is due, or will be within a second of the last; at most `seconds`."""
    return send_loop.deliver_due(until=time.monotonic() + seconds)


class _AtTheFirstPause(threading.Event):
    def wait(self, timeout: float | None = None) -> bool:
        self.set()
        return True


def deliver_now() -> int:
    """Everything that is due, and nothing that will be in a moment, however long that takes."""
    return send_loop.deliver_due(until=time.monotonic() + PATIENCE, stop=_AtTheFirstPause())


def deliver_all(seconds: float = PATIENCE) -> None:
    """Go on until nothing is under way any more."""
    until = time.monotonic() + seconds
    while OutboundMessage.objects.filter(status__in=OutboundMessage.UNDELIVERED).exists():
        assert time.monotonic() < until, list(OutboundMessage.objects.values("text", "status", "error_code", "due_at"))
        deliver(1)
        threading.Event().wait(0.02)


def row(outgoing: Outgoing) -> OutboundMessage:
    return OutboundMessage.objects.get(pk=outgoing.id)


def overdue(**where: Any) -> None:
    """As if time had passed: what waits is due now."""
    OutboundMessage.objects.filter(**where).update(due_at="2000-01-01T00:00:00Z")


def as_json(body: Any) -> bytes:
    return json.dumps(body).encode()
