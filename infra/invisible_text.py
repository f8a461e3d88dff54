"""Finds invisible characters, and those that change how their neighbours look. Names, codes and ids may not have them.

Two names that look alike must be the same name, and a name must not reverse the text around it.
"""

import unicodedata

# Control, format (bidi marks, zero-width characters) and separators of lines and paragraphs.
_UNSEEN = {"Cc", "Cf", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"


def in_code(text: str) -> str:
    """A complaint about the first invisible character of a code or an id; '' if there is none."""
    return next((_complaint(character) for character in text if _is_unseen(character)), "")


def in_name(text: str) -> str:
    """A complaint about the first invisible character of a name; '' if there is none.

    Unlike `in_code`, it allows the joiners that scripts and emoji need: those between two non-ASCII characters.
    """
    for place, character in enumerate(text):
        if _is_unseen(character) and not (character in _JOINERS and _is_joining(text, place)):
            return _complaint(character)
    return ""


def _is_unseen(character: str) -> bool:
    return unicodedata.category(character) in _UNSEEN


def _is_joining(text: str, place: int) -> bool:
    around = text[place - 1 : place] + text[place + 1 : place + 2]
    return len(around) == 2 and not any(neighbour.isascii() or _is_unseen(neighbour) for neighbour in around)


def _complaint(character: str) -> str:
    return f"may not contain the invisible character U+{ord(character):04X}"
