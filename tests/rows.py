"""Rows for tests of the core, made directly: `acme` is ours and `rival` is the stranger."""

from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models.functions import Now

from agent_jobs.models import Job, JobType, Org
from agent_jobs.specs import Actor, ChannelSpec, JobSpec
from agent_jobs.states import TERMINAL, JobStatus

TESTER = Actor("system", "test")


def org(org_id: str = "acme", **columns: Any) -> Org:
    return Org.objects.get_or_create(id=org_id, defaults={"name": org_id.title(), **columns})[0]


def job_type(org_id: str = "acme", key: str = "greet", **columns: Any) -> JobType:
    defaults = {"name": key, "runner": "message", "default_config": {"start_prompt": "Hello {{ name }}"}, **columns}
    return JobType.objects.get_or_create(org=org(org_id), key=key, defaults=defaults)[0]


def job(status: JobStatus = JobStatus.WAITING, org_id: str = "acme", **columns: Any) -> Job:
    """A job in `status`, as consistent as the constraints ask for."""
    now = datetime.now(UTC)
    defaults: dict[str, Any] = {
        "org": org(org_id),
        "status": status,
        "job_type_key": "greet",
        "runner": "message",
        "lane": "messages",
        "platform": "web",
        "channel_code": "lobby",
        "prompt": "Hello",
        "scheduled_at": now,
        "deadline_minutes": 60,
    }
    if status == JobStatus.SCHEDULED:
        defaults["scheduled_at"] = now + timedelta(hours=1)
    if status == JobStatus.WAITING:
        defaults["queue_at"] = Now()
    if status == JobStatus.RUNNING:
        defaults |= {"lease_until": now + timedelta(minutes=5), "lease_token": 1, "started_at": now}
    if status in TERMINAL:
        defaults["finished_at"] = now
    row = Job(**defaults | columns)
    row.save(force_insert=True)
    row.refresh_from_db()
    return row


def spec(job_type_id: str = "greet", **fields: Any) -> JobSpec:
    defaults: dict[str, Any] = {"channel": ChannelSpec("web", "lobby"), "params": {"name": "Ann"}}
    return JobSpec(job_type_id=job_type_id, **defaults | fields)
