"""The URLs of the native API: the same routes under two prefixes, and the catalogue also without a prefix.

The OpenAPI document describes only the first address of each route.
"""

from typing import Any

from django.urls import URLPattern, include, path
from django.urls.resolvers import URLResolver

from agent_jobs.api import (
    activities,
    app_tokens,
    approvals,
    audit,
    catalog,
    channel_messages,
    channels,
    docs,
    events,
    executors,
    health,
    hours,
    job_bulk,
    job_messages,
    job_repeats,
    job_tasks,
    jobs,
    metrics,
    model_keys,
    schedule_actions,
    schedule_history,
    schedules,
    stats,
    tool_secrets,
    usage,
    webhook_endpoints,
)


def _catalog(prefix: str, **kwargs: Any) -> list[URLPattern]:
    types, profiles = f"{prefix}/agent-jobs-type", f"{prefix}/profiles"
    return [
        path(types, catalog.JobTypes.as_view(**kwargs)),
        path(f"{types}/<str:entry_id>", catalog.JobTypeDetail.as_view(**kwargs)),
        path(profiles, catalog.Profiles.as_view(**kwargs)),
        path(f"{profiles}/<str:entry_id>", catalog.ProfileDetail.as_view(**kwargs)),
    ]


def _hours(prefix: str, **kwargs: Any) -> list[URLPattern]:
    return [
        path(prefix, hours.OrgHours.as_view(**kwargs)),
        path(f"{prefix}/channels", hours.ChannelsHours.as_view(**kwargs)),
        path(f"{prefix}/channels/<str:platform>/<str:code>", hours.ChannelHours.as_view(**kwargs)),
        path(f"{prefix}/people", hours.PeopleHours.as_view(**kwargs)),
        path(f"{prefix}/people/<str:platform>/<str:person>", hours.PersonHours.as_view(**kwargs)),
    ]


def _webhooks(prefix: str, **kwargs: Any) -> list[URLPattern]:
    one, deliveries = f"{prefix}/<str:endpoint_id>", f"{prefix}/<str:endpoint_id>/deliveries"
    return [
        path(prefix, webhook_endpoints.WebhookEndpoints.as_view(**kwargs)),
        path(one, webhook_endpoints.WebhookEndpointDetail.as_view(**kwargs)),
        path(f"{one}/rotate-secret", webhook_endpoints.RotateWebhookSecret.as_view(**kwargs)),
        path(f"{one}/test", webhook_endpoints.TestWebhook.as_view(**kwargs)),
        path(deliveries, webhook_endpoints.WebhookDeliveries.as_view(**kwargs)),
        path(f"{deliveries}/<str:delivery_id>/redeliver", webhook_endpoints.RedeliverWebhook.as_view(**kwargs)),
    ]


def _schedules(prefix: str, **kwargs: Any) -> list[URLPattern]:
    one = f"{prefix}/<str:schedule_id>"
    return [
        path(prefix, schedules.Schedules.as_view(**kwargs)),
        path(f"{prefix}/preview", schedule_history.PreviewSchedule.as_view(**kwargs)),
        path(f"{prefix}/by-key/<str:key>", schedules.ScheduleByKey.as_view(**kwargs)),
        path(one, schedules.ScheduleDetail.as_view(**kwargs)),
        path(f"{one}/pause", schedule_actions.PauseSchedule.as_view(**kwargs)),
        path(f"{one}/resume", schedule_actions.ResumeSchedule.as_view(**kwargs)),
        path(f"{one}/run", schedule_actions.RunSchedule.as_view(**kwargs)),
        path(f"{one}/backfill", schedule_actions.BackfillSchedule.as_view(**kwargs)),
        path(f"{one}/next", schedule_history.NextFirings.as_view(**kwargs)),
        path(f"{one}/jobs", schedule_history.ScheduleJobs.as_view(**kwargs)),
        path(f"{one}/firings", schedule_history.ScheduleFirings.as_view(**kwargs)),
        path(f"{one}/versions", schedule_history.ScheduleVersions.as_view(**kwargs)),
        path(f"{one}/versions/<str:number>", schedule_history.ScheduleVersionDetail.as_view(**kwargs)),
        path(f"{one}/rollback/<str:number>", schedule_actions.RollBackSchedule.as_view(**kwargs)),
    ]


