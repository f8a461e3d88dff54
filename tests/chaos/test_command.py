"""The command that runs experiments says before it begins what the machine lacks."""

from pathlib import Path

import pytest

from tests.chaos.__main__ import main
from tests.chaos.experiments import clocks


def test_nothing_is_begun_without_the_library_of_an_experiment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clocks, "_PLACES", [tmp_path / "absent"])
    with pytest.raises(SystemExit) as ended:
        main(["--experiment", "E8,E9"])
    assert ended.value.code == 2
    assert "E9 needs Debian's package libfaketime: nothing was begun" in capsys.readouterr().err
