"""A new runner, platform or duty is one file and one line: queues, Celery entries and contracts follow by themselves.

A copy of the project gets one of each. The facts are read in a process that imports the copy.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent_jobs import runners
from channels_integration import platforms
from tests.architecture import siblings
from tests.architecture.sources import ROOT
from tests.waiting import PATIENCE

RUNNER = """
from agent_jobs.runners.base import Done, Run


class EchoRunner:
    name = "echo"
    lane = "echoes"
    batch_size = 1
    has_conversation = False
    needs_channel = True
    work = None

    def run(self, run: Run) -> Done:
        return Done(result=run.prompt)
"""
PLATFORM = """
from channels_integration.platforms.null import Null


class Pigeon(Null):
    name = "pigeon"
"""
DUTY = """
def dust() -> int:
    return 0
"""
FACTS = """
import json, sys
from config.celery import app
app.loader.import_default_modules()
app.finalize()
from agent_jobs import runners, tasks
from agent_jobs.duties import duty_table
from agent_jobs.lifecycle import queues
from agent_jobs.reads import gauges
from channels_integration import directory, platforms
from tests.architecture import siblings
from tests.channels import test_platforms
from tests.runners import test_contract

contract = test_contract.TestEveryRunner.pytestmark[0].args[1]
json.dump({
    "home": runners.__file__,
    "runners": runners.names(),
    "lanes": queues.LANES,
    "queues": [queue.name for queue in app.conf.task_queues],
    "entries": sorted(app.tasks),
    "beat": sorted(app.conf.beat_schedule),
    "polled": [bell for bell in duty_table.BELLS if duty_table.is_polled(bell)],
    "worker": sorted(tasks.worker._limits),
    "platforms": [platform.name for platform in platforms.PLATFORMS],
    "without_address": directory._WITHOUT_ADDRESS,
    "runner_contract": [runner.name for runner in contract],
    "platform_contract": [platform.name for platform in test_platforms.PLATFORMS],
    "chains": [siblings.chains(runners.RUNNERS), siblings.chains(platforms.PLATFORMS)],
}, sys.stdout)
"""


def _add(path: Path, after: str, text: str) -> None:
    """Add `text` to a file, after the one place that reads `after`."""
    before = path.read_text()
    assert before.count(after) == 1, (path, after)
    path.write_text(before.replace(after, after + text))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("copy")
    for package in ("agent_jobs", "channels_integration", "infra", "config"):
        shutil.copytree(ROOT / package, home / package, ignore=shutil.ignore_patterns("__pycache__"))
    (home / "agent_jobs/runners/echo.py").write_text(RUNNER)
    package = home / "agent_jobs/runners/__init__.py"
    _add(package, "RUNNERS: tuple[Runner, ...] = (", "EchoRunner(), ")
    _add(package, "import Runner\n", "from agent_jobs.runners.echo import EchoRunner\n")
    (home / "channels_integration/platforms/pigeon.py").write_text(PLATFORM)
    package = home / "channels_integration/platforms/__init__.py"
    _add(package, "PLATFORMS: tuple[Platform, ...] = (", "Pigeon(), ")
    _add(package, "import Null\n", "from channels_integration.platforms.pigeon import Pigeon\n")
    (home / "agent_jobs/duties/dusting.py").write_text(DUTY)
    package = home / "agent_jobs/duties/duty_table.py"
    _add(package, "DUTIES = (\n", '    Duty("dust", dusting.dust, bell="dust", every=5.0),\n')
    _add(package, "from agent_jobs import duty_rounds\n", "from agent_jobs.duties import dusting\n")
    return home


@pytest.fixture(scope="module")
def facts(copy: Path) -> dict[str, Any]:
    path = os.pathsep.join((str(copy), str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", FACTS],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": "config.settings"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    assert Path(found["home"]).is_relative_to(copy)
    return found


def test_a_new_runner_gets_its_queue_and_its_worker_entry(facts: dict[str, Any]) -> None:
    assert "echo" in facts["runners"]
    assert "echoes" in facts["lanes"]
    assert "echoes" in facts["queues"]
    assert "echoes" in facts["worker"]
    assert "agent_jobs.serve_echoes" in facts["entries"]


def test_a_new_duty_gets_its_entry_its_period_and_its_polling(facts: dict[str, Any]) -> None:
    assert "agent_jobs.dust" in facts["entries"]
    assert "dust" in facts["beat"]
    assert "dust" in facts["polled"]


def test_a_new_platform_is_known_and_registered_as_it_says(facts: dict[str, Any]) -> None:
    assert "pigeon" in facts["platforms"]
    assert "pigeon" in facts["without_address"]


def test_the_contracts_run_over_what_is_new(facts: dict[str, Any]) -> None:
    assert "echo" in facts["runner_contract"]
    assert "pigeon" in facts["platform_contract"]


def test_an_import_between_siblings_is_found_without_being_listed(facts: dict[str, Any]) -> None:
    """The runner imports no sibling; the platform imports the null platform, which is forbidden."""
    of_runners, of_platforms = facts["chains"]
    assert of_runners == []
    assert of_platforms == [["channels_integration.platforms.pigeon", "channels_integration.platforms.null"]]


def test_runners_do_not_know_each_other() -> None:
    assert siblings.chains(runners.RUNNERS) == []


def test_platforms_do_not_know_each_other() -> None:
    assert siblings.chains(platforms.PLATFORMS) == []
