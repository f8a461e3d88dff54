"""Workspace: people sign in, make jobs in a workspace, and move them by PATCH. Mounted at the root.

A workspace is an organisation, named by its number. Its list shows every job of the organisation. A job made here has
the external runner; nothing performs it unless an executor claims it.

workspace_json   statuses, priorities, requests, answers and errors (`envelope`): Workspace's JSON and our values
workspace_logins  credentials: `/auth/login`, `/auth/refresh` and their tokens
workspace_views   the nine operations on jobs
"""

from agent_jobs.dialects.base import Dialect
from agent_jobs.dialects.workspace import workspace_json as shapes
from agent_jobs.dialects.workspace import workspace_logins as logins
from agent_jobs.dialects.workspace import workspace_views as views

_JOBS = "workspace/<str:workspace_id>/jobs"
_JOB = f"{_JOBS}/<str:job_id>"
DIALECT = Dialect(
    name="workspace",
    mount="",
    routes=(
        ("auth/login", logins.WorkspaceLogin),
        ("auth/refresh", logins.WorkspaceRefresh),
        (_JOBS, views.WorkspaceJobs),
        (_JOB, views.WorkspaceJob),
        (f"{_JOB}/status", views.WorkspaceJobStatus),
        (f"{_JOB}/result", views.WorkspaceJobResult),
        (f"{_JOB}/cancel", views.WorkspaceCancel),
        (f"{_JOB}/retry", views.WorkspaceRetry),
        ("jobs", views.WorkspaceAllJobs),
    ),
    envelope=shapes.envelope,
    areas=("auth", "workspace", "jobs"),
)
