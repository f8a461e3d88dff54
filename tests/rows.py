"""Rows for tests of the core, made directly: `acme` is ours and `rival` is the stranger."""

from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from agent_jobs.approvals import edit_form
from agent_jobs.budgets import reservations
from agent_jobs.models import Approval, Job, JobType, Org, Step
from agent_jobs.specs import Actor, ChannelSpec, JobSpec
from agent_jobs.states import TERMINAL, JobStatus, WaitingFor
from channels_integration import outbox
from channels_integration.messages import Button, Outgoing, Target

TESTER = Actor("system", "test")


def org(org_id: str = "acme", **columns: Any) -> Org:
    # `get_or_create` would add a savepoint, for nearly every test.
    found = Org.objects.filter(id=org_id).first()
    return found or Org.objects.create(id=org_id, **{"name": org_id.title(), **columns})


def job_type(org_id: str = "acme", key: str = "greet", **columns: Any) -> JobType:
    defaults = {"name": key, "runner": "message", "default_config": {"start_prompt": "Hello {{ name }}"}, **columns}
    found = JobType.objects.filter(org_id=org_id, key=key).first()
    return found or JobType.objects.create(org=org(org_id), key=key, **defaults)


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


def parked(org_id: str = "acme", **columns: Any) -> Job:
    """A job in the middle of a turn that waits, without a worker, for an approval."""
    waits = {"waiting_for": WaitingFor.APPROVAL, "lease_until": None, "runner": "conversation", "lane": "agents"}
    return job(JobStatus.RUNNING, org_id, **waits | columns)


def approval(job: Job, *, is_late: bool = False, buttons: bool = False, **columns: Any) -> Approval:
    """A pending approval of `job` to call `pay`. With `buttons` the question is in the outbox, not sent yet."""
    parameters = {"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]}
    number = Step.objects.filter(job=job).count() + 1
    asked = {"arguments": {"amount": 5}, "parameters": parameters}
    step = Step.objects.create(
        org_id=job.org_id, job=job, life=job.retry_count, number=number, turn=0, kind="tool", name="pay", input=asked
    )
    defaults: dict[str, Any] = {
        "tool": "pay",
        "question": "May I pay 5?",
        "arguments": {"amount": 5},
        "expires_at": datetime.now(UTC) + timedelta(minutes=-1 if is_late else 60),
    }
    found = Approval.objects.create(org_id=job.org_id, job=job, step=step, **defaults | columns)
    if buttons:
        found.message_key = uuid7()
        found.save(update_fields=["message_key"])
        target = Target(job.org_id, job.platform, job.channel_code, job.channel_type, job.channel_data)
        shown = tuple(Button(*button) for button in edit_form.buttons(found, job.platform))
        outbox.enqueue(
            [Outgoing(found.message_key, target, found.question, str(job.pk), job.thread_key, buttons=shown)]
        )
    found.refresh_from_db()
    return found


def budget_approval(job: Job, *, grants: int = 6_000, **columns: Any) -> Approval:
    """A call of a model that `job` has no budget left for."""
    number = Step.objects.filter(job=job).count() + 1
    step = Step.objects.create(
        org_id=job.org_id, job=job, life=job.retry_count, number=number, turn=0, kind="model", name="openai:gpt-fake"
    )
    defaults: dict[str, Any] = {
        "kind": "budget",
        "tool": "openai:gpt-fake",
        "question": "May I have more?",
        "arguments": {"cap": "max_tokens", "of": "job", "limit": grants, "used": 5_030, "grants": grants},
        "on_timeout": "fail",
        "expires_at": datetime.now(UTC) + timedelta(minutes=60),
    }
    found = Approval.objects.create(org_id=job.org_id, job=job, step=step, **defaults | columns)
    found.refresh_from_db()
    return found


def spec(job_type_id: str = "greet", **fields: Any) -> JobSpec:
    defaults: dict[str, Any] = {"channel": ChannelSpec("web", "lobby"), "params": {"name": "Ann"}}
    return JobSpec(job_type_id=job_type_id, **defaults | fields)


def reserved(**call: Any) -> reservations.Held:
    """A reservation in a transaction of its own."""
    with transaction.atomic():
        return reservations.set_aside(**call)
