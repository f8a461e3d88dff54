"""The tables. Only services, queries, stats and admin import them; all other code calls those."""

from agent_jobs.models.audit import AuditEntry, AuditMark, AuditSeal
from agent_jobs.models.budgets import Budget, Reservation, UsageDay
from agent_jobs.models.catalog import JobType, ModelKey, Profile
from agent_jobs.models.executors import Executor
from agent_jobs.models.jobs import Activity, Job, Message, Task
from agent_jobs.models.orgs import AppToken, IdempotencyKey, Membership, Org, PlaceHours, SavedView
from agent_jobs.models.processes import DutyRun, WorkerProcess
from agent_jobs.models.schedules import Schedule, ScheduleFiring, ScheduleVersion
from agent_jobs.models.secrets import ToolSecret
from agent_jobs.models.steps import Approval, Step
from agent_jobs.models.tallies import JobTally, JobTallyEntry
from agent_jobs.models.webhooks import Announcement, WebhookDelivery, WebhookEndpoint

__all__ = [
    "Activity",
    "Announcement",
    "AppToken",
    "Approval",
    "AuditEntry",
    "AuditMark",
    "AuditSeal",
    "Budget",
    "DutyRun",
    "Executor",
    "IdempotencyKey",
    "Job",
    "JobTally",
    "JobTallyEntry",
    "JobType",
    "Membership",
    "Message",
    "ModelKey",
    "Org",
    "PlaceHours",
    "Profile",
    "Reservation",
    "SavedView",
    "Schedule",
    "ScheduleFiring",
    "ScheduleVersion",
    "Step",
    "Task",
    "ToolSecret",
    "UsageDay",
    "WebhookDelivery",
    "WebhookEndpoint",
    "WorkerProcess",
]
