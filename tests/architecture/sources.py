"""The source files of the project, parsed once."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


SOURCES = sorted(
    path
    for package in ("agent_jobs", "channels_integration", "infra", "config")
    for path in (ROOT / package).rglob("*.py")
    if "migrations" not in path.parts
)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def walked(tree: ast.AST) -> tuple[ast.AST, ...]:
    """All nodes of a tree, found once for all rules."""
    return tuple(ast.walk(tree))


@cache
def written(node: ast.AST) -> str:
    return ast.unparse(node)
