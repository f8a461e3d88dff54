"""Builds the `Run` of a claim and calls the runner with it.

`turns.outcomes` turns the runner's outcome into a settlement.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from django.conf import settings

from agent_jobs import llm, runners, sealed_work, tools
from agent_jobs.catalog import model_keys
from agent_jobs.conversation import agent_messages
from agent_jobs.errors import LeaseLost, PermanentError, RetryableError
from agent_jobs.lifecycle import Claim
from agent_jobs.models import Job, Profile
from agent_jobs.runners import command_runner, invocation
from agent_jobs.runners.base import Failed, Outcome, Run, Runner
from agent_jobs.turns import left_out_tools
from agent_jobs.turns.calls_in_flight import CALLS, give_back
from agent_jobs.turns.database_retries import patiently
from agent_jobs.turns.journal import TurnJournal
from infra import prepared_sql
from infra.egress import requests_client
from infra.sealing import SealingError

OnStart = Callable[[Callable[[], object]], object]


def take(claim: Claim, runner: Runner) -> Outcome:
    """Run one turn of a conversation: build its run and journal, call the runner, and return its outcome."""
    try:
        run, journal = patiently(lambda: with_journal(claim))
    except (RetryableError, PermanentError) as error:
        return invocation.failure(error)
    except LeaseLost as error:
        return Failed(error.code, error.message)
    return replace(invocation.call(runner, run), calls=tuple(journal.calls))


def plain(claim: Claim) -> Run:
    """The run for a runner without a conversation, from the claim alone. Raises PermanentError if its secrets cannot
    be opened."""
    return Run(
        job_id=str(claim.id),
        org_id=claim.org_id,
        wake=claim.wake,
        prompt=claim.prompt,
        params=claim.params,
        config=claim.config,
        follow_ups_sent=claim.follow_ups_sent,
        task_id=str(claim.task_id),
        failed_attempts=claim.failed_attempts,
        work=_whole_work(claim),
        schedule_id=claim.schedule_id,
        scheduled_at=claim.scheduled_at,
        fire_at=claim.fire_at,
        egress=requests_client.rules(),
        commands=_command_mode(claim),
    )


def take_plain(claim: Claim, runner: Runner) -> Outcome:
    """Run one turn of a job without a conversation, and return its outcome. Aborts it within two seconds if the job is
    lost.
    """
    run = plain(claim)
    if runner.batch_size > 1:  # short, so there is nothing to abort
        return invocation.call(runner, run)
    return _abortable(claim, lambda on_start: invocation.call(runner, replace(run, on_start=on_start)))


def take_plain_alone(claim: Claim, runner: Runner, *, seconds: float) -> Outcome:
    """Run one turn as `take_plain` does, in a process of its own, which is killed if the job is lost."""
    run = plain(claim)
    return _abortable(claim, lambda on_start: invocation.call_alone(runner, run, seconds=seconds, on_start=on_start))


def _abortable(claim: Claim, call: Callable[[OnStart], Outcome]) -> Outcome:
    give_back()
    with CALLS.call(claim.id, claim.token) as flying:
        outcome = call(flying.begun)
    return Failed(LeaseLost.code, "this worker no longer holds the job") if flying.is_lost else outcome


def _command_mode(claim: Claim) -> str:
    """How this process runs commands. Raises PermanentError if the organisation may not run any, or not any more."""
    rules = runners.get(claim.runner).work
    if rules is None or not rules.runs_commands:
        return command_runner.OFF
    is_allowed, may_use_network = prepared_sql.first(
        "SELECT allows_commands, allows_command_network FROM agent_jobs_org WHERE id = %(id)s", {"id": claim.org_id}
    )
    if not is_allowed:
        raise PermanentError("the organization may not run commands any more", code=command_runner.NOT_ALLOWED)
    if claim.work.get("network") and not may_use_network:
        message = "the organization's commands may not use the network any more"
        raise PermanentError(message, code=command_runner.NETWORK_NOT_ALLOWED)
    return str(settings.COMMAND_RUNNER)


def _whole_work(claim: Claim) -> Mapping[str, Any]:
    if not claim.sealed_work:
        return claim.work
    job = Job(pk=claim.id, org_id=claim.org_id, work=claim.work, sealed_work=claim.sealed_work)
    try:
        return sealed_work.whole(job)
    except SealingError as error:
        raise PermanentError(error.message, code="secret_unavailable") from None


def with_journal(claim: Claim) -> tuple[Run, TurnJournal]:
    """The run of a conversation. Reads the transcript, the profile and the recorded steps of this turn.

    Records the tools that cannot be offered. Raises RunError if a tool is unavailable.
    """
    profile_id = claim.config.get("profile_id")
    whose = {"org": claim.org_id, "key": profile_id}
    profile = prepared_sql.instance(Profile, "org_id = %(org)s AND key = %(key)s", whose) if profile_id else None
    offered = _offered(claim, claim.agent.get("tools", []), profile.allowed_tools if profile else None)
    schema = claim.agent.get("result_schema", {})
    journal = TurnJournal(claim, model_keys.resolve(claim.org_id, profile), offered, schema)
    run = replace(
        plain(claim),
        transcript=agent_messages.said_in(claim.id),
        instructions=profile.instructions if profile else "",
        tools=tuple(llm.Tool(tool.name, tool.description, tool.parameters) for tool in offered),
        result_schema=schema,
        journal=journal,
    )
    return run, journal


def _offered(
    claim: Claim, stated: Sequence[dict[str, Any]], allowed: Sequence[str] | None
) -> tuple[tools.Declared, ...]:
    """The agent's tools. Asks MCP servers for theirs, and aborts those requests if the job is lost meanwhile."""
    if not any(tool["type"] == "mcp" for tool in stated):
        return tools.offered(claim.org_id, stated, allowed=allowed)
    left_out: list[tools.LeftOut] = []
    give_back()
    with CALLS.call(claim.id, claim.token) as flying:
        on_start, leave_out = flying.begun, left_out.append
        try:
            found = tools.offered(claim.org_id, stated, allowed=allowed, on_start=on_start, leave_out=leave_out)
        except RetryableError:
            if flying.is_lost:
                raise PermanentError("this worker no longer holds the job", code=LeaseLost.code) from None
            raise
    left_out_tools.record(claim, left_out)
    return found
