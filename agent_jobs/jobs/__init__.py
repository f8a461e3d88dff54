"""Operations on a job for API handlers and other callers: create, cancel, retry, replay.

Plain functions, the organisation first, the actor passed in, one transaction each. `lifecycle` moves the job.
"""

from agent_jobs.jobs.cancellation import cancel
from agent_jobs.jobs.creation import create, create_many, input_errors
from agent_jobs.jobs.repeats import Changes, replay, retry

__all__ = ["Changes", "cancel", "create", "create_many", "input_errors", "replay", "retry"]
