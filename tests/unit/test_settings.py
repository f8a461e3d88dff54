"""Settings that cannot be end the start with a sentence that names them."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


def start(**variables: str) -> subprocess.CompletedProcess[str]:
    """Read the settings in a process of its own, and print the table of prices."""
    script = "from config import settings; print({n: [str(p) for p in v] for n, v in settings.MODEL_PRICES.items()})"
    environment = {"PATH": "/usr/bin:/bin", "AGENT_JOBS_DATA_DIR": "/nowhere", **variables}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE)


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("{", "must be JSON"),
        ('["openai:*"]', "must be an object"),
        ('{"OpenAI": {"input": 1, "output": 2}}', "must name models as provider:model, provider:* or *, not 'OpenAI'"),
        ('{"openai:x": 3}', "perhaps a cached_input, and nothing else, for openai:x"),
        ('{"openai:x": {"input": 1}}', "perhaps a cached_input, and nothing else, for openai:x"),
        ('{"openai:x": {"input": 1, "output": 2, "cached": 1}}', "and nothing else, for openai:x"),
        ('{"openai:x": {"input": "a", "output": 2}}', "must have prices from 0 to 1000000 for openai:x, not 'a'"),
        ('{"openai:x": {"input": -1, "output": 2}}', "must have prices from 0 to 1000000 for openai:x, not -1"),
        ('{"openai:x": {"input": true, "output": 2}}', "must have prices from 0 to 1000000 for openai:x, not True"),
        ('{"openai:x": {"input": NaN, "output": 2}}', "must have prices from 0 to 1000000 for openai:x, not nan"),
        ('{"*": {"input": "NaN", "output": 2}}', "must have prices from 0 to 1000000 for *, not 'NaN'"),
        ('{"*": {"input": 1, "output": 1e7}}', "must have prices from 0 to 1000000 for *"),
    ],
)
def test_a_price_table_that_cannot_be_ends_the_start_with_a_sentence(table: str, complaint: str) -> None:
    ended = start(AGENT_JOBS_MODEL_PRICES=table)

    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("django.core.exceptions.ImproperlyConfigured: AGENT_JOBS_MODEL_PRICES must ")
    assert complaint in last


def test_prices_are_taken_as_they_are_written() -> None:
    table = '{"openai:gpt-5-mini": {"input": "0.25", "output": 2.00}, "openai:*": {"input": 0.1, "output": 3}, "*": {"input": 0, "output": "0", "cached_input": "0.5"}}'  # noqa: E501
    ended = start(AGENT_JOBS_MODEL_PRICES=table)

    wanted = "{'openai:gpt-5-mini': ['0.25', '2.00'], 'openai:*': ['0.1', '3'], '*': ['0', '0', '0.5']}"
    assert ended.stdout.strip() == wanted, ended.stderr
