"""The texts and error codes of a job's end, shared by turns and deliveries."""

from collections.abc import Mapping
from typing import Any

DELIVERY_FAILED = "delivery_failed"
EXPIRED = "expired"
# The most characters of a result or an error in a note.
NOTE_LENGTH = 200


def delivery_failure(code: str, message: str) -> str:
    return f"a message could not be delivered: {code}: {message}"


def completed_note(result: str | None) -> str:
    return f"COMPLETED: {(result or '')[:NOTE_LENGTH]}"


def expiry_message(config: Mapping[str, Any]) -> str:
    return f"no worker began it within {config.get('queue_ttl_minutes', 0):g} minutes of its due time"
