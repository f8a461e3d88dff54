"""Limits for answers of all tools: how much the model sees, and how long a server may ask us to wait."""

from infra.egress import retry_after as header

MAX_TEXT = 20_000
LONGEST_RETRY_AFTER_SECONDS = 3_600.0
UNKNOWN = "Whether it was done is unknown: check before you do it again."


def cut(text: str) -> tuple[str, bool]:
    """The text cut to the limit for models and without characters that no database stores; and whether it was cut."""
    sound = "".join("\ufffd" if one == "\x00" or "\ud800" <= one <= "\udfff" else one for one in text[:MAX_TEXT])
    return sound, len(text) > MAX_TEXT


def retry_after(stated: str) -> float | None:
    """Seconds, at most an hour; None if the header is missing or invalid."""
    return header.seconds(stated, at_most=LONGEST_RETRY_AFTER_SECONDS)
