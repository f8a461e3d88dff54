"""The experiments: what is done to the service, and what it promises meanwhile. One line each in `EXPERIMENTS`."""

from tests.chaos.experiments import none, processes, redis, slack
from tests.chaos.stage import Experiment

EXPERIMENTS: tuple[Experiment, ...] = (none.E0, processes.E1, processes.E2, redis.E3, slack.E6)
BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}
