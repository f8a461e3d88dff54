"""Limits for answers of all tools: how much the model sees, and how long a server may ask us to wait."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_TEXT = 20_000
LONGEST_RETRY_AFTER_SECONDS = 3_600.0
UNKNOWN = "Whether it was done is unknown: check before you do it again."


def cut(text: str) -> tuple[str, bool]:
    """The text cut to the limit for models and without characters that no database stores; and whether it was cut."""
    sound = "".join("\ufffd" if one == "\x00" or "\ud800" <= one <= "\udfff" else one for one in text[:MAX_TEXT])
    return sound, len(text) > MAX_TEXT


def retry_after(stated: str) -> float | None:
    """Seconds, at most an hour; None if the header is missing or invalid."""
    stated = stated.strip()
    if stated.isascii() and stated.isdigit():
        return min(float(stated[:9]), LONGEST_RETRY_AFTER_SECONDS)
    try:
        at = parsedate_to_datetime(stated)
    except (TypeError, ValueError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return min(max((at - datetime.now(UTC)).total_seconds(), 0.0), LONGEST_RETRY_AFTER_SECONDS)
