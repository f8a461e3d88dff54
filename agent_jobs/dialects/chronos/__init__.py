"""Chronos: a job is a schedule whose firings call a webhook, an execution is a job of ours or a skipped firing.

chronos_words  the table of statuses; requests, jobs, executions and errors, in its words and in ours
chronos_views  its sixteen endpoints

docs/dialects.md says what its document leaves open, and what we do about it.
"""

from agent_jobs.dialects.base import Dialect
from agent_jobs.dialects.chronos import chronos_views as views
from agent_jobs.dialects.chronos import chronos_words as words

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
    words.envelope,
)
