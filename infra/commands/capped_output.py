"""Keeps the head and the tail of an output, with a marker line that says how many bytes were left out between them.

The result is valid UTF-8 without NUL characters, so that PostgreSQL can store it, and it never exceeds its limit in
bytes. No character is cut. A NUL and each broken sequence become U+FFFD.
"""

from collections.abc import Callable
from dataclasses import dataclass

MIN_BYTES = 256
# Bytes reserved for the marker line.
_MARKER_BYTES = 64


@dataclass(frozen=True, slots=True)
class CappedText:
    """An output within its limit. `total_bytes`: how long it was before the cut."""

    text: str
    total_bytes: int
    is_truncated: bool


class CappedOutput:
    """Collects an output of any length in bounded memory: about 1.5 times `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < MIN_BYTES:
            raise ValueError(f"max_bytes must be at least {MIN_BYTES}")
        self.total_bytes = 0
        self._max_bytes = max_bytes
        self._head = bytearray()
        self._tail = bytearray()
        # An output of exactly max_bytes is kept whole: the head and the tail are then adjacent.
        self._head_bytes = max_bytes // 2
        self._tail_bytes = max_bytes - self._head_bytes

    def add(self, chunk: bytes) -> None:
        self.total_bytes += len(chunk)
        missing = self._head_bytes - len(self._head)
        if missing > 0:
            self._head += chunk[:missing]
            chunk = chunk[missing:]
        if len(chunk) >= self._tail_bytes:
            self._tail[:] = chunk[-self._tail_bytes :]
        elif chunk:
            self._tail += chunk
            if len(self._tail) > 2 * self._tail_bytes:
                del self._tail[: -self._tail_bytes]

    def result(self) -> CappedText:
        if self.total_bytes <= self._max_bytes:
            whole = _decoded(self._head + self._tail)
            if len(whole.encode()) <= self._max_bytes:
                return CappedText(whole, self.total_bytes, is_truncated=False)
        budget = self._max_bytes - _MARKER_BYTES
        if self.total_bytes <= self._max_bytes:
            # Short enough, but its replacement characters are longer than what they replace.
            source = bytes(self._head + self._tail)
            head, tail = source[: len(source) // 2], source[len(source) // 2 :]
        else:
            head, tail = bytes(self._head), bytes(self._tail[-self._tail_bytes :])
        head = _fitting_head(head, budget // 2)
        tail = _fitting_tail(tail, budget - budget // 2)
        left_out = self.total_bytes - len(head) - len(tail)
        text = f"{_decoded(head)}\n[{left_out} bytes left out]\n{_decoded(tail)}"
        return CappedText(text, self.total_bytes, is_truncated=True)


def cap_text(text: str | bytes, max_bytes: int) -> CappedText:
    """Cap an output that is there as a whole. Lone surrogates of a `str` become U+FFFD."""
    output = CappedOutput(max_bytes)
    output.add(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    return output.result()


def _decoded(source: bytes | bytearray) -> str:
    return source.decode("utf-8", "replace").replace("\x00", "\ufffd")


def _fitting_head(source: bytes, budget: int) -> bytes:
    """The longest beginning whose text fits into `budget` bytes and ends between two characters."""
    kept = source[:budget]
    if len(_decoded(kept).encode()) > budget:
        kept = kept[: _longest(budget, lambda size: len(_decoded(kept[:size]).encode()) <= budget)]
    for back in range(1, min(4, len(kept) + 1)):
        byte = kept[-back]
        if byte >= 0xC0:  # the first byte of a sequence, which needs `length` bytes
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return kept if length <= back else kept[:-back]
        if byte < 0x80:
            break
    return kept


def _fitting_tail(source: bytes, budget: int) -> bytes:
    """The longest end whose text fits into `budget` bytes and begins between two characters."""
    kept = source[max(0, len(source) - budget) :]
    if len(_decoded(kept).encode()) > budget:
        whole = kept
        size = _longest(budget, lambda size: len(_decoded(whole[len(whole) - size :]).encode()) <= budget)
        kept = whole[len(whole) - size :]
    for skipped in range(min(4, len(kept))):
        if kept[skipped] & 0xC0 != 0x80:
            return kept[skipped:]
    return kept


def _longest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest size up to `most` that fits, by bisection."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
