"""Validates a work by its runner's rules and by the settings' rules for addresses."""

from collections.abc import Mapping
from typing import Any

from agent_jobs import work
from agent_jobs.errors import FieldError
from agent_jobs.work import WorkRules
from infra.egress import requests_client


def errors(stated: Mapping[str, Any], rules: WorkRules, *, params: Mapping[str, Any] | None) -> list[FieldError]:
    """Errors of a work with its secrets in clear. Looks no host name up."""
    masked = work.masked_fields(stated)
    if masked:
        message = f"is {work.MASK}, which only stands for a value that is stored already"
        return [FieldError(field, "invalid", message) for field in masked]
    if found := rules.check(stated, params):
        return found
    refusals = ((field, requests_client.refusal(url)) for field, url in rules.destinations(stated))
    return [FieldError(field, "invalid", refusal) for field, refusal in refusals if refusal]
