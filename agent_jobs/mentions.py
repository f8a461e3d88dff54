"""Mentions of people and channels in a message's text: `<@U0ANN>`, `<#C0ONE>`. Only those that the job's params name
come true, so no model and no stranger's text calls anybody else.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_ID = r"[UWCG][A-Z0-9]{2,30}"
_WRITTEN = re.compile(f"<[@#]({_ID})>")


def named(text: str, params: Mapping[str, Any]) -> tuple[str, ...]:
    """The ids that the text mentions and the params name."""
    written = {found[1] for found in _WRITTEN.finditer(text)}
    return tuple(sorted(written & set(_texts(params)))) if written else ()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
