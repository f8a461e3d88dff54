"""Texts and JSON that PostgreSQL accepts."""

from typing import Any

import pytest

from infra.storable_text import storable


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("Zoë 🎉", "Zoë 🎉"),
        ("a\x00b", "ab"),
        ("half \ud83d", "half ?"),
        ("\ud83c\udf89", "??"),
        ({"a\x00": ["\ud800", {"b": "\x00"}]}, {"a": ["?", {"b": ""}]}),
        (("a", "\x00"), ["a", ""]),
        ({1: None}, {"1": None}),
        (5, 5),
        (True, True),
        (None, None),
    ],
    ids=ascii,
)
def test_zero_characters_go_and_halves_of_characters_become_question_marks(given: Any, stored: Any) -> None:
    found = storable(given)
    assert (found, type(found)) == (stored, type(stored))
