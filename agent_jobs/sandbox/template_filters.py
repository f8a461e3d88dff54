"""The filters that templates may use, and `range`. Each charges its input and its output to the budget."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import jinja2
import jinja2.filters
from jinja2 import pass_context, pass_eval_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context

from agent_jobs.sandbox.template_budget import MAX_STEPS, charge, spend

MAX_RANGE = 1_000
MAX_OUTPUT = 40_000  # characters
_MAX_ARGUMENT = 200  # characters of a filter's argument
_MAX_TRIMMED = 10
_MAX_PRECISION = 15
_PERSON_ID = re.compile(r"[UW][A-Z0-9]{2,30}\Z")
_CHANNEL_ID = re.compile(r"[CG][A-Z0-9]{2,30}\Z")
# Jinja's own filters, each charged for its input and its output.
WRAPPED_FILTERS = (
    "abs",
    "capitalize",
    "count",
    "d",
    "default",
    "dictsort",
    "first",
    "float",
    "int",
    "items",
    "last",
    "length",
    "list",
    "lower",
    "max",
    "min",
    "reverse",
    "sort",
    "string",
    "title",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "wordcount",
)


def _bounded(name: str) -> Callable[..., Any]:
    original: Any = jinja2.filters.FILTERS[name]
    passed = getattr(getattr(original, "jinja_pass_arg", None), "name", "")

    @pass_context
    def run(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        length = 1
        for argument in (*args, *kwargs.values()):
            charge(argument)
            if isinstance(argument, str) and name not in {"default", "d"}:
                length += len(argument)
        if length > _MAX_ARGUMENT:
            raise SecurityError(f"an argument of {name} has more than {_MAX_ARGUMENT} characters")
        charge(value, times=length)
        first = {
            "context": (context,),
            "eval_context": (context.eval_ctx,),
            "environment": (context.environment,),
        }.get(passed, ())
        made = original(*first, value, *args, **kwargs)
        if isinstance(made, Iterator):
            made = list(islice(made, MAX_STEPS))
        charge(made)
        return made

    return run


def _join(items: Iterable[Any], separator: str = "") -> str:
    charge(separator)
    pieces = []
    for item in items:
        charge(item)
        pieces.append(str(item))
    if sum(map(len, pieces)) + len(pieces) * len(str(separator)) > MAX_OUTPUT:
        raise SecurityError(f"join makes more than {MAX_OUTPUT:,} characters")
    return str(separator).join(pieces)


def _mention(value: Any) -> str:
    """Mention a person or a channel by its id in Slack. Any other name stays a name."""
    charge(value)
    named = str(value)
    if _PERSON_ID.match(named):
        return f"<@{named}>"
    return f"<#{named}>" if _CHANNEL_ID.match(named) else f"@{named}"


def _round(value: Any, precision: Any = 0, method: Any = "common") -> float:
    if not isinstance(value, int | float) or not isinstance(precision, int):
        raise SecurityError("round works on numbers")
    charge(value)
    if not -_MAX_PRECISION <= precision <= _MAX_PRECISION or method not in {"common", "ceil", "floor"}:
        raise SecurityError(f"round takes a precision of at most {_MAX_PRECISION}, and common, ceil or floor")
    if method == "common":
        return round(float(value), precision)
    factor = 10.0**precision
    return float((math.ceil if method == "ceil" else math.floor)(value * factor) / factor)


@pass_context
def _striptags(context: Context, value: Any) -> Any:
    charge(value)
    spend(len(str(value)) ** 2 // 1_000)  # it copies the text for each tag
    return _BOUNDED["striptags"](context, value)


@pass_context
def _sum(context: Context, items: Iterable[Any], attribute: Any = None, start: Any = 0) -> Any:
    charge(items)
    total = start
    for item in items:
        number = item if attribute is None else context.environment.getitem(item, attribute)
        if not isinstance(total, int | float) or not isinstance(number, int | float):
            raise SecurityError("sum works on numbers only")
        total += number
    charge(total)
    return total


@pass_eval_context
def _tojson(eval_context: Any, value: Any) -> str:
    charge(value)
    text = str(jinja2.filters.do_tojson(eval_context, value))
    charge(text)
    return text


def _trim(value: Any, chars: str | None = None) -> str:
    charge(value)
    if chars is not None and len(chars) > _MAX_TRIMMED:
        raise SecurityError(f"trim takes at most {_MAX_TRIMMED} characters to cut off")
    return str(value).strip(chars)


_BOUNDED = {name: _bounded(name) for name in (*WRAPPED_FILTERS, "striptags")}
FILTERS: Mapping[str, Callable[..., Any]] = _BOUNDED | {
    "join": _join,
    "mention": _mention,
    "round": _round,
    "striptags": _striptags,
    "sum": _sum,
    "tojson": _tojson,
    "trim": _trim,
}


def bounded_range(*limits: int) -> range:
    numbers = range(*limits)
    if len(numbers) > MAX_RANGE:
        raise SecurityError(f"range() is limited to {MAX_RANGE:,} steps")
    return numbers
