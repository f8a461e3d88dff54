"""Reads the header Retry-After, by which a server says how long to wait."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def seconds(stated: str, *, at_most: float = 3_600.0) -> float | None:
    """The wait that the header states, in seconds or as a date; None if it is missing or invalid."""
    stated = stated.strip()
    if stated.isascii() and stated.isdigit():
        return min(float(stated[:9]), at_most)
    try:
        at = parsedate_to_datetime(stated)
    except (TypeError, ValueError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return min(max((at - datetime.now(UTC)).total_seconds(), 0.0), at_most)
