"""Seals the secrets of a row's work (`agent_jobs.work`) in the column `sealed_work` beside it."""

import json
from collections.abc import Mapping
from typing import Any

from agent_jobs import work
from infra import sealing

_COLUMN = "sealed_work"


def seal(row: Any, secrets: Mapping[str, str]) -> str:
    """The value of the row's column; "" without secrets. Raises SealingError where no sealing key is set."""
    return sealing.seal_for(row, _COLUMN, json.dumps(dict(secrets))) if secrets else ""


def secrets_of(row: Any) -> dict[str, str]:
    """The secrets of the row by JSON pointer. Raises SealingError if they cannot be opened."""
    return dict(json.loads(sealing.opened(row, _COLUMN))) if row.sealed_work else {}


def whole(row: Any) -> dict[str, Any]:
    """The row's work with its secrets in clear. Raises SealingError as `secrets_of`."""
    return work.joined(row.work, secrets_of(row))
