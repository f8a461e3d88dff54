"""The only writers of a job's `status`: the guarded moves, and the hand-written statements of the hot path.

No code reads a status, decides, and writes later. A move names the statuses that it starts from, and the database
decides which of two concurrent moves wins. Every move writes one Activity in the same transaction.

moves         applies one event to one job or to many; promotes due jobs in batches (`promote_due`)
claims        `settle_and_claim`: ends turns and begins the next ones in one statement and one commit
settlements   the plain values that a worker and the database exchange
queue_order   the order of jobs in a queue, and the return of waiting jobs into it; changes no status
queues        rings the doorbell of a queue
running_caps  limits on RUNNING jobs
activities    writes one activity of a job
budget_waits  joins a job's turns that found no room in a budget into one task
approval_closing  closes approvals that need no decision any more, and words the line under their message
endings       the texts and codes of a job's end
"""

from agent_jobs.lifecycle import budget_waits
from agent_jobs.lifecycle.claims import settle_and_claim, were_settled
from agent_jobs.lifecycle.moves import (
    MOVE_CODES,
    due_to_promote,
    fail_one,
    lock_many,
    move_many,
    move_one,
    promote_due,
    record_creations,
)
from agent_jobs.lifecycle.queue_order import due_to_wake, in_seconds, ready_again, wake_due
from agent_jobs.lifecycle.settlements import Claim, ClaimResult, Note, OrgRotation, Settlement, SpokenLine

__all__ = [
    "MOVE_CODES",
    "Claim",
    "ClaimResult",
    "Note",
    "OrgRotation",
    "Settlement",
    "SpokenLine",
    "budget_waits",
    "due_to_promote",
    "due_to_wake",
    "fail_one",
    "in_seconds",
    "lock_many",
    "move_many",
    "move_one",
    "promote_due",
    "ready_again",
    "record_creations",
    "settle_and_claim",
    "wake_due",
    "were_settled",
]
