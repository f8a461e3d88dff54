"""The rules of a job's config."""

from typing import Any

import pytest

from agent_jobs import scopes, specs
from agent_jobs.scopes import Level


@pytest.mark.parametrize(
    ("key", "value", "is_good"),
    [
        ("max_follow_ups", 3, True),
        ("max_follow_ups", -1, False),
        ("max_follow_ups", 51, False),
        ("max_follow_ups", 2.5, False),
        ("max_follow_ups", True, False),
        ("max_follow_ups", "3", False),
        ("max_follow_ups", None, False),
        ("max_task_retries", 0, True),
        ("max_task_retries", [], False),
        ("task_retry_interval", 0.5, True),
        ("task_retry_interval", -0.1, False),
        ("max_time_to_complete", 60, True),
        ("max_time_to_complete", 0, False),
        ("follow_up_interval", 0.05, True),
        ("follow_up_interval", 0.04, False),
        ("follow_up_interval", 1e-9, False),
        ("follow_up_interval", 0, False),
        ("start_prompt", "Hello", True),
        ("start_prompt", " ", False),
        ("start_prompt", 7, False),
        ("profile_id", "p", True),
        ("on_no_response", "fail", True),
        ("on_no_response", "shrug", False),
        ("ignore_cooldown", False, True),
        ("ignore_cooldown", "no", False),
        ("on_budget_exhausted", "approve", True),
        ("on_budget_exhausted", "ask", False),
        ("on_budget_exhausted", True, False),
        ("budget_approvers", ["U0BOSS", "token:ops"], True),
        ("budget_approvers", [], False),
        ("budget_approvers", ["x"] * 51, False),
        ("budget_approvers", [" "], False),
        ("budget_approvers", [5], False),
        ("budget_approvers", "U0BOSS", False),
        ("approval_channels", [{"platform": "slack", "code": "C0ONE", "data": {"team_id": "T0ACME"}}], True),
        ("approval_channels", [{"platform": "web", "code": "lobby"}] * 5, True),
        ("approval_channels", [{"platform": "web", "code": "lobby"}] * 6, False),
        ("approval_channels", [], False),
        ("approval_channels", {"platform": "web", "code": "lobby"}, False),
        ("approval_channels", [{"platform": "web"}], False),
        ("approval_channels", [{"platform": "web", "code": 5}], False),
        ("approval_channels", [{"platform": "web", "code": "lobby", "data": []}], False),
        ("approval_channels", [{"platform": "web", "code": "lobby", "template": "x"}], False),
        ("budget_approval_minutes", 0.5, True),
        ("budget_approval_minutes", 0, False),
        ("budget_approval_minutes", 10_081, False),
        ("max_tokens", 1, True),
        ("max_tokens", 10**12, True),
        ("max_tokens", 0, False),
        ("max_tokens", 10**12 + 1, False),
        ("max_tokens", 1.5, False),
        ("max_tokens", "9", False),
        ("max_cost", 5, True),
        ("max_cost", 0.000001, True),
        ("max_cost", "0.50", True),
        ("max_cost", "0.1234560", True),
        ("max_cost", 10**9, True),
        ("max_cost", 0, False),
        ("max_cost", -1, False),
        ("max_cost", 0.0000001, False),
        ("max_cost", "0.1234567", False),
        ("max_cost", 10**9 + 1, False),
        ("max_cost", 1e300, False),
        ("max_cost", "1e3", False),
        ("max_cost", "NaN", False),
        ("max_cost", "9" * 99, False),
        ("max_cost", "", False),
        ("max_cost", "€5", False),
        ("max_cost", True, False),
        ("max_cost", None, False),
        ("max_cost", [], False),
        ("colour", "red", False),
    ],
)
def test_a_config_value_is_taken_or_refused_by_its_rule(key: str, value: Any, is_good: bool) -> None:
    errors = specs.config_errors({key: value}, at="config")
    assert [error.field for error in errors] == ([] if is_good else [f"config.{key}"])


@pytest.mark.parametrize("config", [None, [], "x", 3])
def test_a_config_is_an_object(config: Any) -> None:
    assert [error.field for error in specs.config_errors(config, at="default_config")] == ["default_config"]


@pytest.mark.parametrize(
    ("held", "wanted", "is_allowed"),
    [
        (["SERVICES:READ"], Level.READ, True),
        (["SERVICES:READ"], Level.WRITE, False),
        (["SERVICES:WRITE"], Level.READ, True),
        (["SERVICES:WRITE"], Level.WRITE, True),
        (["SERVICES:WRITE"], Level.ADMIN, False),
        (["SERVICES:ADMIN"], Level.WRITE, True),
        (["SERVICES:WRITE"], Level.EXECUTE, False),
        (["SERVICES:EXECUTE"], Level.READ, False),
        (["SERVICES:EXECUTE"], Level.EXECUTE, True),
        (["SERVICES:ADMIN"], Level.EXECUTE, True),
        ([], Level.READ, False),
    ],
)
def test_a_level_implies_what_the_table_says(held: list[str], wanted: Level, is_allowed: bool) -> None:
    assert scopes.allows(held, wanted) == is_allowed


@pytest.mark.parametrize("scope", ["", "SERVICES", "SERVICES:", "SERVICES:ALL", "OTHER:READ"])
def test_an_unknown_scope_is_refused_with_the_known_ones(scope: str) -> None:
    with pytest.raises(ValueError, match="SERVICES:READ"):
        scopes.parse(scope)
