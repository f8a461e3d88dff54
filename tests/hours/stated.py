"""Hours as an organisation states them: always open, and closed now."""

from datetime import UTC, datetime, timedelta
from typing import Any

OPEN = {"time_zone": "UTC", "quiet": []}


def clock(at: datetime) -> str:
    return f"{at:%H:%M}"


def closed_now(minutes: int = 120) -> dict[str, Any]:
    """Closed since an hour, for `minutes` more."""
    now = datetime.now(UTC)
    return {
        "time_zone": "UTC",
        "quiet": [f"{clock(now - timedelta(hours=1))}-{clock(now + timedelta(minutes=minutes))}"],
    }
