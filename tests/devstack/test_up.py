"""`manage.py up` as a person or a script meets it: real processes, watched from outside."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.embedded import child_processes
from tests.waiting import PATIENCE, wait_for

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.live
# What the test run itself was given must not reach the stack under test.
OURS = ("DATABASE_URL", "REDIS_URL", "AGENT_JOBS_", "PYTEST_", "DJANGO_")


class Up:
    """One `manage.py up` on a data folder, and what it printed."""

    def __init__(self, data_dir: Path, *options: str, **variables: str) -> None:
        self.data_dir = data_dir
        self.log = data_dir.with_name(f"{data_dir.name}.log")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)} | variables
        command = [sys.executable, str(ROOT / "manage.py"), "up", "--data-dir", str(data_dir), *options]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd="/")

    @property
    def stack(self) -> dict[str, Any]:
        return json.loads((self.data_dir / "stack.json").read_text())

    @property
    def printed(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_ready(self) -> "Up":
        self.wait_for("up       | ready after")
        return self

    def wait_for(self, text: str, *, times: int = 1) -> None:
        def is_there() -> bool:
            assert self.process.poll() is None, f"up ended:\n{self.printed[-4000:]}"
            return self.printed.count(text) >= times

        try:
            wait_for(is_there, what=f"it says {text!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.printed[-4000:]}") from None

    def wait_well(self) -> None:
        """Wait until every part works, as /health/ready sees it."""
        answers: list[str] = []

        def is_well() -> bool:
            status, body = _get(self.stack["web_url"] + "/health/ready")
            answers.append(body)
            return status == 200

        try:
            wait_for(is_well, what="every part works")
        except AssertionError as error:
            raise AssertionError(f"{error}: {answers[-1]}\n{self.printed[-6000:]}") from None

    def pid_of(self, name: str) -> int:
        return json.loads((self.data_dir / "processes.json").read_text())[name]

    def running(self) -> list[str]:
        """The commands of all processes that belong to this data folder, but for the supervisor's."""
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        commands = {pid: child_processes.command_line(pid) for pid in pids if pid != self.process.pid}
        redis_port = f":{json.loads((self.data_dir / 'redis.json').read_text())['port']}"
        return [line for line in commands.values() if str(self.data_dir) in line or redis_port in line]


@pytest.fixture
def ups(home: Path) -> Iterator[Any]:
    started: list[Up] = []

    def start(name: str, *options: str, **variables: str) -> Up:
        started.append(Up(home / name, *options, **variables))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.terminate()
            try:
                each.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                each.process.kill()


def _get(url: str) -> tuple[int, str]:
    """Status and body; 0 where nobody answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def test_it_restarts_what_dies_refuses_a_second_start_and_leaves_nothing_behind(ups: Any) -> None:
    up = ups("one", "--port", "0", "--no-demo").wait_ready()
    up.wait_well()
    assert (up.data_dir / "stack.json").stat().st_mode & 0o777 == 0o600

    os.kill(up.pid_of("worker1"), signal.SIGKILL)
    up.wait_for("worker1 ended (signal 9); starting it again")
    os.kill(up.pid_of("postgres"), signal.SIGKILL)
    up.wait_for("postgres ended (signal 9); starting it again")

    second = ups("one", "--port", "0", "--no-demo")
    assert second.process.wait(PATIENCE) == 1
    assert "the service runs already on" in second.printed

    up.wait_well()
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(PATIENCE) == 0
    assert up.running() == []
    assert up.stack["pid"] is None
    assert "Traceback" not in up.printed


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_a_killed_supervisor_leaves_nothing_running_and_the_next_start_goes_on(ups: Any) -> None:
    first = ups("two", "--port", "0", "--no-demo").wait_ready()
    secrets = first.stack["environment"]["AGENT_JOBS_TOKEN_PEPPER"]

    first.process.kill()
    first.process.wait()
    wait_for(lambda: not first.running(), what="nothing of it is left")

    again = ups("two", "--port", "0", "--no-demo")
    again.wait_for("up       | ready after", times=2)
    assert again.stack["environment"]["AGENT_JOBS_TOKEN_PEPPER"] == secrets


def test_the_demo_runs_to_its_end_and_again_beside_another_stack(ups: Any) -> None:
    left, right = ups("left", "--port", "0"), ups("right", "--port", "0")
    for up in (left, right):
        up.wait_for("The job ended COMPLETED")
        up.wait_for("curl -sS -X POST")
    left.process.terminate()
    assert left.process.wait(PATIENCE) == 0
    right.wait_well()
    token = (left.data_dir / "demo-token").read_text()
    again = ups("left", "--port", "0")
    again.wait_for("The job ended COMPLETED", times=2)
    assert (left.data_dir / "demo-token").read_text() == token

    if shutil.which("curl") is None:
        pytest.skip("all else is well, but there is no curl to paste its line to")
    line = next(line for line in right.printed.splitlines() if line.startswith("curl -sS -X POST"))
    pasted = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    assert json.loads(pasted.stdout)["data"]["job_status"] in {"WAITING", "RUNNING", "COMPLETED"}


def test_a_taken_port_is_one_sentence(ups: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        up = ups("taken", "--no-demo", "--port", str(taken.getsockname()[1]))
        assert up.process.wait(PATIENCE) == 1
    assert "give another --port" in up.printed
    assert "Traceback" not in up.printed


def test_what_servers_say_at_every_start_and_stop_is_left_out(ups: Any) -> None:
    up = ups("calm", "--port", "0", "--no-demo").wait_ready()
    up.wait_well()
    up.process.terminate()
    assert up.process.wait(PATIENCE) == 0
    lines = up.printed.splitlines()
    assert [line for line in lines if line.startswith(("postgres", "redis")) or not line.partition(" | ")[2]] == []
    assert lines[0].endswith(f"with the data in {up.data_dir}")
    assert lines[-1] == "up       | stopped"
