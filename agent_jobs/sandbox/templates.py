"""Checks, compiles and renders the templates of prompts, in the environment of `template_environment`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError

from agent_jobs.sandbox.template_budget import budgeted
from agent_jobs.sandbox.template_environment import EACH, ENVIRONMENT
from agent_jobs.sandbox.template_filters import MAX_OUTPUT

MAX_NESTED_LOOPS = 2
MAX_LITERAL_ITEMS = 100
_MAX_MESSAGE = 300
_ALLOWED_STATEMENTS = (nodes.Output, nodes.For, nodes.If)
_COSTLY = (nodes.Filter, nodes.Test, nodes.Call, nodes.Compare, nodes.Output)


class TemplateFault(Exception):
    """The fault of a template, in at most 300 characters."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled template. `reads`: how often it may walk through all of its params, if it has no loop."""

    template: jinja2.Template
    has_loop: bool
    reads: int


def token_count(template: str, *, most: int) -> int:
    """Tokens that are not plain text, counted up to `most`: the cost of compiling. TemplateFault if unreadable."""
    try:
        return sum(1 for _, kind, _ in islice(ENVIRONMENT.lexer.tokeniter(template, None), most) if kind != "data")
    except Exception as error:
        raise _fault(error) from None


def compiled(template: str) -> Compiled:
    """Check and compile a template. Raises TemplateFault for wrong syntax, or for what a template may not do."""
    try:
        tree = ENVIRONMENT.parse(template)
        _check(tree)
        loops = list(tree.find_all(nodes.For))
        reads = sum(1 for _ in tree.find_all(_COSTLY))
        for loop in loops:
            loop.iter = nodes.Filter(loop.iter, EACH, [], [], None, None, lineno=loop.lineno)
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
    """The rendered text. Raises TemplateFault, which names the missing name or the error."""
    with budgeted():
        try:
            return _output(program.template.generate({**params, "params": params}))
        except Exception as error:  # a stranger's program: every error is a fault of the template
            raise _fault(error) from None


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
