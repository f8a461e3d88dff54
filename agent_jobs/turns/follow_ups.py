"""The rules of follow-ups: after how long a silence the agent speaks again, how often, and how the job ends after that.

A follow-up is an ordinary turn of the conversation with `wake` SILENCE (`runners.conversation`). `llm.hosted` has the
words that tell a model so, `specs` the config's fields. Pure functions.
"""

from collections.abc import Mapping
from typing import Any

from agent_jobs.lifecycle import Claim
from agent_jobs.runners.base import Done, Failed, Outcome, Wake

NO_RESPONSE = "no_response"
DEFAULT_INTERVAL_MINUTES = 60.0
# A reply resets the count of follow-ups, so a job may send this many times its maximum in all.
_MOST_ROUNDS = 3


def ended(claim: Claim) -> Outcome | None:
    """The end of a job that nobody has answered, after its last follow-up; None if the turn may run."""
    if claim.wake != Wake.SILENCE:
        return None
    most = claim.config.get("max_follow_ups", 0)
    if claim.follow_ups_sent < most and claim.follow_ups_total < _MOST_ROUNDS * most:
        return None
    sent = claim.follow_ups_total
    message = f"nobody answered{f', after {sent} follow-up' + ('s' if sent > 1 else '') if sent else ''}"
    if claim.config.get("on_no_response", "complete") == "fail":
        return Failed(NO_RESPONSE, message)
    return Done(result=f"{NO_RESPONSE}: {message}", result_data={"outcome": NO_RESPONSE, "follow_ups": sent})


def seconds_of_silence(config: Mapping[str, Any], unanswered: int) -> float:
    """Seconds of silence before the next follow-up, after `unanswered` ones: 1x, 2x, then always 4x the interval."""
    minutes = config.get("follow_up_interval", DEFAULT_INTERVAL_MINUTES)
    return float(minutes * 60 * min(2**unanswered, 4))
