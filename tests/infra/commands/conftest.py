"""Commands are run for real: with bubblewrap where the machine can, and in trusted mode always."""

import secrets
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from infra import commands
from infra.commands import CommandResult, CommandSpec, Mode
from tests.waiting import PATIENCE

Run = Callable[..., CommandResult]


def sandbox_or_skip() -> None:
    able = commands.probe(Mode.SANDBOX)
    if not able.ok:
        pytest.skip(f"NO SANDBOX ON THIS MACHINE, so nothing of it is tested: {able.reason}")


@pytest.fixture(params=list(Mode))
def mode(request: pytest.FixtureRequest) -> Mode:
    if request.param is Mode.SANDBOX:
        sandbox_or_skip()
    return Mode(request.param)


@pytest.fixture
def sandbox() -> Mode:
    sandbox_or_skip()
    return Mode.SANDBOX


@pytest.fixture
def marker() -> Iterator[str]:
    """A text for a command line, by which the processes of one test are found. None may be left."""
    marker = f"31{secrets.randbelow(10**9):09}"
    yield marker
    assert processes_with(marker) == []


def processes_with(text: str) -> list[int]:
    """The living processes of this machine that have `text` in their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                line = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if text.encode() in line:  # a zombie's is empty
                found.append(int(folder.name))
    return found


def run_in(mode: Mode, line: str | tuple[str, ...], **arguments: Any) -> CommandResult:
    """Run a shell line or an argv. Arguments of `run` and of `CommandSpec` may be mixed."""
    outer = {name: arguments.pop(name) for name in ("work_folder", "should_stop", "user") if name in arguments}
    arguments.setdefault("timeout", timedelta(seconds=PATIENCE))
    command: dict[str, Any] = {"shell": line} if isinstance(line, str) else {"argv": line}
    return commands.run(CommandSpec(**command, **arguments), mode=mode, **outer)


def stop_when(condition: Callable[[], Any]) -> Callable[[], str | None]:
    return lambda: "enough" if condition() else None


@pytest.fixture
def work_folder(make_home: Callable[[], Path]) -> Path:
    folder = make_home() / "work"
    folder.mkdir()
    return folder
