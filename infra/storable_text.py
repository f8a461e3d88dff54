"""Makes text and JSON storable in PostgreSQL."""

from collections.abc import Mapping
from typing import Any


def storable(value: Any) -> Any:
    """The value without NUL characters and lone surrogates, which models and tool servers do send."""
    match value:
        case str():
            return value.replace("\x00", "").encode("utf-8", "replace").decode()
        case Mapping():
            return {storable(str(key)): storable(item) for key, item in value.items()}
        case list() | tuple():
            return [storable(item) for item in value]
    return value
