"""Encrypts secrets at rest: AES-GCM, bound to the very cell that stores them.

A sealed secret reads `v1:<key id>:<nonce>:<ciphertext>`. Its associated data is `org|table|column|primary key`, so a
ciphertext copied to another row, column or organisation does not open. The first key of settings.SEALING_KEYS seals,
and all of them open. To rotate: put a new key in front, seal everything again (`rotation`), drop the old key.
"""

from __future__ import annotations

import base64
import binascii
import os
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings


class SealingError(Exception):
    """A secret cannot be sealed or opened."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


_VERSION = "v1"


def seal(secret: str, *, org_id: str, table: str, column: str, key: str) -> str:
    """Encrypt a secret for one cell of a table. Raises SealingError if no key is configured."""
    kid, cipher = next(iter(_ciphers(settings.SEALING_KEYS).items()))
    nonce = os.urandom(12)
    sealed = cipher.encrypt(nonce, secret.encode(), _cell(org_id, table, column, key))
    return ":".join((_VERSION, kid, _encode(nonce), _encode(sealed)))


def open_sealed(sealed: str, *, org_id: str, table: str, column: str, key: str) -> str:
    """Decrypt a secret. Raises SealingError if the key is missing, or if the secret was sealed for another cell."""
    ciphers = _ciphers(settings.SEALING_KEYS)
    version, _, rest = sealed.partition(":")
    kid, _, rest = rest.partition(":")
    if version != _VERSION:
        raise SealingError(f"{table}.{column} does not hold a sealed secret")
    if kid not in ciphers:
        raise SealingError(f"{table}.{column} is sealed with the key {kid!r}, which AGENT_JOBS_SEALING_KEYS lacks")
    nonce, _, text = rest.partition(":")
    try:
        plain = ciphers[kid].decrypt(_decode(nonce), _decode(text), _cell(org_id, table, column, key))
    except (InvalidTag, ValueError):
        raise SealingError(f"{table}.{column} was sealed for another row, or has been changed") from None
    return plain.decode()


def seal_for(row: Any, column: str, secret: str) -> str:
    """The secret, sealed for a column of this row (a model's, with an `org_id`). Raises as `seal`."""
    return seal(secret, **_place(row, column))


def opened(row: Any, column: str) -> str:
    """The secret in a column of this row. Raises as `open_sealed`."""
    return open_sealed(getattr(row, column), **_place(row, column))


def newest_key_id() -> str:
    """The id of the key that seals. Raises SealingError if none is configured."""
    return next(iter(_ciphers(settings.SEALING_KEYS)))


def prefix(key_id: str) -> str:
    """The prefix of every secret sealed with this key."""
    return f"{_VERSION}:{key_id}:"


def key_id(sealed: str) -> str:
    """The id of the key that sealed a secret; "" if this is no sealed secret."""
    version, _, rest = sealed.partition(":")
    return rest.partition(":")[0] if version == _VERSION else ""


@lru_cache(maxsize=4)
def _ciphers(stated: str) -> dict[str, AESGCM]:
    ciphers: dict[str, AESGCM] = {}
    for item in filter(None, (part.strip() for part in stated.split(","))):
        kid, _, encoded = item.partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            key = b""
        if not kid or len(key) != 32:
            raise SealingError(f"AGENT_JOBS_SEALING_KEYS: the key {kid!r} must be `id:` and 32 bytes in base64")
        if kid in ciphers:
            raise SealingError(f"AGENT_JOBS_SEALING_KEYS names the key {kid!r} twice")
        ciphers[kid] = AESGCM(key)
    if not ciphers:
        raise SealingError("no secret can be stored: AGENT_JOBS_SEALING_KEYS is not set (`id:32 bytes in base64`)")
    return ciphers


def _place(row: Any, column: str) -> dict[str, str]:
    return {"org_id": row.org_id, "table": row._meta.db_table, "column": column, "key": str(row.pk)}


def _cell(org_id: str, table: str, column: str, key: str) -> bytes:
    return "|".join((org_id, table, column, key)).encode()


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
