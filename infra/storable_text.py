"""Makes text and JSON storable in PostgreSQL."""

import re
from collections.abc import Callable, Mapping
from typing import Any

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(value: Any) -> Any:
    """The value without NUL characters and lone surrogates, which models and tool servers do send."""
    return _with_texts(value, lambda text: text.replace("\x00", "").encode("utf-8", "replace").decode())


def marked(value: Any, mark: str = "\ufffd") -> Any:
    """The value with a mark in the place of each of these characters."""
    return _with_texts(value, lambda text: _UNSTORABLE.sub(mark, text))


def _with_texts(value: Any, changed: Callable[[str], str]) -> Any:
    match value:
        case str():
            return changed(value)
        case Mapping():
            return {changed(str(key)): _with_texts(item, changed) for key, item in value.items()}
        case list() | tuple():
            return [_with_texts(item, changed) for item in value]
    return value
