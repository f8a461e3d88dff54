"""How many rows of a kind an organisation may have.

Nobody needs as many; the limits keep a single organisation from filling tables and lists that all share.
"""

from typing import Any

from django.db.models import QuerySet

from agent_jobs.errors import Conflict
from agent_jobs.models import Org

MOST_CHANNELS = 1_000  # webhooks and bridges
MOST_CHATS = 100_000  # an application may open one for each visitor, a bridge one for each number
MOST_INSTALLATIONS = 50
MOST_ENTRIES = 1_000  # job types, and as many profiles
MOST_PLACES_WITH_HOURS = 10_000


def require(org_id: str, rows: QuerySet[Any], most: int, *, what: str, code: str) -> None:
    """Raises Conflict where there are `most` of these rows. Locks the organisation's row, within the transaction of
    who is about to add one: two at once cannot both be the last."""
    Org.objects.select_for_update(no_key=True).get(pk=org_id)
    if rows.count() >= most:
        raise Conflict(f"there are {most:,} {what} already, which is the most", code=code)
