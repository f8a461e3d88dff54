"""Deciders of different kinds are never the same one, even if their names are equal."""

import pytest

from agent_jobs import approvers
from agent_jobs.approvers import Person, Token, User

DECIDERS = {
    "member": Person("slack", "U0BOSS"),
    "member of another workspace": Person("slack", "U0BOSS", is_outsider=True),
    "visitor with a member's id": Person("web", "U0BOSS"),
    "visitor": Person("web", "Ann"),
    "bridge": Person("whatsapp", "Ann"),
    "member called like a visitor": Person("slack", "Ann"),
    "visitor called like an app": Person("web", "token:finance"),
    "visitor with an app's name": Person("web", "finance"),
    "app": Token("finance"),
    "other app": Token("ops"),
    "app called like a visitor": Token("Ann"),
    "user": User("finance"),
}


@pytest.mark.parametrize(
    ("stated", "allowed"),
    [
        ([], set(DECIDERS) - {"member of another workspace"}),
        (["U0BOSS"], {"member", "member of another workspace"}),
        (["Ann"], {"visitor", "bridge"}),
        (["token:finance"], {"app"}),
        (["user:finance"], {"user"}),
        (["finance"], {"visitor with an app's name"}),
        (["system:time-out"], set()),
        (["Token:finance"], set()),
        (["token:finance", "Ann"], {"app", "visitor", "bridge"}),
    ],
    ids=lambda value: str(value) if isinstance(value, list) else "",
)
def test_who_is_meant_by_what_is_stated(stated, allowed):
    assert {name for name, decider in DECIDERS.items() if approvers.may_decide(stated, decider)} == allowed


@pytest.mark.parametrize(
    ("text", "is_sound"),
    [
        *[(text, True) for text in ("U0BOSS", "Ann", "token:finance", "user:jane", "Agent Smith", "tokens: 5")],
        *[("mailto:ann@example.com", True), ("token:a:b", True)],
        *[
            (text, False)
            for text in ("token:", "token: ", "Token:ops", "system:x", "agent", "agent:x", "person:U0BOSS")
        ],
    ],
)
def test_what_may_be_stated(text, is_sound):
    assert (approvers.complaint([text]) == "") == is_sound
