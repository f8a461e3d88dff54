"""Prompt templates: Jinja2 in a sandbox, with the job's params as names and as `params`.

Templates are written by whoever holds a WRITE token of an organisation and rendered in our processes, so beside
Jinja's own sandbox (no attributes with underscores, no mutation) the ways to burn memory or time are closed: a short
list of filters and functions, bounded loops, no variables of its own, no power or growing of texts, bounded output.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from agent_jobs.errors import PermanentError

MAX_LOOP = 1_000
MAX_NESTED_LOOPS = 2
MAX_OUTPUT = 40_000  # characters; what Slack takes in one message
_FILTERS = (
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
    "round",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "wordcount",
)
_ALLOWED_STATEMENTS = (nodes.Output, nodes.For, nodes.If)
_MAX_LITERAL_ITEMS = 100


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"**", "*", "%", "+"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise SecurityError("'**' is not allowed")
        if not (isinstance(left, int | float) and isinstance(right, int | float)):
            raise SecurityError(f"{operator!r} works on numbers only")
        return super().call_binop(context, operator, left, right)

    def is_safe_callable(self, obj: Any) -> bool:
        # Methods of texts such as `center` and `format` build outputs of any size: only plain look-ups may be called.
        if obj is _bounded_range:
            return True
        return getattr(obj, "__name__", "") in {"get", "items", "keys", "values", "upper", "lower", "strip", "title"}


def _bounded_range(*limits: int) -> range:
    numbers = range(*limits)
    if len(numbers) > MAX_LOOP:
        raise SecurityError(f"range() is limited to {MAX_LOOP} steps")
    return numbers


def _bounded_join(items: Iterable[Any], separator: str = "") -> str:
    pieces = [str(item) for item in items]
    if sum(map(len, pieces)) + len(pieces) * len(str(separator)) > MAX_OUTPUT:
        raise SecurityError(f"join makes more than {MAX_OUTPUT} characters")
    return str(separator).join(pieces)


_environment = _Environment(undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True)
_environment.filters = {name: _environment.filters[name] for name in _FILTERS} | {"join": _bounded_join}
_environment.globals = {"range": _bounded_range}


def _loop_depth(node: nodes.Node) -> int:
    inner = max((_loop_depth(child) for child in node.iter_child_nodes()), default=0)
    return inner + isinstance(node, nodes.For)


@lru_cache(maxsize=1_000)
def _compile(template: str) -> jinja2.Template:
    tree = _environment.parse(template)
    for statement in tree.find_all(nodes.Stmt):
        if not isinstance(statement, _ALLOWED_STATEMENTS):
            raise SecurityError(f"line {statement.lineno}: only {{{{ … }}}}, for and if are allowed")
    if tree.find(nodes.Concat):
        raise SecurityError("'~' is not allowed: write one {{ … }} after the other")
    literals: list[Any] = list(tree.find_all((nodes.List, nodes.Tuple, nodes.Dict)))
    if sum(len(literal.items) for literal in literals) > _MAX_LITERAL_ITEMS:
        raise SecurityError(f"lists and dicts may have {_MAX_LITERAL_ITEMS} items in all")
    for loop in tree.find_all(nodes.For):
        if loop.recursive:
            raise SecurityError(f"line {loop.lineno}: recursive loops are not allowed")
    if _loop_depth(tree) > MAX_NESTED_LOOPS:
        raise SecurityError(f"loops may be nested {MAX_NESTED_LOOPS} deep")
    return _environment.from_string(tree)


def check(template: str) -> str:
    """What is wrong with a template as such; '' where nothing is."""
    try:
        _compile(template)
    except jinja2.TemplateSyntaxError as error:
        return f"line {error.lineno}: {error.message}"
    except (SecurityError, jinja2.TemplateError, RecursionError) as error:
        return str(error) or "is nested too deeply"
    return ""


def render(template: str, params: Mapping[str, Any]) -> str:
    """The text of a prompt. Raises PermanentError (`prompt_invalid`): which name is missing, or what went wrong."""
    try:
        compiled = _compile(template)
        return _bounded(compiled.generate({**params, "params": params}))
    except jinja2.UndefinedError as error:
        raise PermanentError(f"start_prompt: {error.message}", code="prompt_invalid") from None
    except jinja2.TemplateSyntaxError as error:
        raise PermanentError(f"start_prompt: line {error.lineno}: {error.message}", code="prompt_invalid") from None
    except Exception as error:  # a template is a program of a stranger's: whatever it raises is its own fault
        raise PermanentError(f"start_prompt: {error}", code="prompt_invalid") from None


def _bounded(chunks: Any) -> str:
    pieces: list[str] = []
    room = MAX_OUTPUT
    for chunk in chunks:
        room -= len(chunk)
        if room < 0:
            raise SecurityError(f"the rendered prompt is longer than {MAX_OUTPUT} characters")
        pieces.append(chunk)
    return "".join(pieces)
