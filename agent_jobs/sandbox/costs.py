"""Estimates the cost of compiling and running a JSON Schema, without running it.

A schema is refused if a `$ref` leaves the document or leads back to itself. It is also refused if it is too large with
all references expanded (30 definitions that each name the next one twice make 2^30 parts).

The estimate is an upper bound for any instance: each value in the instance meets at most `steps` keywords, and each
character at most `states` states of patterns. Branches that meet different values (`properties`) count as the most
expensive of them. Branches that meet the same value (`anyOf`, `$ref`) add up.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

MAX_SIZE = 2_000
MAX_PLAIN = 10_000
MAX_STEPS = 20_000
MAX_STATES = 20_000
MAX_PATTERN = 10_000
MAX_CHAINED_REFERENCES = 30
# Nanoseconds, measured on a slow core: one keyword at one value; one state of a pattern at one character.
_STEP_NS = 150
_STATE_NS = 3
# Building one error, with the instance quoted in its message; `anyOf` builds one for each of its branches.
_ERROR_NS = 10_000
_COSTLY = {"multipleOf": 200, "uniqueItems": 20}
_FORMAT_STATES = 50
_UNICODE_CLASS = 300
_UNKNOWN_FLAGS = 10_000
_MOST = 10**12

# Keywords whose value is a map from names to schemas, and those whose value is plain data.
_MAPS = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
_PLAIN = {"const", "enum", "default", "examples"}
_REFUSED = {"$dynamicRef", "$recursiveRef", "$dynamicAnchor", "$anchor", "$id"}
# Possessive and bounded: these regexes run on a stranger's pattern, at each of its brackets.
_REPETITION = re.compile(r"\{([0-9]*+)(,?+)([0-9]*+)\}")
_BRACED = re.compile(r"\{[^}]{0,100}\}")
_PLAIN_GROUP = re.compile(r"\?(:|P?<[A-Za-z])")


class Unacceptable(Exception):
    """The schema is refused; the text says why."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The estimated cost of a schema.

    `size`: its parts, with references expanded. `plain`: values in enum and const. `steps`: the most keywords that one
    value meets. `states`: the most states of patterns that one character meets. `expressions`: the number of patterns.
    `all_states`: the states of all patterns together, which determine the cost of compiling.
    """

    size: int = 0
    plain: int = 0
    steps: int = 0
    states: int = 0
    all_states: int = 0
    expressions: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.size + other.size,
            self.plain + other.plain,
            min(self.steps + other.steps, _MOST),
            min(self.states + other.states, _MOST),
            min(self.all_states + other.all_states, _MOST),
            self.expressions + other.expressions,
        )

    def beside(self, other: "Cost") -> "Cost":
        """The cost of two branches, if a value meets at most one of them."""
        both = self + other
        return Cost(
            both.size,
            both.plain,
            max(self.steps, other.steps),
            max(self.states, other.states),
            both.all_states,
            both.expressions,
        )

    def validation_ns(self, instance: str) -> int:
        """Upper bound, in nanoseconds, for deciding whether an instance is valid. `instance` is its JSON."""
        return self.steps * _values(instance) * _STEP_NS + self.states * len(instance) * _STATE_NS

    def errors_ns(self, instance: str) -> int:
        """Upper bound, in nanoseconds, for building all errors of an instance."""
        return self.validation_ns(instance) + self.steps * _values(instance) * (_ERROR_NS + len(instance))


def of(schema: Mapping[str, Any]) -> Cost:
    """The cost of a schema. Raises Unacceptable if it is too large, too costly or recursive."""
    try:
        cost = _Estimate(schema).of(schema, path=())
    except RecursionError:
        raise Unacceptable("is nested too deeply") from None
    for value, most, what in (
        (cost.steps, MAX_STEPS, "checks for one value"),
        (cost.all_states, MAX_STATES, "characters in its patterns, repetitions expanded"),
    ):
        if value > most:
            raise Unacceptable(f"is too costly: it has over {most:,} {what}")
    return cost


def states(pattern: str) -> int:
    """Upper bound for the states that a regular expression compiles to: repetitions multiply what they repeat."""
    sums, last, at = [0], 0, 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if character == "{" and (repeated := _REPETITION.match(pattern, at - 1)):
            low, comma, high = repeated.groups()
            times = max(int(low[:9] or 0), int(high[:9] or 0), 1) + bool(comma)
            sums[-1] += last * (times - 1)
            last *= times
            at = repeated.end()
            continue
        if character == "(":
            if pattern.startswith("?", at) and not _PLAIN_GROUP.match(pattern, at):
                sums[-1] += _UNKNOWN_FLAGS
            sums.append(1)
            last = 0
            continue
        if character == ")" and len(sums) > 1:
            last = sums.pop()
        elif character == "\\":
            last, at = _escaped(pattern, at)
        elif character == "[":
            last, at = _class(pattern, at)
        else:
            last = 1
        sums[-1] = min(sums[-1] + last, _MOST)
    return sum(sums)


def _escaped(pattern: str, at: int) -> tuple[int, int]:
    kind = pattern[at : at + 1]
    at += 1
    if kind in {"p", "P", "x", "u", "U"} and (braced := _BRACED.match(pattern, at)):
        at = braced.end()
    return (_UNICODE_CLASS if kind in {"p", "P"} else 4 if kind in {"w", "W", "d", "D", "s", "S"} else 1), at


def _class(pattern: str, at: int) -> tuple[int, int]:
    """Reads a character class, from after its bracket."""
    depth, cost = 1, 1
    first = at + pattern.startswith("^", at)
    while at < len(pattern) and depth:
        character = pattern[at]
        at += 1
        if character == "\\":
            more, at = _escaped(pattern, at)
            cost += more
        elif character == "[":
            depth += 1
        elif character == "]" and at - 1 != first:
            depth -= 1
        else:
            cost += not character.isascii()
    return cost, at


def _values(instance: str) -> int:
    """Upper bound for the values and keys in a JSON text; it also counts characters within strings."""
    return 1 + sum(map(instance.count, ",:[{"))


class _Estimate:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._known: dict[str, Cost] = {}

    def of(self, node: Any, *, path: tuple[str, ...]) -> Cost:
        """The cost of a schema. `path` holds the references that lead to it."""
        if isinstance(node, list):
            return self._sum((self.of(item, path=path) for item in node), Cost(size=1))
        if not isinstance(node, dict):
            return Cost(size=1)
        cost = Cost(size=1, steps=1)
        for key, value in node.items():
            if key in _REFUSED and not (key == "$id" and node is self._root):
                raise Unacceptable(f"{key} is not supported; refer to definitions as #/$defs/…")
            cost = _bounded(cost + self._keyword(key, value, path=path))
        if "unevaluatedProperties" in node or "unevaluatedItems" in node:
            cost += Cost(steps=cost.steps, states=cost.states)  # it evaluates its siblings a second time
        return _bounded(cost)

    def _keyword(self, key: str, value: Any, *, path: tuple[str, ...]) -> Cost:
        if key in {"$defs", "definitions"}:
            self._map(value, path=path)  # counted where they are referred to
            return Cost()
        if key == "$ref":
            return self._referred(value, path=path)
        if key in {"enum", "const"}:
            plain = _plain_size(value)
            return Cost(size=1, plain=plain, steps=plain)
        if key in _PLAIN:
            return Cost(plain=_plain_size(value))
        if key == "pattern" and isinstance(value, str):
            return _pattern(value)
        if key == "format":
            return Cost(size=1, steps=1, states=_FORMAT_STATES)
        if key == "properties":
            return reduce(Cost.beside, self._map(value, path=path), Cost(size=1, steps=1))
        if key == "prefixItems" and isinstance(value, list):
            found = (self.of(item, path=path) for item in value)
            return reduce(lambda sum_, more: _bounded(sum_.beside(more)), found, Cost(size=1, steps=1))
        if key == "patternProperties" and isinstance(value, dict):
            return self._sum((_pattern(name) for name in value), self._sum(self._map(value, path=path)))
        if key in _MAPS:
            return self._sum(self._map(value, path=path), Cost(size=1, steps=1))
        if key in {"required", "dependentRequired"}:
            size = _plain_size(value)
            return Cost(size=size, steps=size)
        return self.of(value, path=path) + Cost(steps=_COSTLY.get(key, 1))

    def _map(self, schemas: Any, *, path: tuple[str, ...]) -> list[Cost]:
        """The cost of each schema in a map. A value of another type is refused when the schema is compiled."""
        if not isinstance(schemas, dict):
            return [self.of(schemas, path=path)]
        found, size = [], 0
        for schema in schemas.values():
            found.append(self.of(schema, path=path))
            size += found[-1].size
            _bounded(Cost(size=size))
        return found

    def _sum(self, costs: Iterable[Cost], start: Cost = Cost()) -> Cost:
        return reduce(lambda sum_, more: _bounded(sum_ + more), costs, start)

    def _referred(self, reference: Any, *, path: tuple[str, ...]) -> Cost:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise Unacceptable("$ref may only point into this schema, as #/$defs/…")
        if reference in path or reference == "#":
            raise Unacceptable(f"$ref {reference[:200]} leads back to itself; a schema may not be recursive")
        if len(path) >= MAX_CHAINED_REFERENCES:
            raise Unacceptable(f"more than {MAX_CHAINED_REFERENCES} references follow each other")
        if reference not in self._known:
            self._known[reference] = self.of(self._target(reference), path=(*path, reference))
        return self._known[reference]

    def _target(self, reference: str) -> Any:
        node: Any = self._root
        for part in reference.removeprefix("#/").split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, dict) and name in node:
                node = node[name]
            elif isinstance(node, list) and name.isdigit() and name.isascii() and int(name[:6]) < len(node):
                node = node[int(name[:6])]
            else:
                raise Unacceptable(f"$ref {reference[:200]} points to nothing")
        return node


def _pattern(pattern: str) -> Cost:
    if len(pattern) > MAX_PATTERN:
        raise Unacceptable(f"has a pattern of more than {MAX_PATTERN:,} characters")
    count = states(pattern)
    if count > MAX_STATES:
        raise Unacceptable(f"has a pattern that is too large with its repetitions expanded: {pattern[:100]}")
    return Cost(size=1, steps=1, states=count, all_states=count, expressions=1)


def _plain_size(value: Any) -> int:
    """Values in plain data, counted up to a little over MAX_PLAIN; a long string counts as several."""
    size, rest = 0, [value]
    while rest and size <= MAX_PLAIN:
        item = rest.pop()
        size += 1
        if isinstance(item, dict):
            rest += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            rest += item
        elif isinstance(item, str):
            size += len(item) // 100
    return size


def _bounded(cost: Cost) -> Cost:
    if cost.size > MAX_SIZE:
        raise Unacceptable(f"is too large: with its references expanded it has over {MAX_SIZE:,} parts")
    if cost.plain > MAX_PLAIN:
        raise Unacceptable(f"is too large: its enum and const, expanded, have over {MAX_PLAIN:,} values")
    return cost
