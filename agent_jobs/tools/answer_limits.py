"""Reads answers of all tools: their charset, and how much the model sees."""

import codecs
import re

from infra.storable_text import marked

MAX_TEXT = 20_000
_CHARSET = re.compile(r"""charset\s*=\s*["']?([A-Za-z0-9_.:-]{1,40})""", re.IGNORECASE)
# Python's other codecs are no charsets (`zip`), or read escapes (`unicode_escape`).
_NO_CHARSETS = {"unicode_escape", "raw_unicode_escape", "idna", "punycode", "undefined", "mbcs", "oem"}
UNKNOWN = "Whether it was done is unknown: check before you do it again."


def cut(text: str) -> tuple[str, bool]:
    """The text cut to the limit for models and without characters that no database stores; and whether it was cut."""
    return str(marked(text[:MAX_TEXT])), len(text) > MAX_TEXT


def decoded(body: bytes, content_type: str) -> str:
    """The text of a body, by the charset of its Content-Type, otherwise by its byte order mark, otherwise as UTF-8."""
    named = _CHARSET.search(content_type)
    charset = _codec(named[1]) if named else "utf-8"
    if body.startswith(codecs.BOM_UTF8):
        charset = "utf-8-sig"
    elif body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        charset = "utf-16"
    return body.decode(charset, "replace")


def _codec(name: str) -> str:
    """Python's codec for a charset; UTF-8 for an unknown one. Browsers read latin-1 as windows-1252, and so do we."""
    try:
        found = codecs.lookup(name)
        "".encode(name)
    except (LookupError, ValueError):
        return "utf-8"
    if found.name in _NO_CHARSETS:
        return "utf-8"
    return "cp1252" if found.name in ("iso8859-1", "ascii") else found.name
