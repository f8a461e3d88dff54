"""Files that a command leaves in its folder do not harm who removes them."""

import os
from pathlib import Path

import pytest

from infra.commands import Mode, job_user
from infra.commands import work_folder as folders
from tests.infra.commands.conftest import run_in


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
