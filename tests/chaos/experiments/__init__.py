"""The experiments: what is done to the service, and what it promises meanwhile. One line each in `EXPERIMENTS`."""

from tests.chaos.experiments import none
from tests.chaos.stage import Experiment

EXPERIMENTS: tuple[Experiment, ...] = (none.E0,)
BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}
