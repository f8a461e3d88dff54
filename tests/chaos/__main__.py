"""Breaks the service on purpose, and looks whether its promises hold.

    python -m tests.chaos --experiment E1 --duration 180 --seed 7
    python -m tests.chaos --list

Without --experiment all are run, one after the other. Ends with 1 if a promise was broken; the logs and the ledgers of
such a run are kept, and their folder is named.
"""

import argparse
import random
import sys
from collections.abc import Sequence

from tests.chaos import stage
from tests.chaos.experiments import BY_NAME, EXPERIMENTS
from tests.chaos.experiments.smoke import SMOKE

SMOKE_SECONDS = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experiment", default="", help="one or several, by comma; default: all")
    parser.add_argument("--duration", type=float, default=180.0, help="seconds of faults in each")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    parser.add_argument("--rate", type=float, default=15.0, help="jobs a second")
    parser.add_argument("--smoke", action="store_true", help=SMOKE.title)
    parser.add_argument("--keep", action="store_true", help="keep logs and ledgers also of a clean run")
    parser.add_argument("--list", action="store_true", help="say what there is, and do nothing")
    given = parser.parse_args(arguments)
    if given.list:
        for experiment in EXPERIMENTS:
            print(f"{experiment.name:<4} {experiment.title} ({experiment.promises})")
        return 0
    names = [name for name in given.experiment.upper().split(",") if name]
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        parser.error(f"there is no experiment {', '.join(unknown)}; there are {', '.join(BY_NAME)}")
    chosen, seconds = [BY_NAME[name] for name in names or BY_NAME], given.duration
    if given.smoke:
        chosen, seconds = [SMOKE], SMOKE_SECONDS
    if lacking := [f"{experiment.name} needs {what}" for experiment in chosen if (what := experiment.missing())]:
        parser.error(f"{', '.join(lacking)}: nothing was begun")
    results = []
    for experiment in chosen:
        print(f"=== {experiment.name}: {seconds:g} s, seed {given.seed}", flush=True)
        results.append(
            stage.run(experiment, seconds=seconds, seed=given.seed, rate=given.rate, keeps=given.keep, say=_say)
        )
        _say(str(results[-1]))
    broken = [result.experiment.name for result in results if not result.is_clean]
    _say(
        f"broken: {', '.join(broken)}"
        if broken
        else f"all clean: {', '.join(result.experiment.name for result in results)}"
    )
    return 1 if broken else 0


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
