"""Chadburn: a job is a schedule whose firings run a shell line, an execution is a job of ours.

chadburn_json   statuses, requests, answers and errors (`envelope`): Chadburn's JSON and our values
chadburn_views  its nine operations

docs/dialects.md says what its document leaves open, and what we do about it.
"""

from agent_jobs.dialects.base import Dialect
from agent_jobs.dialects.chadburn import chadburn_json as shapes
from agent_jobs.dialects.chadburn import chadburn_views as views

DIALECT = Dialect(
    "chadburn",
    "chadburn/",
    (
        ("api/v1/jobs", views.ChadburnJobsView),
        ("api/v1/jobs/<str:job_id>", views.ChadburnJobView),
        ("api/v1/jobs/<str:job_id>/run", views.RunChadburnJob),
        ("api/v1/jobs/<str:job_id>/pause", views.PauseChadburnJob),
        ("api/v1/jobs/<str:job_id>/resume", views.ResumeChadburnJob),
        ("api/v1/jobs/<str:job_id>/executions", views.ChadburnExecutionsView),
    ),
    shapes.envelope,
)
