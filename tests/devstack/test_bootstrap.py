"""`manage.py` before any library is there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import manage

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with requirements and no .venv."""
    for name in ("embedded", "dev"):
        (tmp_path / "requirements").mkdir(exist_ok=True)
        (tmp_path / "requirements" / f"{name}.txt").write_text(f"# {name}\n")
    monkeypatch.setattr(manage, "ROOT", tmp_path)
    monkeypatch.setattr(manage, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(manage, "STAMP", tmp_path / ".venv" / "stamp.json")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    return tmp_path


def _stamp(name: str) -> None:
    manage.STAMP.write_text(json.dumps({"set": name, "sha256": manage.fingerprint(name)}))


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize(
    ("installed", "wanted", "expected"),
    [
        ("embedded", "embedded", True),
        ("embedded", "dev", False),
        ("dev", "embedded", True),
        ("dev", "dev", True),
    ],
)
def test_the_larger_set_serves_for_the_smaller(installed: str, wanted: str, expected: bool) -> None:
    _stamp(installed)
    assert manage.is_current(wanted) is expected


def test_changed_requirements_are_installed_again(checkout: Path) -> None:
    _stamp("embedded")
    (checkout / "requirements" / "embedded.txt").write_text("# changed\n")
    assert not manage.is_current("embedded")


def test_an_environment_whose_python_is_gone_is_made_again(checkout: Path) -> None:
    _stamp("embedded")
    (checkout / ".venv" / "bin" / "python").unlink()
    (checkout / ".venv" / "bin" / "python").symlink_to("/nonexistent/python3")
    assert not manage.is_current("embedded")


def test_a_refresh_never_shrinks_the_environment(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stamp("dev")
    (checkout / "requirements" / "dev.txt").write_text("# changed\n")
    installed: list[str] = []
    monkeypatch.setattr(manage, "install", lambda wanted, *, rebuild: installed.append(wanted))

    manage.make_environment("embedded", rebuild=False)

    assert installed == ["dev"]


def test_a_python_that_is_too_old_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    assert manage.main(["up"]) == 1
    assert "needs Python 3.11 or later" in capsys.readouterr().err


def test_a_python_without_venv_is_told_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(manage.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        manage.refuse_without_venv("/usr/bin/python3")
    assert "apt-get install python3" in capsys.readouterr().err


def test_an_unknown_set_is_refused_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert manage.main(["bootstrap", "everything"]) == 1
    assert "usage" in capsys.readouterr().err


def test_a_database_that_does_not_answer_is_one_sentence(tmp_path: Path) -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "DATABASE_URL": f"postgresql://postgres@{str(tmp_path).replace('/', '%2F')}/agent_jobs",
        **dict.fromkeys(("AGENT_JOBS_SECRET_KEY", "AGENT_JOBS_TOKEN_PEPPER"), "x" * 50),
    }
    done = subprocess.run(
        [sys.executable, ROOT / "manage.py", "migrate"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "manage.py up" in done.stderr
