"""Rules for single values that clients state: each returns the error as the end of a sentence, "" if there is none."""

from collections.abc import Callable
from typing import Any

from agent_jobs.approvers import complaint

Rule = Callable[[Any], str]


def whole(low: int, high: int) -> Rule:
    def rule(value: Any) -> str:
        ok = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return "" if ok else f"must be a whole number from {low} to {high}"

    return rule


def number(low: float, high: float, *, above: bool = False) -> Rule:
    def rule(value: Any) -> str:
        ok = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        if ok and not (above and value == low):
            return ""
        return f"must be a number {'above' if above else 'from'} {low} {'and up ' if above else ''}to {high}"

    return rule


def text(most: int) -> Rule:
    def rule(value: Any) -> str:
        ok = isinstance(value, str) and value.strip() and len(value) <= most
        return "" if ok else f"must be a text of 1 to {most} characters"

    return rule


def texts(most: int, longest: int) -> Rule:
    def rule(value: Any) -> str:
        ok = isinstance(value, list) and 0 < len(value) <= most and not any(map(text(longest), value))
        return "" if ok else f"must be a list of 1 to {most} texts of at most {longest} characters"

    return rule


def one_of(*words: str) -> Rule:
    return lambda value: "" if value in words else f"must be one of {', '.join(words)}"


def flag(value: Any) -> str:
    return "" if isinstance(value, bool) else "must be true or false"


def approvers(value: Any) -> str:
    return texts(50, 255)(value) or complaint(value)
