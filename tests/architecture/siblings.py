"""Finds imports between the modules of a package's registered classes: runners or platforms."""

from collections.abc import Iterable
from itertools import permutations

import grimp


def chains(registered: Iterable[object]) -> list[tuple[str, ...]]:
    """The imports, direct or through others, that lead from the module of one registered object to that of another."""
    modules = sorted({type(one).__module__ for one in registered})
    packages = {module.split(".")[0] for module in modules} | {"infra"}
    graph = grimp.build_graph(*sorted(packages), cache_dir=None)
    found = (graph.find_shortest_chain(importer, imported) for importer, imported in permutations(modules, 2))
    return [chain for chain in found if chain]
