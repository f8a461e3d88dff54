"""The counts beside the console's navigation, in one statement. Each stops at `MOST_COUNTED` rows."""

from dataclasses import dataclass

from infra import raw_sql

MOST_COUNTED = 10_000
ALIVE_SECONDS = 30
_LATELY_SECONDS = 600

_COUNTS = f"""
SELECT
    (SELECT count(*) FROM (SELECT FROM agent_jobs_job WHERE org_id = %(org)s
        AND status IN ('SCHEDULED', 'WAITING', 'RUNNING') LIMIT {MOST_COUNTED + 1}) living),
    (SELECT count(*) FROM (SELECT FROM agent_jobs_approval WHERE org_id = %(org)s
        AND status = 'pending' LIMIT {MOST_COUNTED + 1}) pending),
    (SELECT count(*) FROM agent_jobs_workerprocess
        WHERE lost_at IS NULL AND seen_at > now() - interval '{ALIVE_SECONDS} seconds'),
    (SELECT count(*) FROM agent_jobs_workerprocess
        WHERE lost_at IS NULL AND seen_at BETWEEN now() - interval '{_LATELY_SECONDS} seconds'
            AND now() - interval '{ALIVE_SECONDS} seconds'),
    (SELECT extract(epoch FROM now() - max(done_at))::float8 FROM agent_jobs_dutyrun WHERE duty = 'bell')
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class ProcessHealth:
    """The processes behind the service. `bell_seconds`: the age of the last message from beat that a worker answered;
    None if there never was one.
    """

    workers: int
    silent_workers: int
    bell_seconds: float | None

    @property
    def has_beat(self) -> bool:
        return self.bell_seconds is not None and self.bell_seconds < ALIVE_SECONDS

    @property
    def is_well(self) -> bool:
        return bool(self.workers) and not self.silent_workers and self.has_beat


@dataclass(frozen=True, slots=True)
class Counts:
    living_jobs: int
    pending_approvals: int
    health: ProcessHealth


def counts(org_id: str) -> Counts:
    living, pending, workers, silent, bell = raw_sql.first(_COUNTS, {"org": org_id})
    return Counts(living, pending, ProcessHealth(workers, silent, bell))
