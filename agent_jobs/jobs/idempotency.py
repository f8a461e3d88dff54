"""Idempotency keys: a repeated POST gets the answer of the first one, and the effect happens once.

The key's row is written in the transaction of the effect, so either both exist or neither. Concurrent requests wait for
the first one on the unique index (at most `lock_timeout`, 5 s) and then read its answer. Only successful answers are
kept, for IDEMPOTENCY_KEY_HOURS (`config/settings.py`): an effect that raises rolls its key back.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from django.conf import settings
from django.db import OperationalError, transaction

from agent_jobs.errors import Conflict, KeyReused
from agent_jobs.models import IdempotencyKey
from infra import meters, prepared_sql, raw_sql

MAX_KEY = 255
_LOCK_NOT_AVAILABLE = "55P03"
_KEEP = "UPDATE agent_jobs_idempotencykey SET status_code = %(status)s, answer = %(text)s::jsonb WHERE id = %(id)s"
# Inserts the key or takes over an expired one. No row means that another request holds it.
_TAKE = """
INSERT INTO agent_jobs_idempotencykey (org_id, key, fingerprint, status_code, answer, created_at)
VALUES (%s, %s, %s, 0, 'null', now())
ON CONFLICT (org_id, key) DO UPDATE SET fingerprint = excluded.fingerprint, created_at = excluded.created_at
WHERE agent_jobs_idempotencykey.created_at < now() - make_interval(hours => %s)
RETURNING id
"""


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    status_code: int
    text: str
    is_repeated: bool = False


def fingerprint(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def once(org_id: str, key: str, *, fingerprint: str, effect: Callable[[], StoredAnswer]) -> StoredAnswer:
    """Run the effect, or return the answer stored under this key.

    Raises KeyReused if the key came with another request, Conflict (`idempotency_key_in_progress`) if the first request
    is still running, and whatever the effect raises.
    """
    with transaction.atomic():
        taken = _take(org_id, key, fingerprint)
        if taken is None:
            return _kept(org_id, key, fingerprint)
        answer = effect()
        prepared_sql.run(_KEEP, {"id": taken, "status": answer.status_code, "text": json.dumps(answer.text)})
        return answer


def _take(org_id: str, key: str, fingerprint: str) -> int | None:
    try:
        row = raw_sql.first(_TAKE, [org_id, key, fingerprint, settings.IDEMPOTENCY_KEY_HOURS])
        return row[0] if row else None
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", "") == _LOCK_NOT_AVAILABLE:
            raise _in_progress() from None
        raise


def _kept(org_id: str, key: str, fingerprint: str) -> StoredAnswer:
    row = IdempotencyKey.objects.filter(org_id=org_id, key=key).first()
    if row is None:
        raise _in_progress()
    if row.fingerprint != fingerprint:
        meters.add("duplicates_refused", kind="key_reused")
        raise KeyReused("this Idempotency-Key was used before, with another request")
    meters.add("duplicates_refused", kind="key_repeated")
    return StoredAnswer(row.status_code, row.answer, is_repeated=True)


def _in_progress() -> Conflict:
    return Conflict(
        "the first request with this Idempotency-Key is still under way", code="idempotency_key_in_progress"
    )
