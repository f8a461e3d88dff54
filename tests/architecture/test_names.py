"""A name stands for one thing: no class and no module of the source shares its name with another without need."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import pytest

from tests.architecture.sources import ROOT, SOURCES, parsed

# Django, Celery and Python ask for these names once per app or package, or they mean the same in every package.
_PER_PACKAGE = {"__init__", "admin", "apps", "base", "errors", "models", "tasks", "urls"}
# Django asks for a `Command` in each command's module.
_PER_MODULE = {"Command"}
# The API of a resource, its table and its service may share the resource's name: one module of each kind.
_API, _TABLES = "agent_jobs/api", "agent_jobs/models"


def doubled_modules(paths: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Paths of modules that share a base name without need."""
    homes: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        homes[PurePosixPath(path).stem].append(path)
    for name, places in homes.items():
        services = [place for place in places if str(PurePosixPath(place).parent) not in {_API, _TABLES}]
        if name not in _PER_PACKAGE and len(services) > 1:
            yield tuple(sorted(services))


def doubled_classes(modules: Iterable[tuple[str, ast.Module]]) -> Iterator[tuple[str, ...]]:
    """Paths of modules that define a class of the same name at their top, each followed by the name."""
    homes: defaultdict[str, list[str]] = defaultdict(list)
    for path, tree in modules:
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name not in _PER_MODULE:
                homes[node.name].append(f"{path}:{node.name}")
    return (tuple(sorted(places)) for places in homes.values() if len(places) > 1)


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_two_modules_share_a_name_without_need() -> None:
    assert list(doubled_modules(map(_relative, SOURCES))) == []


def test_no_class_name_stands_twice() -> None:
    assert list(doubled_classes((_relative(path), parsed(path)) for path in SOURCES)) == []


@pytest.mark.parametrize(
    ("paths", "is_doubled"),
    [
        (["infra/redis.py", "config/embedded/redis.py"], True),
        (["agent_jobs/turns/steps.py", "agent_jobs/jobs/steps.py", "agent_jobs/models/steps.py"], True),
        (["agent_jobs/tenants/orgs.py", "agent_jobs/models/orgs.py"], False),
        (["agent_jobs/api/model_keys.py", "agent_jobs/catalog/model_keys.py"], False),
        (["agent_jobs/api/jobs.py", "agent_jobs/models/jobs.py"], False),
        (["agent_jobs/runners/base.py", "channels_integration/platforms/base.py"], False),
    ],
)
def test_the_rule_knows_a_doubled_module(paths: list[str], is_doubled: bool) -> None:
    assert bool(list(doubled_modules(paths))) == is_doubled


@pytest.mark.parametrize(
    ("first", "second", "is_doubled"),
    [
        ("class Claim: pass", "class Claim: pass", True),
        ("class Claim: pass", "class SendClaim: pass", False),
        ("class Job:\n    class Meta: pass", "class Org:\n    class Meta: pass", False),
        ("class Command: pass", "class Command: pass", False),
    ],
)
def test_the_rule_knows_a_doubled_class(first: str, second: str, is_doubled: bool) -> None:
    assert bool(list(doubled_classes([("a.py", ast.parse(first)), ("b.py", ast.parse(second))]))) == is_doubled
