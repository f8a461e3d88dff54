"""Makes a turn's tool calls, after the approval that some of them need, and resumes those that have no outcome."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction

from agent_jobs import llm, tools
from agent_jobs.conversation import agent_messages
from agent_jobs.errors import LeaseLost, PermanentError, RunError
from agent_jobs.lifecycle import Claim
from agent_jobs.models import Approval, Step
from agent_jobs.runners.base import AwaitApproval
from agent_jobs.turns import argument_repair
from agent_jobs.turns.calls_in_flight import CALLS, give_back
from agent_jobs.turns.database_retries import patiently
from agent_jobs.turns.open_steps import OpenSteps
from infra.storable_text import storable

_UNKNOWN = "Nobody knows whether this was done: the process that did it was stopped. Do not assume either."
_MOST_CHARACTERS = 20_000
# Name and call id of a step that sends the text that the model wrote beside its tool calls.
_SAY = "say"


class ToolCalls:
    """The tool calls of one turn. `heard`: how many human messages the model has seen."""

    def __init__(self, claim: Claim, offered: Sequence[tools.Declared], open_steps: OpenSteps) -> None:
        self._claim = claim
        self._job_id, self._token = claim.id, claim.token
        self._tools = {tool.name: tool for tool in offered}
        self._open = open_steps
        self.heard = 0

    def say(self, texts: Sequence[str]) -> None:
        for text in texts:
            step = self._open.walk.recorded(Step.Kind.TOOL, call_id=_SAY)
            if step is None:
                step = self._open.walk.planned(Step.Kind.TOOL, _SAY, {"arguments": {"text": text}}, call_id=_SAY)
                self._open.begin(step)
            if step.output is None:
                self._say(step, text)

    def perform(self, call: llm.ToolCall) -> str | AwaitApproval:
        tool = self._tools.get(call.name)
        if tool is None:
            complaint = f"There is no tool {call.name[:64]!r}. The tools are: {', '.join(self._tools) or 'none'}."
            return self._refuse(call, tools.Declared(call.name, "", "", {}), complaint)
        arguments = argument_repair.fitted(tool.parameters, dict(call.arguments))
        if complaint := tools.argument_errors(tool, arguments):
            return self._refuse(call, tool, complaint)
        step = self._open.walk.recorded(Step.Kind.TOOL, call_id=call.id)
        if step is None:
            needs_approval = tool.requires_approval or tool.kind == "ask_approval"
            given = {"arguments": arguments, "parameters": dict(tool.parameters)}
            step = self._open.walk.planned(Step.Kind.TOOL, tool.name, given, call_id=call.id)
            self._open.begin(step, asks_for=tool if needs_approval else None)
            if needs_approval:
                return patiently(lambda: self._open.park(Approval.objects.get(step=step)))
            return self._call(step, tool, arguments)
        if step.output is not None:
            return str(step.output["text"])
        return self._take_up(step, tool, arguments)

    def _refuse(self, call: llm.ToolCall, tool: tools.Declared, complaint: str) -> str:
        """Record a tool call that is not made, with the complaint that the model gets."""
        step = self._open.walk.recorded(Step.Kind.TOOL, call_id=call.id)
        if step is not None and step.output is not None:
            return str(step.output["text"])
        if step is None:
            step = self._open.walk.planned(Step.Kind.TOOL, tool.name, {"arguments": call.arguments}, call_id=call.id)
            self._open.begin(step)
        self._open.end(step, {"text": complaint, "is_error": True}, tool, call.arguments)
        return complaint

    def _call(self, step: Step, tool: tools.Declared, arguments: Mapping[str, Any], *, told: str = "") -> str:
        """Make the tool call. `told` precedes the answer: a person's changes or words about the approval."""
        if tool.kind == "send_message":
            return self._say(step, storable(arguments["text"]), told=told)
        began = time.monotonic()
        if tool.kind == "ask_approval":
            answer = tools.ToolAnswer("" if told else "Approved.")
        else:
            self._open.mark_called(step)
            give_back()
            with CALLS.call(self._job_id, self._token) as flying:
                key, on_start = str(step.pk), flying.begun
                try:
                    # Safe to retry: the call reads its secrets from the database before it sends anything, not after.
                    answer = patiently(
                        lambda: tools.call(self._claim.org_id, tool, arguments, key=key, on_start=on_start)
                    )
                except RunError as error:
                    # A RunError means that the tool did nothing, so a retry of the turn may call it afresh.
                    self._open.end(step, {"error": error.code, "message": error.message}, tool, arguments, began)
                    raise
                if flying.is_lost:
                    raise LeaseLost("this worker no longer holds the job")
        text = f"{told}\n{answer.text}".strip()[:_MOST_CHARACTERS]
        self._open.end(step, {"text": text, "is_error": answer.is_error}, tool, arguments, began)
        return _told(step, text)

    def _say(self, step: Step, text: str, *, told: str = "") -> str:
        answer = f"{told}\nSent.".strip()

        def say() -> None:
            with transaction.atomic():
                job = self._open.locked()
                # The step is closed already if an earlier commit succeeded without an acknowledgement.
                if Step.objects.filter(pk=step.pk, output__isnull=True).exists():
                    agent_messages.say(job, text, heard=self.heard)
                    self._open.close(step, {"text": answer, "is_error": False}, {"text": text})

        patiently(say)
        return answer

    def _take_up(self, step: Step, tool: tools.Declared, arguments: Mapping[str, Any]) -> str | AwaitApproval:
        """Resume a tool call that began and has no outcome: its approval is pending or decided, or its worker died."""
        approval = patiently(lambda: self._open.decided(step))
        told = ""
        if approval is not None:
            if approval.status == Approval.Status.PENDING:
                return patiently(lambda: self._open.park(approval))
            if approval.status != Approval.Status.APPROVED:
                if approval.on_timeout == "fail" and approval.status == Approval.Status.EXPIRED:
                    raise PermanentError(f"the approval of {approval.tool} has expired", code="approval_expired")
                text = _refused(approval)
                self._open.end(step, {"text": text, "is_error": True}, tool, arguments)
                return text
            if approval.edited_arguments is not None:
                arguments = approval.edited_arguments
            told = _allowed(approval)
        if step.called_at is None or tool.is_idempotent or tool.kind in ("send_message", "ask_approval"):
            return self._call(step, tool, arguments, told=told)
        self._open.end(step, {"text": _UNKNOWN, "is_error": True}, tool, arguments)
        return _told(step, _UNKNOWN)


def _allowed(approval: Approval) -> str:
    """The words about the decision for the model; empty if the call was approved unchanged and without a note."""
    words = _words(approval)
    if approval.edited_arguments is not None:
        used = json.dumps(approval.edited_arguments, ensure_ascii=False)
        return f"{approval.decided_by} allowed this with other arguments{words}. It was done with these: {used}"
    return f"{approval.decided_by} approved this{words}." if words else ""


def _refused(approval: Approval) -> str:
    if approval.status == Approval.Status.EXPIRED:
        return "Nobody approved this in time: it was not done."
    return f"{approval.decided_by} denied this{_words(approval)}. It was not done."


def _words(approval: Approval) -> str:
    return f", with these words: {json.dumps(approval.reason, ensure_ascii=False)}" if approval.reason else ""


def _told(step: Step, text: str) -> str:
    """The text that a closed step recorded: the model gets that, so that a replay tells the same."""
    return str((step.output or {}).get("text", text))
