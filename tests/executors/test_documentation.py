"""Every example of docs/executors.md, executed in its order."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent_jobs.executor_program import command_line
from tests import factories

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "executors.md"
_BLOCK = re.compile(
    r"^```http\n(?P<method>[A-Z]+) (?P<path>\S+)\n(?P<body>.*?)→ (?P<status>\d+)\n(?P<answer>.*?)^```", re.M | re.S
)
_PLACE = re.compile(r"\{(job_id|lease_token|org_id)\}")


@dataclass(frozen=True)
class Example:
    method: str
    path: str
    body: str
    status: int
    answer: str


def examples() -> list[Example]:
    found = [Example(**{**m.groupdict(), "status": int(m["status"])}) for m in _BLOCK.finditer(DOCUMENT.read_text())]
    assert len(found) == DOCUMENT.read_text().count("```http"), "an example is not understood"
    return found


def filled(text: str, known: dict[str, Any]) -> Any:
    """The JSON with what earlier answers gave in the places of `{job_id}` and its like."""
    quoted = re.sub(r'"\{(lease_token)\}"', lambda found: json.dumps(known[found[1]]), text)
    return json.loads(_PLACE.sub(lambda found: str(known[found[1]]), quoted)) if text.strip() else None


def learn(shown: Any, answered: Any, known: dict[str, Any]) -> None:
    """Check that the answer holds all that the document shows, and learn what it shows as a place."""
    match shown:
        case dict():
            for key, value in shown.items():
                learn(value, answered[key], known)
        case list():
            assert len(shown) == len(answered)
            for value, other in zip(shown, answered, strict=True):
                learn(value, other, known)
        case str() if place := _PLACE.fullmatch(shown):
            known[place[1]] = answered
        case _:
            assert shown == answered


@pytest.mark.django_db
def test_every_example_answers_as_it_says() -> None:
    admin, executor = factories.api("acme", "SERVICES:ADMIN"), factories.api("acme", "SERVICES:EXECUTE")
    known: dict[str, Any] = {"org_id": "acme"}
    for example in examples():
        path = _PLACE.sub(lambda found: str(known[found[1]]), example.path)
        client = executor if "/executors/" in path else admin
        answer = client.send(example.method, path, filled(example.body, known))
        assert answer.status_code == example.status, (path, answer.content)
        if example.answer.strip():
            learn(json.loads(example.answer), answer.json(), known)
        else:
            assert example.status in {201, 204}


def test_the_options_of_the_program_are_those_of_the_document() -> None:
    text = DOCUMENT.read_text()
    (line,) = re.findall(r"^python3 manage.py run_executor (.*)$", text, re.M)
    given = command_line.parser().parse_args(line.split())
    assert (given.concurrency, given.labels) == (4, ["gpu", "linux"])
    known = {option for action in command_line.parser()._actions for option in action.option_strings}
    assert set(re.findall(r"`(--[a-z-]+)", text)) <= known
