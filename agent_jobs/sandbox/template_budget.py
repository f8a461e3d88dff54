"""The step budget of one rendering of a template, and which values are data.

The budget gives a clear message at its limit. It does not count every instruction; the child's CPU timer covers those.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.runtime import Undefined

# For the whole rendering: a character costs 1, a value 10, one loop iteration 10.
MAX_STEPS = 1_000_000
VALUE_STEPS = 10
_MAX_BITS = 1_024
_EMPTY: dict[str, Any] = {}
_VIEWS = (type(_EMPTY.keys()), type(_EMPTY.values()), type(_EMPTY.items()))
COLLECTIONS = (dict, list, tuple, range, *_VIEWS)


class _Budget:
    def __init__(self) -> None:
        self.left = MAX_STEPS


_budget: ContextVar[_Budget] = ContextVar("budget")


@contextmanager
def budgeted() -> Iterator[None]:
    """A new budget for the block."""
    token = _budget.set(_Budget())
    try:
        yield
    finally:
        _budget.reset(token)


def spend(steps: int) -> None:
    budget = _budget.get()
    budget.left -= steps
    if budget.left < 0:
        raise SecurityError(f"takes more than {MAX_STEPS:,} steps")


def charge(value: Any, *, times: int = 1) -> None:
    """Charge for the size of a value. Refuses values that are not data."""
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, Undefined):
            continue
        if isinstance(item, bool | float) or item is None:
            spend(VALUE_STEPS * times)
        elif isinstance(item, int):
            if item.bit_length() > _MAX_BITS:
                raise SecurityError("a number has too many digits")
            spend(VALUE_STEPS * times)
        elif type(item) is str:
            spend(len(item) + VALUE_STEPS * times)
        elif isinstance(item, COLLECTIONS):
            spend(VALUE_STEPS * times * (1 + len(item)))
            if isinstance(item, dict):
                rest += item.keys()
            if not isinstance(item, range):
                rest += item.values() if isinstance(item, dict) else item
        else:
            raise SecurityError("a method or function is not a value: call it, with ()")
