"""The names of the events that endpoints can ask for."""

JOB_EVENTS = ("job.created", "job.started", "job.message", "job.completed", "job.failed", "job.canceled")
SCHEDULE_EVENTS = ("schedule.skipped", "schedule.misfired")
APPROVAL_EVENTS = ("approval.undelivered",)
EVENT_TYPES = (*JOB_EVENTS, *SCHEDULE_EVENTS, *APPROVAL_EVENTS)
# Only `POST …/test` makes it. No endpoint asks for it.
TEST = "webhook.test"
