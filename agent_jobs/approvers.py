"""Who decides about an approval, and whom a tool or a budget names as its approvers.

Deciders are typed, since two of different kinds may have the same name: `token:finance` is an app token, and a visitor
of a web chat may call themselves anything. Approvers are stated as texts:

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
# What is no person's name: kinds of actors (`specs.Actor`), and the agent's own in transcripts.
_RESERVED = re.compile(r"(token|user|system|agent|person|app)\s*:|agent$")
RESERVED_FORM = "may not be agent, nor begin with token:, user:, system:, agent:, person: or app:"


@dataclass(frozen=True, slots=True)
class Person:
    """A person in a channel, by the platform's id of them. `is_outsider`: of another workspace than the channel's."""

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
    """What is wrong with a list of approvers, as the end of a sentence; empty where nothing is."""
    for text in stated:
        kind, _, name = text.partition(":")
        if is_reserved(text) and not (kind in ("token", "user") and name.strip() == name != ""):
            return f"must name people, or apps as token:name or user:name: {text[:64]!r}"
    return ""


def may_decide(stated: Sequence[str], decider: Decider) -> bool:
    """Where nobody is stated, everybody may but people of other workspaces: these have to be named."""
    if not stated:
        return not (isinstance(decider, Person) and decider.is_outsider)
    return any(_is_meant(text, decider) for text in stated)


def is_reserved(name: str) -> bool:
    """Whether it reads like somebody else's name than a person's. Case, width and invisible characters do not count."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    seen = "".join(character for character in folded if unicodedata.category(character) not in ("Cf", "Cc", "Mn"))
    return _RESERVED.match(seen.strip()) is not None


def _is_meant(text: str, decider: Decider) -> bool:
    if is_reserved(text):
        return not isinstance(decider, Person) and text == str(decider)
    if not isinstance(decider, Person) or text != decider.id:
        return False
    return (decider.platform == _SLACK) == (_MEMBER.fullmatch(text) is not None)
