"""What PostgreSQL takes as text and as JSON."""

from collections.abc import Mapping
from typing import Any


def storable(value: Any) -> Any:
    """The same without zero characters and halves of characters, which models and servers of tools do send."""
    match value:
        case str():
            return value.replace("\x00", "").encode("utf-8", "replace").decode()
        case Mapping():
            return {storable(str(key)): storable(item) for key, item in value.items()}
        case list() | tuple():
            return [storable(item) for item in value]
    return value
