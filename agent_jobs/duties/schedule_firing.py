"""Fires schedules at the moment they fall due, for one second per call (`duty_rounds.serve_second`)."""

from agent_jobs import duty_rounds
from agent_jobs.schedules import firing


def serve_second(*, seconds: float = 1.0) -> int:
    """Fire what falls due within `seconds`. Returns how many schedules fired; 0 if another process serves."""
    return duty_rounds.serve_second("fire", fire_all, _seconds_to_next_due, seconds=seconds)


def fire_all() -> int:
    """Fire all due schedules, in batches of one transaction each."""
    fired = 0
    while batch := firing.fire_due():
        fired += batch
    return fired


def _seconds_to_next_due() -> float:
    seconds = firing.seconds_to_next_due()
    return duty_rounds.LONGEST_WAIT if seconds is None else seconds
