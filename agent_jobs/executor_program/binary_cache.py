"""Binaries by their SHA-256: downloaded once, checked before each use, and kept within a limit of bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from infra.egress.addresses import Rules
from infra.egress.downloads import DownloadFailed, download

_DOWNLOAD_SECONDS = 3_600.0
_PART = ".part-"


class BinaryCache:
    """`max_bytes` limits one binary, `max_kept_bytes` all of them; those that were not used for the longest time go.

    Several programs may share the folder: a binary appears there whole, by a rename.
    """

    def __init__(self, folder: Path, *, rules: Rules, max_bytes: int, max_kept_bytes: int) -> None:
        self._folder, self._rules = folder, rules
        self._max_bytes, self._max_kept_bytes = max_bytes, max_kept_bytes
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)

    def place(
        self,
        sha256: str,
        url: str,
        target: Path,
        *,
        should_stop: Callable[[], object],
        on_progress: Callable[[int, int | None], object],
    ) -> None:
        """Write the binary to `target`, executable. Raises DownloadFailed, with the code `hash_mismatch` if its bytes
        are not those of the hash.

        What is written is what was checked: the copy itself is hashed, so a file that somebody changed in the cache is
        found, removed and downloaded again.
        """
        with self._locks[sha256]:
            kept = self._folder / sha256
            if kept.is_file():
                if _copied(kept, target) == sha256:
                    os.utime(kept)
                    return
                kept.unlink(missing_ok=True)
            self._fetch(sha256, url, kept, should_stop, on_progress)
            self._make_room(without=sha256)
            if _copied(kept, target) != sha256:
                raise _mismatch(sha256, "the copy in the cache")

    def _fetch(
        self,
        sha256: str,
        url: str,
        kept: Path,
        should_stop: Callable[[], object],
        on_progress: Callable[[int, int | None], object],
    ) -> None:
        descriptor, name = tempfile.mkstemp(prefix=_PART, dir=self._folder)
        part = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                found = download(
                    url,
                    file,
                    rules=self._rules,
                    max_bytes=self._max_bytes,
                    seconds=_DOWNLOAD_SECONDS,
                    should_stop=should_stop,
                    on_progress=on_progress,
                )
            if found != sha256:
                raise _mismatch(sha256, found)
            part.replace(kept)
        except OSError as error:
            raise DownloadFailed("cache_failed", f"the cache cannot be written: {error.strerror}") from None
        finally:
            part.unlink(missing_ok=True)

    def _make_room(self, *, without: str) -> None:
        found = []
        for path in self._folder.iterdir():
            with suppress(OSError):
                state = path.stat()
                found.append((state.st_mtime, state.st_size, path))
        left = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if left <= self._max_kept_bytes:
                return
            if path.name != without and not path.name.startswith(_PART):
                path.unlink(missing_ok=True)
                left -= size


def _copied(source: Path, target: Path) -> str:
    """Copy the file, make the copy executable, and return the hash of the copy's bytes."""
    shutil.copyfile(source, target)
    target.chmod(0o755)
    with target.open("rb") as copy:
        return hashlib.file_digest(copy, "sha256").hexdigest()


def _mismatch(wanted: str, found: str) -> DownloadFailed:
    return DownloadFailed("hash_mismatch", f"the binary must have the SHA-256 {wanted}, but it has {found}")
