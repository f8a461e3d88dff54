"""Every place that names an environment variable agrees with the tables of `config.environment`."""

import re
from pathlib import Path

from config import environment

ROOT = Path(__file__).resolve().parents[2]
SERVICE, COMPOSE = (
    {variable.name for section in sections.values() for variable in section}
    for sections in (environment.SERVICE, environment.COMPOSE)
)
# Only of use on a developer's machine.
NOT_HANDED_ON = {"AGENT_JOBS_DATA_DIR"}
# Variables that we set for commands and for the programs of executors.
GIVEN_TO_PROGRAMS = {f"AGENT_JOBS_{name}" for name in ("ATTEMPT", "JOB_ID", "PARAMS", "TYPE")}
# `${NAME}` in Compose, `NAME=` or a quoted AGENT_JOBS_NAME anywhere.
NAMED = re.compile(r"\bAGENT_JOBS_[A-Z_]+\b|\$\{([A-Z_]+)")


def _named_in(*paths: Path) -> set[str]:
    found = (match for path in paths for match in NAMED.finditer(path.read_text()))
    return {match[1] or match[0] for match in found}


def test_the_documents_are_what_the_tables_say() -> None:
    for path, text in environment.documents().items():
        assert path.read_text() == text, f"{path.name} is out of step: run `python -m config.environment`"


def test_every_variable_is_read() -> None:
    read = _named_in(*(path for path in (ROOT / "config").rglob("*.py") if path.name != "environment.py"))
    text = (ROOT / "config" / "settings.py").read_text()
    assert {name for name in SERVICE - read - NOT_HANDED_ON if f'("{name}"' not in text} == set()


def test_no_page_or_file_names_a_variable_that_does_not_exist() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.*")]
    files = [ROOT / name for name in ("docker-compose.yml", ".env.example", "Dockerfile", "Makefile")]
    by_file = {f"{name}_FILE" for name in SERVICE | COMPOSE}
    assert _named_in(*pages, *files) - SERVICE - COMPOSE - by_file - GIVEN_TO_PROGRAMS == set()


def test_compose_hands_every_setting_on() -> None:
    assert _named_in(ROOT / "docker-compose.yml") | NOT_HANDED_ON >= SERVICE | COMPOSE
