"""Files that a command leaves in its folder harm no reader, and nobody who removes them."""

import os
from pathlib import Path

import pytest

from infra import commands
from infra.commands import Mode, job_user
from infra.commands import work_folder as folders
from tests.infra.commands.conftest import run_in


def test_a_file_is_read_up_to_a_limit(work_folder: Path) -> None:
    (work_folder / "a").mkdir()
    (work_folder / "a" / "file").write_bytes(b"0123456789")
    assert commands.read_file(work_folder, "a/file", max_bytes=4) == b"0123"


def test_symlinks_of_a_command_are_not_followed(mode: Mode, work_folder: Path) -> None:
    outside = work_folder.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    line = f"ln -s {outside}/secret file; ln -s {outside} folder; ln -s file again"
    assert run_in(mode, line, work_folder=work_folder).is_success
    for name in ("file", "folder/secret", "again"):
        with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
            commands.read_file(work_folder, name, max_bytes=100)


def test_a_named_pipe_of_a_command_does_not_hold_the_reader(mode: Mode, work_folder: Path) -> None:
    assert run_in(mode, ("mkfifo", "pipe"), work_folder=work_folder).is_success
    with pytest.raises(OSError, match="not a regular file"):
        commands.read_file(work_folder, "pipe", max_bytes=100)


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../outside", "a/../../outside"])
def test_a_name_that_leaves_the_folder_is_refused(work_folder: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a path below"):
        commands.read_file(work_folder, name, max_bytes=100)


def test_a_fresh_folder_is_private_and_removed_whatever_is_left_in_it(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("kept")
    seen: list[str] = []
    line = (
        f'echo "$HOME"; stat -c %a .; ln -s {tmp_path} link; mkdir -p closed/below; echo x > closed/below/f;'
        "chmod 000 closed/below closed; mkfifo pipe; touch -- '-rf'; i=0; "
        'while [ $i -lt 300 ]; do mkdir deep; cd deep; i=$((i+1)); done; cd "$HOME"; chmod 500 .'
    )
    result = run_in(Mode.TRUSTED, line)
    assert result.is_success, result.stderr
    seen += result.stdout.split()
    assert seen[1] == "700"
    assert not Path(seen[0]).exists()
    assert kept.read_text() == "kept"


def test_a_sandbox_keeps_its_fresh_folder_in_memory(sandbox: Mode) -> None:
    assert run_in(sandbox, ("stat", "-f", "-c", "%T", "/work")).stdout == "tmpfs\n"


def test_a_folder_that_the_user_cannot_reach_is_refused_with_a_sentence(work_folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("an ordinary worker is itself the user")
    work_folder.parent.chmod(0o700)
    with pytest.raises(folders.UnusableFolderError, match="nobody may not pass"):
        folders.handed_over(work_folder, job_user.resolve())
