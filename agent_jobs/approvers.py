"""Checks who may decide an approval, and the approvers that a tool or a budget states.

Deciders have a kind, since two of different kinds may share a name: `token:finance` is an app token, and a visitor of a
web chat may use any name. Approvers are stated as texts:

- `token:finance`: app tokens of this name, by API
- `user:jane`: a user of this service
- `U0123ABCD` (Slack's ids of members): that member, in Slack
- any other text: a person of this name in a web chat, a webhook or a bridge, as its application names them
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_SLACK = "slack"
_MEMBER = re.compile(r"[UW][A-Z0-9]{2,30}")
# Names that no person may have: kinds of actors (`specs.Actor`), and the agent's own in transcripts.
_RESERVED = re.compile(r"(token|user|system|agent|person|app)\s*:|agent$")
RESERVED_FORM = "may not be agent, nor begin with token:, user:, system:, agent:, person: or app:"


@dataclass(frozen=True, slots=True)
class Person:
    """A person in a channel, by their id on the platform. `is_outsider`: from another workspace than the channel's."""

    platform: str
    id: str
    is_outsider: bool = False

    def __str__(self) -> str:
        return self.id


@dataclass(frozen=True, slots=True)
class Token:
    name: str

    def __str__(self) -> str:
        return f"token:{self.name}"


@dataclass(frozen=True, slots=True)
class User:
    name: str

    def __str__(self) -> str:
        return f"user:{self.name}"


Decider = Person | Token | User


def complaint(stated: Sequence[str]) -> str:
    """The error in a list of approvers, as the end of a sentence; empty if there is none."""
    for text in stated:
        kind, _, name = text.partition(":")
        if is_reserved(text) and not (kind in ("token", "user") and name.strip() == name != ""):
            return f"must name people, or apps as token:name or user:name: {text[:64]!r}"
    return ""


def may_decide(stated: Sequence[str], decider: Decider) -> bool:
    """Without stated approvers everybody may decide, except people of other workspaces, who must be named."""
    if not stated:
        return not (isinstance(decider, Person) and decider.is_outsider)
    return any(_is_meant(text, decider) for text in stated)


def is_reserved(name: str) -> bool:
    """Whether a person's name imitates an actor of another kind. Case, width and invisible characters do not count."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    seen = "".join(character for character in folded if unicodedata.category(character) not in ("Cf", "Cc", "Mn"))
    return _RESERVED.match(seen.strip()) is not None


def _is_meant(text: str, decider: Decider) -> bool:
    if is_reserved(text):
        return not isinstance(decider, Person) and text == str(decider)
    if not isinstance(decider, Person) or text != decider.id:
        return False
    return (decider.platform == _SLACK) == (_MEMBER.fullmatch(text) is not None)
