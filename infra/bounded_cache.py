"""A cache of this process that drops its oldest entries first."""

import math
import threading
import time
from collections.abc import Hashable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class BoundedCache(Generic[_T]):
    def __init__(self, most: int) -> None:
        self._most = most
        self._found: dict[Hashable, tuple[float, _T]] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> _T | None:
        until, value = self._found.get(key, (0.0, None))
        return value if time.monotonic() < until else None

    def put(self, key: Hashable, value: _T, *, seconds: float = math.inf) -> None:
        with self._lock:
            self._found.pop(key, None)
            while len(self._found) >= self._most:
                self._found.pop(next(iter(self._found)))
            self._found[key] = (time.monotonic() + seconds, value)

    def drop(self, key: Hashable) -> None:
        with self._lock:
            self._found.pop(key, None)

    def clear(self) -> None:
        self._found.clear()
