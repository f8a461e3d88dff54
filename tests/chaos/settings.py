"""The service's own settings, and one runner more: see `tests.chaos.poison`."""

from agent_jobs import runners
from config.settings import *  # noqa: F403
from tests.chaos.poison import PoisonRunner

runners.register(PoisonRunner())
