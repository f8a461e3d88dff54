"""The Jinja environment for prompts: the allowed features of a template, and its step budget.

It adds rules to Jinja's own sandbox. Only the filters, tests and methods named here exist. No constant is folded at
compile time. Every loop, filter and printed value is charged to one budget for the whole rendering. The output is
limited. A value that is not data (a method, a function) is refused wherever it is printed or filtered, so no memory
address is shown.

The budget gives a clear message at its limit. It does not count every instruction; the child's CPU timer covers those.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from typing import Any

import jinja2
import jinja2.filters
import jinja2.tests
from jinja2 import nodes, pass_context, pass_eval_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_RANGE = 1_000
MAX_NESTED_LOOPS = 2
MAX_OUTPUT = 40_000  # characters; Slack's limit for one message
MAX_LITERAL_ITEMS = 100
# For the whole rendering: a character costs 1, a value 10, one loop iteration 10.
MAX_STEPS = 1_000_000
_VALUE_STEPS = 10
_MAX_BITS = 1_024
_MAX_ARGUMENT = 200  # characters of a filter's argument
_MAX_TRIMMED = 10
_MAX_PRECISION = 15
_MAX_MESSAGE = 300
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
_EACH = "each item of"  # no template can spell the name of this filter
_ALLOWED_STATEMENTS = (nodes.Output, nodes.For, nodes.If)
_COSTLY = (nodes.Filter, nodes.Test, nodes.Call, nodes.Compare, nodes.Output)
_EMPTY: dict[str, Any] = {}
_VIEWS = (type(_EMPTY.keys()), type(_EMPTY.values()), type(_EMPTY.items()))
_COLLECTIONS = (dict, list, tuple, range, *_VIEWS)


class TemplateFault(Exception):
    """The fault of a template, in at most 300 characters."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """`reads`: how often the template may walk through all of its params, if it has no loop."""

    template: jinja2.Template
    has_loop: bool
    reads: int


# --- The budget ------------------------------------------------------------------------------------------------
class _Budget:
    def __init__(self) -> None:
        self.left = MAX_STEPS


_budget: ContextVar[_Budget] = ContextVar("budget")


def _spend(steps: int) -> None:
    budget = _budget.get()
    budget.left -= steps
    if budget.left < 0:
        raise SecurityError(f"takes more than {MAX_STEPS:,} steps")


def _charge(value: Any, *, times: int = 1) -> None:
    """Charge for the size of a value. Refuses values that are not data."""
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, Undefined):
            continue
        if isinstance(item, bool | float) or item is None:
            _spend(_VALUE_STEPS * times)
        elif isinstance(item, int):
            if item.bit_length() > _MAX_BITS:
                raise SecurityError("a number has too many digits")
            _spend(_VALUE_STEPS * times)
        elif type(item) is str:
            _spend(len(item) + _VALUE_STEPS * times)
        elif isinstance(item, _COLLECTIONS):
            _spend(_VALUE_STEPS * times * (1 + len(item)))
            if isinstance(item, dict):
                rest += item.keys()
            if not isinstance(item, range):
                rest += item.values() if isinstance(item, dict) else item
        else:
            raise SecurityError("a method or function is not a value: call it, with ()")


@pass_context
def _each(_: Context, items: Any) -> Iterator[Any]:
    if not isinstance(items, (str, Undefined, *_COLLECTIONS)):
        raise SecurityError("only texts, lists and objects can be looped over")
    for item in items:
        _spend(_VALUE_STEPS)
        yield item


# --- Filters ---------------------------------------------------------------------------------------------------
def _bounded(name: str) -> Callable[..., Any]:
    original: Any = jinja2.filters.FILTERS[name]
    passed = getattr(getattr(original, "jinja_pass_arg", None), "name", "")

    @pass_context
    def run(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        length = 1
        for argument in (*args, *kwargs.values()):
            _charge(argument)
            if isinstance(argument, str) and name not in {"default", "d"}:
                length += len(argument)
        if length > _MAX_ARGUMENT:
            raise SecurityError(f"an argument of {name} has more than {_MAX_ARGUMENT} characters")
        _charge(value, times=length)
        first = {
            "context": (context,),
            "eval_context": (context.eval_ctx,),
            "environment": (context.environment,),
        }.get(passed, ())
        made = original(*first, value, *args, **kwargs)
        if isinstance(made, Iterator):
            made = list(islice(made, MAX_STEPS))
        _charge(made)
        return made

    return run


def _join(items: Iterable[Any], separator: str = "") -> str:
    _charge(separator)
    pieces = []
    for item in items:
        _charge(item)
        pieces.append(str(item))
    if sum(map(len, pieces)) + len(pieces) * len(str(separator)) > MAX_OUTPUT:
        raise SecurityError(f"join makes more than {MAX_OUTPUT:,} characters")
    return str(separator).join(pieces)


def _round(value: Any, precision: Any = 0, method: Any = "common") -> float:
    if not isinstance(value, int | float) or not isinstance(precision, int):
        raise SecurityError("round works on numbers")
    _charge(value)
    if not -_MAX_PRECISION <= precision <= _MAX_PRECISION or method not in {"common", "ceil", "floor"}:
        raise SecurityError(f"round takes a precision of at most {_MAX_PRECISION}, and common, ceil or floor")
    if method == "common":
        return round(float(value), precision)
    factor = 10.0**precision
    return float((math.ceil if method == "ceil" else math.floor)(value * factor) / factor)


@pass_context
def _striptags(context: Context, value: Any) -> Any:
    _charge(value)
    _spend(len(str(value)) ** 2 // 1_000)  # it copies the text for each tag
    return _BOUNDED["striptags"](context, value)


@pass_context
def _sum(context: Context, items: Iterable[Any], attribute: Any = None, start: Any = 0) -> Any:
    _charge(items)
    total = start
    for item in items:
        number = item if attribute is None else context.environment.getitem(item, attribute)
        if not isinstance(total, int | float) or not isinstance(number, int | float):
            raise SecurityError("sum works on numbers only")
        total += number
    _charge(total)
    return total


@pass_eval_context
def _tojson(eval_context: Any, value: Any) -> str:
    _charge(value)
    text = str(jinja2.filters.do_tojson(eval_context, value))
    _charge(text)
    return text


def _trim(value: Any, chars: str | None = None) -> str:
    _charge(value)
    if chars is not None and len(chars) > _MAX_TRIMMED:
        raise SecurityError(f"trim takes at most {_MAX_TRIMMED} characters to cut off")
    return str(value).strip(chars)


_BOUNDED = {name: _bounded(name) for name in (*WRAPPED_FILTERS, "striptags")}
FILTERS: Mapping[str, Callable[..., Any]] = _BOUNDED | {
    "join": _join,
    "round": _round,
    "striptags": _striptags,
    "sum": _sum,
    "tojson": _tojson,
    "trim": _trim,
}


def _range(*limits: int) -> range:
    numbers = range(*limits)
    if len(numbers) > MAX_RANGE:
        raise SecurityError(f"range() is limited to {MAX_RANGE:,} steps")
    return numbers


GLOBALS: Mapping[str, Callable[..., Any]] = {"range": _range}


# --- The environment -------------------------------------------------------------------------------------------
class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"**", "*", "%", "+", "-", "/", "//"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise SecurityError("'**' is not allowed")
        if not (isinstance(left, int | float) and isinstance(right, int | float)):
            raise SecurityError(f"{operator!r} works on numbers only")
        _charge([left, right])
        made = super().call_binop(context, operator, left, right)
        _charge(made)
        return made

    def call(__self, __context: Any, __function: Any, *args: Any, **kwargs: Any) -> Any:
        _charge([*args, *kwargs.values()])
        if __function is not _range:
            owner, name = getattr(__function, "__self__", None), getattr(__function, "__name__", "")
            if name not in METHODS.get(type(owner), ()):
                raise SecurityError("only range and a few methods of texts and objects may be called")
            if type(owner) is str:
                if args or kwargs:
                    raise SecurityError(f"{name}() takes no arguments here")
                _charge(owner)
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


@pass_eval_context
def _printed(_: Any, value: Any) -> Any:
    """Jinja's `finalize`. Taking a context also keeps Jinja from evaluating outputs at compile time."""
    _charge(value)
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
    environment.filters = {**FILTERS, _EACH: _each}
    environment.tests = {name: jinja2.tests.TESTS[name] for name in TESTS}
    environment.globals = dict(GLOBALS)
    return environment


