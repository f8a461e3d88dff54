"""The jobs of an organisation that have changed since a moment, for streams that many clients follow at once.

`updated_at` is the time at which the changing transaction began, so a change may become visible after later ones. Each
look therefore begins `OVERLAP` before the last one, and leaves out what it has told already. A change whose transaction
took longer than that is not told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from infra import database, raw_sql

OVERLAP = timedelta(seconds=5)
MOST = 500
_LONGEST = timedelta(hours=1)
_CHANGES = f"""
SELECT asked.place, job.id, job.updated_at
FROM unnest(%s::text[], %s::timestamptz[]) WITH ORDINALITY AS asked (org_id, since, place)
CROSS JOIN LATERAL (
    SELECT id, updated_at FROM agent_jobs_job
    WHERE org_id = asked.org_id AND updated_at > asked.since AND updated_at < 'infinity'
    ORDER BY updated_at DESC, id DESC LIMIT {MOST}
) job
"""  # noqa: S608 - a constant


@dataclass(frozen=True, slots=True)
class ChangedJobs:
    """The jobs that changed, for one reader. `until`: microseconds since 1970, the `since` of a later read."""

    job_ids: Sequence[UUID]
    until: int


@dataclass(slots=True, eq=False)
class ChangesReader:
    """The position of one client in the stream. `since`: microseconds since 1970; None starts now."""

    org_id: str
    since: int | None
    _told: dict[UUID, datetime] = field(default_factory=dict)
    _at: datetime | None = None
    _is_first: bool = False

    def start(self, now: datetime) -> datetime:
        """The moment from which this client's changes are read."""
        if self._at is None:
            self._is_first = self.since is None
            self._at = now if self.since is None else max(_time(self.since), now - _LONGEST)
        return self._at - OVERLAP

    def take(self, found: Sequence[tuple[UUID, datetime]]) -> ChangedJobs | None:
        assert self._at is not None
        new = [(job_id, at) for job_id, at in found if self._told.get(job_id) != at]
        self._told = dict(found)
        if self._is_first:  # what was there before the client came is not news
            self._is_first = False
            return None
        if not new:
            return None
        self._at = max(self._at, *(at for _, at in new))
        return ChangedJobs([job_id for job_id, _ in new], int(self._at.timestamp() * 1_000_000))


def read(readers: Sequence[ChangesReader]) -> Mapping[ChangesReader, ChangedJobs | None]:
    """Read the changes that are new for each reader, in one statement, and mark them as told."""
    if not readers:
        return {}
    now = database.now()
    found: dict[int, list[tuple[UUID, datetime]]] = {}
    asked = [[one.org_id for one in readers], [one.start(now) for one in readers]]
    for place, job_id, at in raw_sql.all_rows(_CHANGES, asked):
        found.setdefault(place, []).append((job_id, at))
    return {one: one.take(found.get(place, [])) for place, one in enumerate(readers, start=1)}


def _time(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
