"""The table of periodic duties. The Celery entries, beat's schedule, polling and metrics derive from it.

To add a duty: write a function that returns how many rows it handled, and add a line here. A duty that only one process
at a time does (`duty_rounds.alone`) also needs a number in `duty_rounds.LOCKS`.

A duty that runs less often than once a minute still has a doorbell every minute, and returns 0 if it was done within
its period (`pruning.serve_slice`: once an hour). Beat counts `every` from its own start, so a beat that restarts often
would never ring for an hourly one.
"""

from collections.abc import Callable

from agent_jobs import duty_rounds
from agent_jobs.audit import audit_log
from agent_jobs.budgets import reservations
from agent_jobs.duties import org_closing, promotion, pruning, recovery, tallying, webhook_sending
from agent_jobs.duty_rounds import Duty
from agent_jobs.schedules import firing
from agent_jobs.tenants import stored_bytes
from channels_integration import inbound, send_loop
from infra import doorbell


def _ringing(work: Callable[[], int]) -> Callable[[], int]:
    """Allow the doorbells of `work` longer timeouts on a bad connection to Redis, because nobody waits for them."""

    def rung() -> int:
        with doorbell.background_timeout():
            return work()

    return rung


DUTIES = (
    Duty("promote", promotion.serve_second, bell="promote", notes_itself=True),
    Duty("fire", firing.serve_second, bell="fire", notes_itself=True),
    Duty("release_firings", firing.release_queued, bell="sweep"),
    Duty("refresh_zones", firing.refresh_zones, bell="refresh_zones", every=60.0, is_polled=False),
    Duty("take_back", _ringing(recovery.take_back_lost), bell="sweep", notes_itself=True),
    Duty("deadlines", _ringing(recovery.fail_overdue), bell="sweep"),
    Duty("expire", recovery.fail_expired, bell="sweep"),
    Duty("reservations", reservations.expire_lost, bell="sweep"),
    Duty("ring_lanes", _ringing(recovery.ring_for_waiting), bell="sweep"),
    Duty("ring_outbox", _ringing(send_loop.sweep), bell="sweep"),
    Duty("ring_inbox", _ringing(inbound.sweep), bell="sweep"),
    Duty("close_orgs", org_closing.close_orgs, bell="sweep"),
    Duty("webhooks", webhook_sending.serve_slice, bell="webhooks"),
    Duty("audit", audit_log.seal, bell="audit", notes_itself=True),
    Duty(
        "prune",
        lambda: pruning.serve_slice(stop=duty_rounds.STOPPING),
        bell="prune",
        every=60.0,
        notes_itself=True,
        is_polled=False,
    ),
    Duty("tally", tallying.serve_slice, bell="tally", every=10.0, notes_itself=True, is_polled=False),
    Duty("measure", stored_bytes.measure_due, bell="measure", every=10.0, notes_itself=True, is_polled=False),
    Duty("erase", org_closing.erase_orgs, bell="erase", every=60.0, notes_itself=True, is_polled=False),
)
BELLS: dict[str, tuple[Duty, ...]] = {
    bell: tuple(duty for duty in DUTIES if duty.bell == bell) for bell in dict.fromkeys(duty.bell for duty in DUTIES)
}


def every(bell: str) -> float:
    """Seconds between two doorbells from beat."""
    return min(duty.every for duty in BELLS[bell])


def serve(bell: str, *, is_rung: bool = False) -> int:
    """Run the duties of a doorbell. `is_rung`: a doorbell arrived, as opposed to polling."""
    # Workers also ring for the other duties when work is left over, which says nothing about beat.
    return duty_rounds.serve(bell, BELLS[bell], is_rung=is_rung and is_polled(bell))


def is_polled(bell: str) -> bool:
    return all(duty.is_polled for duty in BELLS[bell])