ENVIRONMENT = _environment()


# --- Compiling and rendering -----------------------------------------------------------------------------------
def token_count(template: str, *, most: int) -> int:
    """Tokens that are not plain text, counted up to `most`: the cost of compiling. Raises TemplateFault."""
    try:
        return sum(1 for _, kind, _ in islice(ENVIRONMENT.lexer.tokeniter(template, None), most) if kind != "data")
    except Exception as error:
        raise _fault(error) from None


def compiled(template: str) -> Compiled:
    """Raises TemplateFault."""
    try:
        tree = ENVIRONMENT.parse(template)
        _check(tree)
        loops = list(tree.find_all(nodes.For))
        reads = sum(1 for _ in tree.find_all(_COSTLY))
        for loop in loops:
            loop.iter = nodes.Filter(loop.iter, _EACH, [], [], None, None, lineno=loop.lineno)
        return Compiled(ENVIRONMENT.from_string(tree), bool(loops), reads)
    except Exception as error:  # Python's compiler raises various errors for some
        raise _fault(error) from None


def complaint(template: str) -> str:
    try:
        compiled(template)
    except TemplateFault as fault:
        return str(fault)
    return ""


def render(program: Compiled, params: Mapping[str, Any]) -> str:
    """Raises TemplateFault, which names the missing name or the error."""
    token = _budget.set(_Budget())
    try:
        return _output(program.template.generate({**params, "params": params}))
    except Exception as error:  # a stranger's program: every error is a fault of the template
        raise _fault(error) from None
    finally:
        _budget.reset(token)


