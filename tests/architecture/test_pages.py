"""The pages for contributors name what is there: the layers as the contract has them, and modules that exist."""

import re
import tomllib
from pathlib import Path

from tests.architecture.sources import ROOT

_DRAWING = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
_PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_SOURCES = ("agent_jobs", "channels_integration", "config", "infra", "tests")


def _layers() -> list[set[str]]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    lines = next(contract["layers"] for contract in contracts if contract["name"] == "Layers")
    return [{name.strip().rpartition(".")[2] for name in line.split("|")} for line in lines]


def _drawn() -> list[set[str]]:
    found = []
    for line in _DRAWING.split("## Layers")[1].split("```")[1].splitlines():
        names = re.findall(r"[\w.]+", re.sub(r"\([^)]*\)", "", line)[16:])  # behind the name of the box
        if names and "───" not in line:
            found.append({name.removesuffix(".py") for name in names})
    return found


def test_the_drawing_of_the_layers_is_the_contract() -> None:
    assert _drawn() == _layers()


def test_pages_name_modules_that_exist() -> None:
    paths = {path.relative_to(ROOT).as_posix() for root in _SOURCES for path in (ROOT / root).rglob("*.*")}
    missing = [
        (page.name, name)
        for page in _PAGES
        for name in re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|html))`", page.read_text(encoding="utf-8"))
        if not any(path.endswith(f"/{name}") or path == name for path in paths) and not Path(ROOT / name).exists()
    ]
    assert missing == []
