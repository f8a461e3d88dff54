"""Rules of this project that no linter knows, read off the source."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path
    for package in ("agent_jobs", "channels_integration", "config")
    for path in (ROOT / package).rglob("*.py")
    if "migrations" not in path.parts
)


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def name_of(call: ast.Call) -> str:
    return ast.unparse(call.func).split(".")[-1]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
class TestEverySource:
    def test_leaves_waiting_to_rows_and_not_to_celery(self, path: Path) -> None:
        for call in calls(path):
            if name_of(call) in {"apply_async", "send_task", "shared_task", "task"}:
                words = {keyword.arg for keyword in call.keywords}
                assert not words & {"eta", "countdown", "acks_late", "autoretry_for", "expires"}, call.lineno
            assert not (name_of(call) == "retry" and ast.unparse(call.func).startswith("self.")), call.lineno

    def test_turns_off_slacks_own_second_sending(self, path: Path) -> None:
        for call in calls(path):
            if name_of(call) == "WebClient":
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
                assert given.get("retry_handlers") == "[]", call.lineno

    def test_does_not_sleep(self, path: Path) -> None:
        assert not [call.lineno for call in calls(path) if ast.unparse(call.func) == "time.sleep"]

    def test_takes_no_order_or_filter_straight_from_a_request(self, path: Path) -> None:
        for call in calls(path):
            if name_of(call) in {"order_by", "filter", "extra", "raw"}:
                assert "request." not in ast.unparse(call), call.lineno

    def test_logs_no_headers_and_no_bodies(self, path: Path) -> None:
        for call in calls(path):
            if re.match(r"(log|logger|logging)\.", ast.unparse(call.func)):
                said = " ".join(ast.unparse(argument) for argument in call.args)
                assert not re.search(r"\.headers|\.body\b|request\.data|META", said), call.lineno


def test_only_transitions_writes_a_status_of_a_job() -> None:
    """The one exception is the first status, which a job is created with."""
    writers = set()
    for path in SOURCES:
        if path.is_relative_to(ROOT / "agent_jobs"):
            text = path.read_text()
            if re.search(r"UPDATE agent_jobs_job\b.*?\bstatus\s*=", text, re.S) or re.search(
                r"Job\.objects[^\n]*\.update\([^)]*\bstatus=", text, re.S
            ):
                writers.add(path.name)
    assert writers <= {"transitions.py"}


def test_no_lease_or_due_time_is_decided_by_a_processes_own_clock() -> None:
    """Promise I17: clocks of processes may be wrong, the database's counts."""
    services = ROOT / "agent_jobs" / "services"
    # A token's last use is noted once a minute, roughly: it decides nothing.
    deciders = [path for path in SOURCES if path.parent == services and path.name != "tokens.py"]
    for path in deciders:
        for call in calls(path):
            assert ast.unparse(call.func) not in {"timezone.now", "datetime.now", "time.time"}, (
                f"{path.name}:{call.lineno}"
            )


def test_the_readme_has_a_line_for_every_setting() -> None:
    settings = (ROOT / "config" / "settings.py").read_text()
    names = set(re.findall(r'(?:\benv(?:_[a-z]+)?|_secret)\(\s*"([A-Z_]+)"', settings))
    readme = (ROOT / "README.md").read_text()
    assert {name for name in names if f"| `{name}` |" not in readme} == set()