def _output(chunks: Iterable[str]) -> str:
    pieces: list[str] = []
    room = MAX_OUTPUT
    for chunk in chunks:
        room -= len(chunk)
        if room < 0:
            raise SecurityError(f"the rendered prompt is longer than {MAX_OUTPUT} characters")
        pieces.append(chunk)
    return "".join(pieces)


def _check(tree: nodes.Template) -> None:
    for statement in tree.find_all(nodes.Stmt):
        if not isinstance(statement, _ALLOWED_STATEMENTS):
            raise SecurityError(f"line {statement.lineno}: only {{{{ … }}}}, for and if are allowed")
    if tree.find(nodes.Concat):
        raise SecurityError("'~' is not allowed: write one {{ … }} after the other")
    literals: list[Any] = list(tree.find_all((nodes.List, nodes.Tuple, nodes.Dict)))
    if sum(len(literal.items) for literal in literals) > MAX_LITERAL_ITEMS:
        raise SecurityError(f"lists and dicts may have {MAX_LITERAL_ITEMS} items in all")
    for loop in tree.find_all(nodes.For):
        if loop.recursive:
            raise SecurityError(f"line {loop.lineno}: recursive loops are not allowed")
    if _loop_depth(tree) > MAX_NESTED_LOOPS:
        raise SecurityError(f"loops may be nested {MAX_NESTED_LOOPS} deep")


def _loop_depth(node: nodes.Node) -> int:
    inner = max((_loop_depth(child) for child in node.iter_child_nodes()), default=0)
    return inner + isinstance(node, nodes.For)


def _fault(error: Exception) -> TemplateFault:
    if isinstance(error, jinja2.TemplateSyntaxError):
        text = f"line {error.lineno}: {error.message}"
    elif isinstance(error, jinja2.TemplateError):
        text = str(error.message)
    elif isinstance(error, RecursionError | SyntaxError | MemoryError):
        text = "is nested too deeply"
    elif isinstance(error, TypeError) and "argument" in str(error):
        text = "a filter, test or method was given arguments that it does not take"
    elif isinstance(error, ValueError) and "digits" in str(error):
        text = "a number has too many digits"
    else:
        text = str(error)
    return TemplateFault(text[:_MAX_MESSAGE] or "cannot be used")
