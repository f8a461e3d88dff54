"""`.env.example` lists what is read, no more and no less; Compose hands every setting on."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Read from the environment by name: env("X"), env_int("X", …), _secret("X"), os.environ.get("X")
READ = re.compile(r'(?:\benv(?:_[a-z]+)?|_secret|environ\.get)\(\s*"([A-Z_]+)"')
COMPOSE = re.compile(r"\$\{([A-Z_]+)")
LISTED = re.compile(r"^(?:# )?([A-Z][A-Z_]+)=", re.MULTILINE)
# Set by manage.py up and by Compose for each process, or only of use on a developer's machine.
NOT_HANDED_ON = {"AGENT_JOBS_PROCESS", "AGENT_JOBS_DATA_DIR"}


def _read_by_settings() -> set[str]:
    sources = (ROOT / "config" / name for name in ("settings.py", "serve.py", "healthcheck.py"))
    return {name for source in sources for name in READ.findall(source.read_text())}


def _read_by_compose() -> set[str]:
    return set(COMPOSE.findall((ROOT / "docker-compose.yml").read_text()))


def _listed() -> list[str]:
    return LISTED.findall((ROOT / ".env.example").read_text())


def test_the_example_lists_every_variable_that_is_read_and_no_other() -> None:
    by_settings, by_compose = _read_by_settings(), _read_by_compose()
    files = {name for name in by_compose if name.removesuffix("_FILE") in by_settings - {name}}
    assert sorted(_listed()) == sorted(by_settings | by_compose - files)


def test_every_listed_variable_has_its_meaning_above_it() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    for number, line in enumerate(lines):
        if LISTED.match(line):
            above = lines[number - 1]
            assert above.startswith("# "), f"{line} has no comment"


def test_compose_hands_every_setting_on() -> None:
    assert _read_by_settings() - _read_by_compose() - NOT_HANDED_ON == set()
