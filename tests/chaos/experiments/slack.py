"""E6: a Slack that limits, fails, loses its answers, posts late, and whose history lags and is rationed."""

from tests.chaos.agents import AgentLoad
from tests.chaos.checker import Rules
from tests.chaos.stage import Experiment, Scene
from tests.fakes.slack import Fault

_RATES = {Fault.RATE_LIMITED: 0.05, Fault.ERROR_500: 0.03, Fault.DROP_AFTER: 0.03, Fault.LATE_APPLY: 0.05}


def _be_difficult(scene: Scene) -> None:
    """For two thirds of the time a history that lags 2 s; then one that is read once a minute, and fewer faults."""
    slack = scene.rig.slack
    slack.rates = dict(_RATES)
    slack.history_lag = 2.0
    rationed_from = scene.seconds * 2 / 3
    while scene.pause(0.5):
        if scene.elapsed > rationed_from and not slack.history_interval:
            slack.history_interval = min(60.0, scene.seconds / 3)
            slack.rates = {fault: rate / 10 for fault, rate in _RATES.items()}
            scene.did(f"history rationed to once in {slack.history_interval:.0f} s")
    for fault, times in slack.faults.items():
        scene.did(f"Slack: {fault}", times)


E6 = Experiment(
    "E6",
    "Slack 429, 500, reset after apply, late apply 1.2 s, history that lags 2 s, then once a minute",
    "I6 I7",
    _be_difficult,
    make_load=AgentLoad,
    rules=Rules(),
    quiet_seconds=180,
)
