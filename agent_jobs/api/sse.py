"""The wire format of a job's events: Server-Sent Events whose `id` is the number of an activity."""

import json
import re
from collections.abc import Mapping
from typing import Any

# Activities sent to a client at a time.
PAGE = 50
HEARTBEAT = b":\n\n"
_NUMBER = re.compile("[0-9]{1,17}")
# Unicode's line breaks: legal in JSON, but many clients split lines at them.
_LINE_BREAKS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def read_id(text: str) -> int:
    """The id of the last event that a client has. Raises ValueError if it is not a number."""
    if not _NUMBER.fullmatch(text):
        raise ValueError("must be the id of an event of this stream: a whole number")
    return int(text)


def event(kind: str, shown: Mapping[str, Any], *, number: int | None = None) -> bytes:
    """Encode one event. The JSON itself contains no line breaks."""
    data = json.dumps(shown, separators=(",", ":"), ensure_ascii=False).translate(_LINE_BREAKS)
    named = "" if number is None else f"id: {number}\n"
    return f"{named}event: {kind}\ndata: {data}\n\n".encode()
