"""Whether the service is ready: what the processes did lately, and whether the database has every migration."""

from dataclasses import dataclass
from datetime import timedelta

from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models.functions import Now

from agent_jobs.models import DutyRun, WorkerProcess
from infra import raw_sql


@dataclass(frozen=True, slots=True)
class RecentWork:
    """Whether a worker process recently received a doorbell message, whether the promotion duty ran recently, and
    whether a message from beat triggered it (without one, workers poll and do it).
    """

    has_worked: bool
    has_done_duties: bool
    is_rung: bool

    @property
    def is_any(self) -> bool:
        return self.has_worked or self.has_done_duties


def answers() -> None:
    """Run an empty query. The driver's error passes through if the database does not answer."""
    raw_sql.run("SELECT 1")


def work_lately(*, within_seconds: int) -> RecentWork:
    since = Now() - timedelta(seconds=within_seconds)
    has_worked = WorkerProcess.objects.filter(worked_at__gte=since).exists()
    done = set(DutyRun.objects.filter(done_at__gte=since).values_list("duty", flat=True))
    return RecentWork(has_worked, "promote" in done, DutyRun.BELL in done)


_migrated: set[str] = set()


def is_migrated() -> bool:
    """Whether every migration is applied. The process caches a yes and rechecks a no."""
    name = connection.settings_dict["NAME"]
    if name not in _migrated:
        answers()
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            return False
        _migrated.add(name)
    return True
