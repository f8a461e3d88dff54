"""The table of moves, and what it must never allow."""

from agent_jobs.legal_moves import MOVES, Event
from agent_jobs.states import TERMINAL, JobStatus


def test_every_event_has_a_move() -> None:
    assert set(MOVES) == set(Event)


def test_only_a_retry_leaves_a_terminal_status_and_never_a_completed_one() -> None:
    leaving = {(event, source) for event, move in MOVES.items() for source in move.sources if source in TERMINAL}
    assert leaving == {(Event.RETRY, JobStatus.FAILED), (Event.RETRY, JobStatus.CANCELED)}


def test_every_status_that_is_not_terminal_can_be_canceled() -> None:
    assert MOVES[Event.CANCEL].sources == set(JobStatus) - TERMINAL
