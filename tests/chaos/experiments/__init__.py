"""The experiments: what is done to the service, and what it promises meanwhile. One line each in `EXPERIMENTS`."""

from tests.chaos.experiments import (
    beats,
    cancels,
    clients,
    clocks,
    disk,
    events,
    flood,
    links,
    none,
    poison,
    postgres,
    processes,
    read_only,
    recurring_faults,
    redis,
    rolling,
    slack,
    strangers,
)
from tests.chaos.stage import Experiment

EXPERIMENTS: tuple[Experiment, ...] = (
    none.E0,
    processes.E1,
    processes.E2,
    redis.E3,
    postgres.E4,
    beats.E5,
    slack.E6,
    events.E7,
    poison.E8,
    clocks.E9,
    disk.E10,
    rolling.E11,
    cancels.E12,
    clients.E13,
    flood.E14,
    strangers.E15,
    links.E16,
    read_only.E17,
    recurring_faults.E18,
    recurring_faults.E19,
    recurring_faults.E20,
)
BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}
