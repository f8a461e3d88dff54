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


def _run(*arguments: str, module: str = "config.celery_command") -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=60)
