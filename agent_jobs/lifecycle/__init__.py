"""The only writers of a job's `status`: the guarded moves, and the hand-written statements of the hot path.

Nobody reads a status, decides, and writes later: a move says from which statuses it starts, and the database
settles who was first. Every move writes one Activity in the same transaction.

moves         one event for one job, and the batches of `promote_due`
claims        `settle_and_claim`: turns end and the next ones begin in one statement and one commit
settlements   what a claim is told and answers, as plain values
lanes         the queue of each lane: the place of a job in it, and how one that waited comes back; no status changes
"""

from agent_jobs.lifecycle.claims import settle_and_claim, were_settled
from agent_jobs.lifecycle.moves import MOVE_CODES, due_to_promote, move_one, promote_due, record_creation
from agent_jobs.lifecycle.queue_order import due_to_wake, in_seconds, ready_again, wake_due
from agent_jobs.lifecycle.settlements import Answer, Claim, Line, Note, Settlement, Turn

__all__ = [
    "MOVE_CODES",
    "Answer",
    "Claim",
    "Line",
    "Note",
    "Settlement",
    "Turn",
    "due_to_promote",
    "due_to_wake",
    "in_seconds",
    "move_one",
    "promote_due",
    "ready_again",
    "record_creation",
    "settle_and_claim",
    "wake_due",
    "were_settled",
]
