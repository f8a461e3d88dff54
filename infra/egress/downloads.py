"""Downloads a file of any size over the guarded network, and hashes it on the way. It follows no redirects."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import BinaryIO

import httpx2

from infra.egress import async_client
from infra.egress.addresses import Rules

_READ_SECONDS = 30.0


class DownloadFailed(Exception):
    """The file was not downloaded. `may_work_later`: another attempt may succeed. `code` is for machines, the text for
    people.
    """

    def __init__(self, code: str, message: str, *, may_work_later: bool = False) -> None:
        super().__init__(message)
        self.code, self.may_work_later = code, may_work_later


def download(
    url: str,
    target: BinaryIO,
    *,
    rules: Rules,
    max_bytes: int,
    seconds: float,
    should_stop: Callable[[], object] = lambda: None,
    on_progress: Callable[[int, int | None], object] = lambda done, total: None,
) -> str:
    """Write the file into `target` and return its SHA-256 in hexadecimal digits.

    `on_progress` gets the bytes so far and, if the server states it, the total. Raises DownloadFailed: for an address
    that the guard refuses, an answer other than 200, more than `max_bytes`, and when `should_stop` returns something.
    """
    digest = hashlib.sha256()

    def take(chunk: bytes) -> None:
        if should_stop():
            raise DownloadFailed("stopped", "the download was stopped")
        digest.update(chunk)
        target.write(chunk)

    async def fetch() -> None:
        async with (
            asyncio.timeout(seconds),
            async_client.client(rules, max_bytes=max_bytes) as client,
            client.stream("GET", url, timeout=httpx2.Timeout(_READ_SECONDS, connect=_READ_SECONDS)) as response,
        ):
            if response.status_code != 200:
                is_passing = response.status_code >= 500 or response.status_code == 429
                said = f"the server answered {response.status_code}"
                raise DownloadFailed("download_failed", said, may_work_later=is_passing)
            stated = response.headers.get("Content-Length", "")
            total = int(stated) if stated.isascii() and stated.isdigit() and len(stated) < 16 else None
            if total is not None and total > max_bytes:
                raise _too_large(max_bytes)
            done = 0
            async for chunk in response.aiter_raw():
                take(chunk)
                done += len(chunk)
                on_progress(done, total)

    try:
        asyncio.run(fetch())
    except TimeoutError:
        raise DownloadFailed("download_failed", f"not complete within {seconds:g} s", may_work_later=True) from None
    except async_client.FAILURES as error:
        if reason := async_client.refused(error):
            raise DownloadFailed("download_refused", f"the address {reason}") from None
        if async_client.unfit(error):
            raise _too_large(max_bytes) from None
        said = str(error) or type(error).__name__
        raise DownloadFailed("download_failed", f"the connection failed: {said}", may_work_later=True) from None
    return digest.hexdigest()


def _too_large(max_bytes: int) -> DownloadFailed:
    return DownloadFailed("binary_too_large", f"the file has more than {max_bytes:,} bytes")
