"""What a claim becomes for a runner: the run, with all that it needs of the database. Nothing here writes.

What becomes of the runner's outcome is `services.outcomes`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from agent_jobs import llm
from agent_jobs.errors import LeaseLost, PermanentError, RetryableError
from agent_jobs.models import Profile
from agent_jobs.runners import calling
from agent_jobs.runners.base import Failed, Outcome, Run, Runner, Wake
from agent_jobs.services import model_access, speech, tools
from agent_jobs.services.inflight import CALLS, give_back
from agent_jobs.services.journal import Journal
from agent_jobs.services.patience import patiently
from agent_jobs.states import WaitingFor
from channels_integration import statements


def take(claim: dict[str, Any], runner: Runner) -> Outcome:
    """The turn of a claim whose runner talks with people, with all that it needs of the database."""
    try:
        run, journal = patiently(lambda: with_journal(claim, prepare(claim)))
    except (RetryableError, PermanentError) as error:
        return calling.failure(error)
    except LeaseLost as error:
        return Failed(error.code, error.message)
    return replace(calling.call(runner, run), calls=tuple(journal.calls))


def prepare(claim: dict[str, Any]) -> Run:
    """The run of a claim, as far as the claim tells."""
    return Run(
        job_id=claim["id"],
        org_id=claim["org_id"],
        wake=_wake(claim),
        prompt=claim["prompt"],
        params=claim["params"],
        config=claim["config"],
        follow_ups_sent=claim["follow_ups_sent"],
    )


def with_journal(claim: dict[str, Any], run: Run) -> tuple[Run, Journal]:
    """Reads the transcript, the profile, and what is recorded of this turn. Raises RunError where a tool is away."""
    profile_id = claim["config"].get("profile_id")
    whose = {"org": claim["org_id"], "key": profile_id}
    profile = statements.instance(Profile, "org_id = %(org)s AND key = %(key)s", whose) if profile_id else None
    agent = claim["agent"]
    offered = _offered(claim, agent.get("tools", []), profile.allowed_tools if profile else None)
    schema = agent.get("result_schema", {})
    journal = Journal(claim, model_access.resolve(claim["org_id"], profile), offered, schema)
    run = replace(
        run,
        transcript=speech.said_in(claim["id"]),
        instructions=profile.instructions if profile else "",
        tools=tuple(llm.Tool(tool.name, tool.description, tool.parameters) for tool in offered),
        result_schema=schema,
        journal=journal,
    )
    return run, journal


def _offered(
    claim: dict[str, Any], stated: Sequence[dict[str, Any]], allowed: Sequence[str] | None
) -> tuple[tools.Declared, ...]:
    """The agent's tools. Servers of tools are asked for theirs, which is given up where the job is lost meanwhile."""
    if not any(tool["type"] == "mcp" for tool in stated):
        return tools.offered(claim["org_id"], stated, allowed=allowed)
    give_back()
    with CALLS.call(UUID(claim["id"]), claim["token"]) as flying:

        def on_start(give_up: Callable[[], object]) -> None:
            flying.give_up = give_up

        try:
            return tools.offered(claim["org_id"], stated, allowed=allowed, on_start=on_start)
        except RetryableError:
            if flying.is_lost:
                raise PermanentError("the job is not ours any more", code=LeaseLost.code) from None
            raise


def _wake(claim: dict[str, Any]) -> Wake:
    if claim["inbox_count"] > claim["inbox_seen"]:
        return Wake.REPLY
    if claim["resume"]:
        return Wake(claim["resume"])
    return Wake.SILENCE if claim["waiting_for"] == WaitingFor.REPLY else Wake.START
