"""The runners: one file each, one line in `RUNNERS`. They use no Django, and do not import each other.

Workers call those of `RUNNERS`, and serve their lanes. The jobs of `EXTERNAL` are performed by executors.
"""

from agent_jobs.runners.base import Runner
from agent_jobs.runners.command_runner import CommandRunner
from agent_jobs.runners.conversation import ConversationRunner
from agent_jobs.runners.external import ExternalRunner
from agent_jobs.runners.message import MessageRunner
from agent_jobs.runners.webhook_runner import WebhookRunner

__all__ = ["EXTERNAL", "RUNNERS", "Runner", "get", "lanes", "names", "register"]

RUNNERS: tuple[Runner, ...] = (ConversationRunner(), MessageRunner(), WebhookRunner(), CommandRunner())
EXTERNAL: Runner = ExternalRunner()
_BY_NAME = {runner.name: runner for runner in (*RUNNERS, EXTERNAL)}


def get(name: str) -> Runner:
    """The runner of this name. Raises KeyError for a name that is not registered."""
    return _BY_NAME[name]


def names() -> list[str]:
    """The runners that this release knows."""
    return list(_BY_NAME)


def lanes() -> tuple[str, ...]:
    """The queues that workers serve. Celery's queues, the worker entries and the metrics derive from this."""
    return tuple(dict.fromkeys(runner.lane for runner in RUNNERS))


def register(runner: Runner) -> None:
    """Add a runner that does not ship with the service. Call it where the settings are defined, so in every process."""
    global RUNNERS
    RUNNERS = (*RUNNERS, runner)
    _BY_NAME[runner.name] = runner
