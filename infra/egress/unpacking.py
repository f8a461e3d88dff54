"""Unpacks compressed answers with a bound on the result, for servers that compress although nobody asked them to.

Content delivery networks do that. A small compressed body may unpack to gigabytes, so the bound counts unpacked bytes.
"""

import zlib
from collections.abc import Iterator

IDENTITY = ("", "identity")
_SUPPORTED = {"gzip", "x-gzip", "deflate"}
# zlib's code for a header of gzip or of zlib, whichever comes.
_ANY_HEADER = 47
_PIECE = 64 * 1024


class Damaged(ValueError):
    """The bytes are not what their Content-Encoding says."""


def is_supported(coding: str) -> bool:
    return coding.strip().lower() in _SUPPORTED


class Unpacker:
    """Unpacks one body. `pieces` yields small pieces, so the caller can stop at its limit."""

    def __init__(self) -> None:
        self._inflating = zlib.decompressobj(_ANY_HEADER)

    @property
    def is_finished(self) -> bool:
        return self._inflating.eof

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """Unpack a part of the body, in small pieces. Raises Damaged."""
        while chunk and not self._inflating.eof:
            try:
                piece = self._inflating.decompress(chunk, _PIECE)
            except zlib.error as error:
                raise Damaged(str(error)) from None
            chunk = self._inflating.unconsumed_tail
            if piece:
                yield piece


def unpacked(body: bytes, *, at_most: int) -> tuple[bytes, bool]:
    """The unpacked body up to `at_most` bytes, and whether that is all of it. Raises Damaged."""
    found = bytearray()
    unpacker = Unpacker()
    for piece in unpacker.pieces(body):
        found += piece
        if len(found) > at_most:
            return bytes(found[:at_most]), False
    return bytes(found), unpacker.is_finished
