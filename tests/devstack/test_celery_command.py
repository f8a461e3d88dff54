"""Celery's two commands by a shorter way."""

import subprocess
import sys

import pytest


def test_a_command_that_celery_has_and_we_do_not_start_is_refused_with_those_that_we_do() -> None:
    done = _run("flower")
    assert done.returncode == 1
    assert "{worker,beat}" in done.stderr


@pytest.mark.parametrize("name", ["worker", "beat"])
def test_has_all_the_options_of_celerys_own_command(name: str) -> None:
    assert _run(name, "--help").stdout == _run(name, "--help", module="celery").stdout.replace(
        "python -m celery", "celery"
    )


def test_a_worker_gives_way_also_where_sessions_share_the_processors() -> None:
    lines = (
        "import os",
        "from pathlib import Path",
        "from config import celery_command",
        "celery_command.give_way(7)",
        "group = Path('/proc/self/autogroup')",
        "print(os.nice(0), group.read_text() if group.exists() else '')",
    )
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, start_new_session=True)
    niceness, _, group = done.stdout.strip().partition(" ")
    assert int(niceness) >= 7, done.stderr
    assert not group or group.endswith("nice 7")


def _run(*arguments: str, module: str = "config.celery_command") -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=60)
