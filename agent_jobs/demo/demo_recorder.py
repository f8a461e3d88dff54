"""Collects the rows of one made-up job as its story is told, with a clock of its own."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from agent_jobs.models import Activity, Approval, Job, Message, Step, Task
from agent_jobs.states import TIME_KINDS, JobStatus, TaskStatus, WaitingFor

MODEL = "openai:gpt-5-mini"


@dataclass(slots=True)
class Recorder:
    """The rows of one story. `at` is the story's own time. It ends once `at` is past `now` (`is_over`): the rest has
    not happened.
    """

    job: Job
    rng: Random
    now: datetime
    at: datetime
    tasks: list[Task] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    activities: list[Activity] = field(default_factory=list)
    approvals: list[Approval] = field(default_factory=list)
    cost: Decimal = Decimal(0)
    tokens: tuple[int, int] = (0, 0)
    calls: int = 0
    is_called_off: bool = False  # somebody cancels it while it waits

    @property
    def is_over(self) -> bool:
        return self.at >= self.now

    def move(self, code: str, note: str, *, to: str, frm: str = "", actor: str = "system:worker") -> None:
        self.activity(code, note, moved_from=frm, moved_to=to, actor=actor)

    def activity(self, code: str, note: str, *, id: UUID | None = None, **columns: Any) -> None:
        self.activities.append(
            Activity(
                id=id or uuid7(),
                org_id=self.job.org_id,
                job_id=self.job.pk,
                code=code,
                note=note,
                created_at=self.at,
                updated_at=self.at,
                processed_at=self.at,
                **columns,
            )
        )

    def begin(self) -> Task:
        if not self.tasks:
            self.job.started_at = self.at
            self.job.deadline_at = self.at + timedelta(minutes=self.job.deadline_minutes)
            self.move("job.started", "RUNNING", frm="WAITING", to="RUNNING")
        task = Task(
            id=uuid7(),
            job_id=self.job.pk,
            number=len(self.tasks) + 1,
            lease_token=len(self.tasks) + 1,
            created_at=self.at,
        )
        self.tasks.append(task)
        self.job.attempt = len(self.tasks)
        return task

    def end(self, result: str, status: str = TaskStatus.COMPLETED) -> None:
        task = self.tasks[-1]
        task.finished_at, task.status, task.result = self.at, status, result
        self.job.turn += 1

    def go_on(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)

    def model(self, seconds: float, tokens: int) -> None:
        step = self._step(Step.Kind.MODEL, MODEL, {"lines": len(self.messages)})
        self.go_on(seconds)
        step.ended_at, step.output = (
            self.at,
            {"text": "", "usage": {"input_tokens": tokens, "output_tokens": tokens // 9}},
        )
        price = (Decimal(tokens) * Decimal("0.0000018")).quantize(Decimal("0.000001"))
        self.cost += price
        self.tokens = (self.tokens[0] + tokens, self.tokens[1] + tokens // 9)
        self.calls += 1
        self.activity(
            "model.call",
            f"asked model {MODEL}",
            consumed_credits=price,
            source_type="process_module",
            output={"input_tokens": tokens, "output_tokens": tokens // 9, "step": step.number},
        )

    def tool(self, name: str, arguments: dict[str, Any], seconds: float, answer: str, *, error: str = "") -> None:
        step = self._step(Step.Kind.TOOL, name, {"arguments": arguments, "parameters": {}})
        step.called_at = self.at
        self.go_on(seconds)
        step.ended_at = self.at
        step.output = {"error": error, "message": answer} if error else {"text": answer, "is_error": False}
        self.activity(
            "tool.call",
            f"called {name}" + (f": {error}" if error else ""),
            id=step.pk,
            status="failed" if error else "completed",
            source_type="process_module",
            input={"tool": name, "step": step.number, "arguments": arguments},
            output={"text": answer, "seconds": round(seconds, 3)},
        )

    def say(self, text: str) -> None:
        delivered_at = self.at + timedelta(seconds=0.9)
        key = self._line("agent", text, is_human=False, delivered_at=delivered_at, heard=self.job.inbox_count)
        self.activity("message.out", f"said: {text[:200]}", id=key, source_type="process_module", output={"text": text})

    def hear(self, author: str, text: str) -> None:
        self.job.inbox_count += 1
        self.job.inbox_seen = self.job.inbox_count
        self.job.first_reply_at = self.job.first_reply_at or self.at
        self.job.follow_ups_sent = 0
        key = self._line(author, text, is_human=True, delivered_at=self.at)
        self.activity("message.in", f"{author}: {text[:200]}", id=key, source_type="direct", actor=f"person:{author}")

    def _line(self, author: str, text: str, **columns: Any) -> UUID:
        key = uuid7()
        self.messages.append(
            Message(job_id=self.job.pk, key=key, author=author, text=text, created_at=self.at, **columns)
        )
        return key

    def ask(
        self, tool: str, question: str, arguments: dict[str, Any], parameters: dict[str, Any], minutes: float
    ) -> Approval:
        step = self._step(Step.Kind.TOOL, tool, {"arguments": arguments, "parameters": parameters})
        self.approvals.append(
            Approval(
                id=uuid7(),
                org_id=self.job.org_id,
                job_id=self.job.pk,
                step_id=step.pk,
                tool=tool,
                question=question,
                arguments=arguments,
                approvers=["user:mara", "user:ben", "user:ann"],
                message_key=uuid7(),
                created_at=self.at,
                expires_at=self.at + timedelta(minutes=minutes),
            )
        )
        return self.approvals[-1]

    def approve(self, approval: Approval, *, by: str, reason: str) -> None:
        approval.status, approval.decided_by, approval.reason, approval.decided_at = "approved", by, reason, self.at
        step = next(each for each in self.steps if each.pk == approval.step_id)
        step.called_at, step.ended_at, step.output = self.at, self.at, {"text": "done", "is_error": False}
        note = f"{approval.tool} was approved by {by}: {reason}"
        self.activity("approval.approved", note, source_type="direct", actor=by)

    def finish(
        self, status: str, note: str, *, result: str | None = None, code: str = "", actor: str = "system:worker"
    ) -> None:
        job = self.job
        moved_from = job.status
        job.status, job.finished_at, job.updated_at, job.result = status, self.at, self.at, result
        job.error_code, job.error_message = code, note if code else ""
        job.waiting_for, job.wake_at, job.lease_until, job.queue_at = "", None, None, None
        code_of = {"COMPLETED": "job.completed", "FAILED": "job.failed", "CANCELED": "job.canceled"}[status]
        told = f"{status} {code}: {note}" if code else f"{status}: {note}" if note else status
        self.move(code_of, told, frm=moved_from, to=status, actor=actor)

    def wait(self, waiting_for: str, *, until: datetime | None) -> None:
        """The job waits now, outside of any worker."""
        self.job.waiting_for, self.job.wake_at, self.job.lease_until = waiting_for, until, None
        self.job.updated_at = min(self.at, self.now)

    def spend_time(self) -> None:
        """Set `time_spent` of the job, as real moves would have done by the trigger."""
        job, spent = self.job, dict.fromkeys(TIME_KINDS, 0.0)
        due = min(max(job.scheduled_at, job.created_at), self.tasks[0].created_at if self.tasks else self.now)
        job.state_since = due if job.status != JobStatus.SCHEDULED else job.created_at
        if job.status != JobStatus.SCHEDULED:
            spent["delay"] += _seconds(job.created_at, due)
        if self.tasks:
            spent["queue"] += _seconds(due, self.tasks[0].created_at)
        following = [task.created_at for task in self.tasks[1:]] + [job.finished_at]
        for task, then in zip(self.tasks, following, strict=False):
            job.state_since = task.created_at
            if task.finished_at is None:
                break
            spent["failed_work" if task.status == TaskStatus.FAILED else "work"] += _seconds(
                task.created_at, task.finished_at
            )
            job.state_since = task.finished_at
            if then is not None:
                spent[_wait_after(task)] += _seconds(task.finished_at, then)
        job.state_since = job.finished_at or job.state_since
        job.time_spent = {kind: round(seconds, 3) for kind, seconds in spent.items() if seconds > 0}

    def _step(self, kind: str, name: str, given: dict[str, Any]) -> Step:
        step = Step(
            id=uuid7(),
            org_id=self.job.org_id,
            job_id=self.job.pk,
            life=0,
            number=len(self.steps) + 1,
            turn=self.job.turn,
            kind=kind,
            name=name,
            input=given,
            begun_at=self.at,
        )
        self.steps.append(step)
        return step


def _seconds(since: datetime, until: datetime) -> float:
    return max((until - since).total_seconds(), 0.0)


def _wait_after(task: Task) -> str:
    result = task.result or ""
    if task.status == TaskStatus.FAILED:
        return WaitingFor.RETRY
    if "quiet hours" in result:
        return WaitingFor.QUIET_HOURS
    return WaitingFor.APPROVAL if "approval" in result else WaitingFor.REPLY
