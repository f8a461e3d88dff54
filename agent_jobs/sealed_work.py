"""Seals the secrets of a row's work (`agent_jobs.work`) in the column `sealed_work` beside it."""

import json
from collections.abc import Mapping

from infra import sealing

COLUMN = "sealed_work"


def seal(secrets: Mapping[str, str], *, org_id: str, table: str, key: str) -> str:
    """The value of the row's column; "" without secrets. Raises SealingError where no sealing key is set."""
    if not secrets:
        return ""
    return sealing.seal(json.dumps(dict(secrets)), org_id=org_id, table=table, column=COLUMN, key=key)


def opened(sealed: str, *, org_id: str, table: str, key: str) -> dict[str, str]:
    """The secrets of the row by JSON pointer. Raises SealingError."""
    if not sealed:
        return {}
    secrets: dict[str, str] = json.loads(
        sealing.open_sealed(sealed, org_id=org_id, table=table, column=COLUMN, key=key)
    )
    return secrets