def _services(**kwargs: Any) -> list[URLPattern]:
    return [
        path("agent-jobs", jobs.Jobs.as_view(**kwargs)),
        path("agent-jobs/", jobs.MissingJobId.as_view()),
        path("agent-jobs/bulk", job_bulk.BulkJobs.as_view(**kwargs)),
        path("agent-jobs/bulk/cancel", job_bulk.BulkCancel.as_view(**kwargs)),
        path("agent-jobs/bulk/retry", job_bulk.BulkRetry.as_view(**kwargs)),
        path("agent-jobs/changes", events.OrgJobChanges.as_view(**kwargs)),
        path("agent-jobs/<str:job_id>", jobs.JobDetail.as_view(**kwargs)),
        path("agent-jobs/<str:job_id>/events", events.JobEvents.as_view(**kwargs)),
        path("agent-jobs/<str:job_id>/messages", job_messages.JobMessages.as_view(**kwargs)),
        path("agent-jobs/<str:job_id>/retry", job_repeats.Retry.as_view(**kwargs)),
        path("agent-jobs/<str:job_id>/replay", job_repeats.Replay.as_view(**kwargs)),
        path("agent-jobs/<str:job_id>/tasks", job_tasks.JobTasks.as_view(**kwargs)),
        path("agent-jobs/<str:job_id>/tasks/<str:task_id>", job_tasks.JobTaskDetail.as_view(**kwargs)),
        path("agent-jobs/<str:job_id>/approvals", approvals.JobApprovals.as_view(**kwargs)),
        path("agent-jobs/<str:job_id>/approvals/<str:approval_id>", approvals.JobApproval.as_view(**kwargs)),
        *_schedules("agent-schedules", **kwargs),
        path("executors", executors.Executors.as_view(**kwargs)),
        path("executors/claim", executors.ExecutorClaims.as_view(**kwargs)),
        path("executors/jobs/<str:job_id>/heartbeat", executors.ExecutorHeartbeat.as_view(**kwargs)),
        path("executors/jobs/<str:job_id>/complete", executors.ExecutorComplete.as_view(**kwargs)),
        path("executors/jobs/<str:job_id>/fail", executors.ExecutorFail.as_view(**kwargs)),
        path("executors/jobs/<str:job_id>/release", executors.ExecutorRelease.as_view(**kwargs)),
        path("approvals", approvals.Approvals.as_view(**kwargs)),
        path("app-tokens", app_tokens.AppTokens.as_view(**kwargs)),
        path("app-tokens/<str:public_id>", app_tokens.AppTokenDetail.as_view(**kwargs)),
        path("audit", audit.Audit.as_view(**kwargs)),
        path("tool-secrets", tool_secrets.ToolSecrets.as_view(**kwargs)),
        path("tool-secrets/<str:name>", tool_secrets.ToolSecretDetail.as_view(**kwargs)),
        path("activities", activities.Activities.as_view(**kwargs)),
        path("stats", stats.Stats.as_view(**kwargs)),
        path("workers", stats.Workers.as_view(**kwargs)),
        path("usage", usage.UsageReport.as_view(**kwargs)),
        *_catalog("organizations/<str:org_id>", **kwargs),
        path("organizations/<str:org_id>/model-keys", model_keys.ModelKeys.as_view(**kwargs)),
        path("organizations/<str:org_id>/model-keys/<str:provider>", model_keys.ModelKeyDetail.as_view(**kwargs)),
        *_hours("organizations/<str:org_id>/hours", **kwargs),
        path("channels", channels.Channels.as_view(**kwargs)),
        path("channels/slack/installations", channels.Installations.as_view(**kwargs)),
        path("channels/slack/installations/<str:team_id>", channels.InstallationDetail.as_view(**kwargs)),
        path("channels/<str:platform>/<str:code>", channels.ChannelDetail.as_view(**kwargs)),
        path("channels/<str:platform>/<str:code>/messages", channel_messages.Messages.as_view(**kwargs)),
        path("channels/<str:platform>/<str:code>/presses", channel_messages.Presses.as_view(**kwargs)),
        *_webhooks("webhook-endpoints", **kwargs),
    ]


urlpatterns: list[URLPattern | URLResolver] = [
    path("services/", include(_services())),
    path("api/v0/services/", include(_services(schema=None))),
    *_catalog("organizations/<str:org_id>", schema=None),
    path("health/live", health.Live.as_view()),
    path("metrics", metrics.page),
    path("health/ready", health.Ready.as_view()),
    path("schema", docs.Schema.as_view(), name="schema"),
    path("docs", docs.Docs.as_view(url_name="schema"), name="docs"),
]
