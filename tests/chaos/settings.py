"""The settings of test processes, and one runner more: see `tests.chaos.poison`."""

from agent_jobs import runners
from tests.chaos.poison import PoisonRunner
from tests.quick_settings import *  # noqa: F403

runners.register(PoisonRunner())
