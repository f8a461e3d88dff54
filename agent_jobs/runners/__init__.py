"""The runners: one file each, one line in `RUNNERS`. No Django here, and no runner knows another."""

from agent_jobs.runners.base import Runner
from agent_jobs.runners.conversation import ConversationRunner
from agent_jobs.runners.message import MessageRunner

RUNNERS: tuple[Runner, ...] = (ConversationRunner(), MessageRunner())
_BY_NAME = {runner.name: runner for runner in RUNNERS}


def get(name: str) -> Runner:
    """Raises KeyError for a name that is not registered."""
    return _BY_NAME[name]


def names() -> list[str]:
    """What this process can perform."""
    return list(_BY_NAME)


def register(runner: Runner) -> None:
    """Add one that does not ship with the service; called where settings are made, in every process alike."""
    global RUNNERS
    RUNNERS = (*RUNNERS, runner)
    _BY_NAME[runner.name] = runner
