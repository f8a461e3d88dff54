"""Chronos: a job is a schedule whose firings call a webhook, an execution is a job of ours or a skipped firing.

chronos_json   statuses, requests, jobs, executions and errors (`envelope`): Chronos' JSON and our values
chronos_views  its sixteen operations

docs/dialects.md says what its document leaves open, and what we do about it.
"""

from agent_jobs.dialects.base import Dialect
from agent_jobs.dialects.chronos import chronos_json as shapes
from agent_jobs.dialects.chronos import chronos_views as views

_JOB = "api/v1/jobs/<str:job_id>"
_EXECUTION = f"{_JOB}/executions/<str:execution_id>"
DIALECT = Dialect(
    "chronos",
    "chronos/",
    (
        ("health", views.ChronosHealth),
        ("api/v1/jobs", views.ChronosJobs),
        (_JOB, views.ChronosJob),
        (f"{_JOB}/trigger", views.TriggerChronosJob),
        (f"{_JOB}/enable", views.EnableChronosJob),
        (f"{_JOB}/disable", views.DisableChronosJob),
        (f"{_JOB}/executions", views.ChronosExecutions),
        (_EXECUTION, views.ChronosExecution),
        (f"{_EXECUTION}/replay", views.ReplayChronosExecution),
        (f"{_JOB}/versions", views.ChronosVersions),
        (f"{_JOB}/versions/<str:number>", views.ChronosVersion),
        (f"{_JOB}/rollback/<str:number>", views.RollBackChronosJob),
        ("api/v1/cluster/status", views.ChronosCluster),
    ),
    shapes.envelope,
)
