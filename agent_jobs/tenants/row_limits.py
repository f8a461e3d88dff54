"""Limits on the number of rows of each kind per organisation.

No organisation needs as many. The limits prevent one from filling tables and lists that all organisations share.
"""

from typing import Any

from django.db.models import QuerySet

from agent_jobs.errors import Conflict
from agent_jobs.models import Org

MOST_CHANNELS = 1_000  # webhooks and bridges
MOST_CHATS = 100_000  # an application may open one per visitor, a bridge one per phone number
MOST_INSTALLATIONS = 50
MOST_ENTRIES = 1_000  # job types, and as many profiles
MOST_PLACES_WITH_HOURS = 10_000


def require(org_id: str, rows: QuerySet[Any], most: int, *, what: str, code: str) -> None:
    """Check that the organisation may have one more of these rows. Raises Conflict if there are `most` already.

    Locks the organisation's row in the caller's transaction, so that two concurrent inserts cannot both be the last.
    """
    Org.objects.select_for_update(no_key=True).get(pk=org_id)
    if rows.count() >= most:
        raise Conflict(f"there are {most:,} {what} already, which is the limit", code=code)
