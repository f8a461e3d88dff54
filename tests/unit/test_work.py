"""The work of a job: its secrets leave it, and come back to their places."""

import pytest

from agent_jobs import work
from agent_jobs.errors import Invalid

RULES = work.WorkRules(
    check=lambda found, params: [],
    secret_paths=lambda found: [("auth", "password"), *(("environment", key) for key in found.get("environment", {}))],
    recipient=lambda found: found.get("url"),
)
GIVEN = {
    "url": "https://example.com",
    "auth": {"user": "jane", "password": "s3cret"},
    "environment": {"A/B": "one", "C~D": "two", "EMPTY": ""},
}


def test_secrets_are_replaced_by_masks_and_kept_apart() -> None:
    split = work.split(GIVEN, RULES)
    assert split.shown == {
        "url": "https://example.com",
        "auth": {"user": "jane", "password": work.MASK},
        "environment": {"A/B": work.MASK, "C~D": work.MASK, "EMPTY": ""},
    }
    assert split.secrets == {"/auth/password": "s3cret", "/environment/A~1B": "one", "/environment/C~0D": "two"}
    assert GIVEN["auth"] == {"user": "jane", "password": "s3cret"}


def test_secrets_come_back_to_their_places() -> None:
    assert work.split(GIVEN, RULES).whole == GIVEN


def test_a_secret_is_used_only_where_its_mask_still_stands() -> None:
    split = work.split(GIVEN, RULES)
    edited = {"auth": {"user": "joe", "password": "new"}, "environment": {"A/B": work.MASK}}
    assert work.joined(edited, split.secrets) == {
        "auth": {"user": "joe", "password": "new"},
        "environment": {"A/B": "one"},
    }


def test_a_mask_without_a_value_is_found() -> None:
    assert work.masked_fields({"auth": {"password": work.MASK}, "url": "x"}) == ["work.auth.password"]


def test_an_update_keeps_the_stored_values_of_its_masks() -> None:
    stored = work.split(GIVEN, RULES)
    edited = {**stored.shown, "environment": {"A/B": work.MASK, "C~D": "new"}}
    assert work.updated(edited, stored, RULES)["environment"] == {"A/B": "one", "C~D": "new"}


def test_no_update_carries_a_stored_secret_to_another_recipient() -> None:
    stored = work.split(GIVEN, RULES)
    with pytest.raises(Invalid) as refused:
        work.updated({**stored.shown, "url": "https://thief.example"}, stored, RULES)
    assert [error.field for error in refused.value.errors] == [
        "work.auth.password",
        "work.environment.A/B",
        "work.environment.C~D",
    ]
    anew = {"url": "https://other.example", "auth": {"user": "jane", "password": "anew"}}
    assert work.updated(anew, stored, RULES) == anew
