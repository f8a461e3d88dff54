"""The Jinja environment for prompts: the allowed features of a template.

It adds rules to Jinja's own sandbox. Only the filters, tests and methods named here exist. No constant is folded at
compile time. Every loop, filter and printed value is charged to one budget (`template_budget`). A value that is not
data (a method, a function) is refused wherever it is printed or filtered, so no memory address is shown.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jinja2
import jinja2.tests
from jinja2 import pass_context, pass_eval_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from agent_jobs.sandbox.template_budget import COLLECTIONS, VALUE_STEPS, charge, spend
from agent_jobs.sandbox.template_filters import FILTERS, bounded_range

TESTS = (
    "!=",
    "<",
    "<=",
    "==",
    ">",
    ">=",
    "boolean",
    "defined",
    "divisibleby",
    "eq",
    "equalto",
    "even",
    "false",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "string",
    "true",
    "undefined",
    "upper",
)
# Methods such as `center` and `format` build outputs of any size, so only these exist.
METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset({"upper", "lower", "strip", "title"}),
    dict: frozenset({"get", "items", "keys", "values"}),
}
LOOP_ATTRIBUTES = frozenset(
    {
        "index",
        "index0",
        "revindex",
        "revindex0",
        "first",
        "last",
        "length",
        "depth",
        "depth0",
        "previtem",
        "nextitem",
    }
)
EACH = "each item of"  # no template can spell the name of this filter
GLOBALS: Mapping[str, Callable[..., Any]] = {"range": bounded_range}


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"**", "*", "%", "+", "-", "/", "//"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise SecurityError("'**' is not allowed")
        if not (isinstance(left, int | float) and isinstance(right, int | float)):
            raise SecurityError(f"{operator!r} works on numbers only")
        charge([left, right])
        made = super().call_binop(context, operator, left, right)
        charge(made)
        return made

    def call(__self, __context: Any, __function: Any, *args: Any, **kwargs: Any) -> Any:
        charge([*args, *kwargs.values()])
        if __function is not bounded_range:
            owner, name = getattr(__function, "__self__", None), getattr(__function, "__name__", "")
            if name not in METHODS.get(type(owner), ()):
                raise SecurityError("only range and a few methods of texts and objects may be called")
            if type(owner) is str:
                if args or kwargs:
                    raise SecurityError(f"{name}() takes no arguments here")
                charge(owner)
        return __function(*args, **kwargs)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if attribute in METHODS.get(type(obj), ()) or (isinstance(obj, LoopContext) and attribute in LOOP_ATTRIBUTES):
            return getattr(obj, attribute)
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        try:
            if isinstance(obj, str | dict | list | tuple | range):
                return obj[argument]
        except (LookupError, TypeError, ValueError):
            pass
        return self.getattr(obj, argument) if isinstance(argument, str) else self.undefined(obj=obj, name=argument)


@pass_context
def _each(_: Context, items: Any) -> Iterator[Any]:
    if not isinstance(items, (str, Undefined, *COLLECTIONS)):
        raise SecurityError("only texts, lists and objects can be looped over")
    for item in items:
        spend(VALUE_STEPS)
        yield item


@pass_eval_context
def _printed(_: Any, value: Any) -> Any:
    """Jinja's `finalize`. Taking a context also keeps Jinja from evaluating outputs at compile time."""
    charge(value)
    return value


def _environment() -> _Environment:
    environment = _Environment(
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        optimized=False,  # Jinja would compute constants at compile time, without a budget
        finalize=_printed,
        cache_size=0,
    )
    environment.filters = {**FILTERS, EACH: _each}
    environment.tests = {name: jinja2.tests.TESTS[name] for name in TESTS}
    environment.globals = dict(GLOBALS)
    return environment


ENVIRONMENT = _environment()
