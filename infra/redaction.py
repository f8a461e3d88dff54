"""Removes secrets from servers' answers, in every form in which servers commonly repeat them.

It searches bytes, which takes linear time whatever the secrets are. A regular expression would not.
"""

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

MASK = "******"
_MASK = MASK.encode()
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_DIGITS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_")


class Blotter:
    """Redacts these values, ignoring the case of ASCII letters."""

    def __init__(self, values: Iterable[str]) -> None:
        known = list(values)
        self._plain = {_bytes(form).lower() for value in known for form in _plain_forms(value)}
        self._base64 = {core.lower() for value in known for core in _base64_cores(_bytes(value))}

    def blotted(self, text: str) -> str:
        written = text.encode("utf-8", "surrogatepass")
        spans = sorted(self._spans(written))
        if not spans:
            return text
        kept, end = [], 0
        for begin, until in spans:
            if begin >= end:
                kept += [written[end:begin], _MASK]
            end = max(end, until)
        return b"".join([*kept, written[end:]]).decode("utf-8", "surrogatepass")

    def _spans(self, written: bytes) -> Iterator[tuple[int, int]]:
        lower = written.lower()
        for form in self._plain:
            yield from _found(form, lower)
        lower = lower.translate(_URL_SAFE)
        for core in self._base64:
            for begin, end in _found(core, lower):
                # The base64 digits at the ends hold bits of the value, too.
                begin -= begin > 0 and written[begin - 1] in _DIGITS
                end += end < len(written) and written[end] in _DIGITS
                yield begin, end + len(written[end : end + 2]) - len(written[end : end + 2].lstrip(b"="))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _found(form: bytes, text: bytes) -> Iterator[tuple[int, int]]:
    begin = text.find(form)
    while begin >= 0:
        yield begin, begin + len(form)
        begin = text.find(form, begin + len(form))


def _plain_forms(value: str) -> Iterator[str]:
    """The value as it is, in JSON (also as PHP and Go escape it), in HTML, in URLs and in hex."""
    escaped = json.dumps(value)[1:-1]
    yield from (value, escaped, escaped.replace("/", "\\/"))
    yield re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", escaped)
    yield from (
        html.escape(value),
        quote(_bytes(value), safe=""),
        quote(_bytes(value)),
        quote_plus(_bytes(value)),
        _bytes(value).hex(),
    )


def _base64_cores(value: bytes) -> Iterator[bytes]:
    """The base64 digits that depend on the value alone, in base64 of a longer text such as `Bearer …`.

    They depend on the number of bytes before the value, modulo 3.
    """
    for ahead in range(3):
        digits = base64.b64encode(b"\0" * ahead + value).rstrip(b"=")
        is_even = (ahead + len(value)) % 3 == 0
        yield digits[(0, 2, 3)[ahead] : len(digits) if is_even else -1]
