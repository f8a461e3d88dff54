"""Executr: outside programs pull jobs that name a binary, and run it. Mounted at `/executr/api/v1`.

Its job is a job of the external runner with a binary, whoever made it; its attempt is a task. An executor names itself
and knows no lease token: its newest attempt at a job counts (`executors.attempts.newest`).

executr_json  statuses, priorities, requests, answers and errors (`envelope`): Executr's JSON and our values
executr_views  its fourteen operations
"""

from agent_jobs.dialects.base import Dialect
from agent_jobs.dialects.executr import executr_json as shapes
from agent_jobs.dialects.executr import executr_views as views

DIALECT = Dialect(
    name="executr",
    mount="executr/",
    routes=(
        ("api/v1/health", views.ExecutrHealth),
        ("api/v1/metrics", views.ExecutrMetrics),
        ("api/v1/jobs", views.ExecutrJobs),
        ("api/v1/jobs/bulk", views.ExecutrBulk),
        ("api/v1/jobs/bulk/cancel", views.ExecutrBulkCancel),
        ("api/v1/jobs/claim", views.ExecutrClaim),
        ("api/v1/jobs/<str:job_id>", views.ExecutrJob),
        ("api/v1/jobs/<str:job_id>/heartbeat", views.ExecutrHeartbeat),
        ("api/v1/jobs/<str:job_id>/complete", views.ExecutrComplete),
        ("api/v1/jobs/<str:job_id>/fail", views.ExecutrFail),
        ("api/v1/admin/stats", views.ExecutrStats),
        ("api/v1/admin/executors", views.ExecutrExecutors),
    ),
    envelope=shapes.envelope,
)
