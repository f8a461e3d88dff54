"""Divides the threads of a worker process among the queues, so that one kind of work cannot take all of them."""

from collections.abc import Mapping, Sequence

from agent_jobs.runners import Runner

# Deliveries, inbound messages and duties.
_OTHER_THREADS = 7
# Runners that take batches are bound by the CPU, so more threads do not help. The others wait for servers.
_THREADS_OF_BATCHES = 2
# Commands use this machine's CPU, too.
_FIXED = {"commands": 3}


def shares(found: Sequence[Runner], *, threads: int) -> Mapping[str, int]:
    """The threads of each queue: `{"agents": 10, "messages": 2, "webhooks": 10, "commands": 3}`, at least one each."""
    lanes = dict.fromkeys(runner.lane for runner in found)
    fixed = {runner.lane: _THREADS_OF_BATCHES for runner in found if runner.batch_size > 1}
    fixed |= {lane: count for lane, count in _FIXED.items() if lane in lanes}
    each = (threads - _OTHER_THREADS - sum(fixed.values())) // max(1, len(lanes) - len(fixed))
    return {lane: fixed.get(lane, max(1, each)) for lane in lanes}
