"""The job types that a person may choose, and the channels that a form suggests."""

from collections.abc import Mapping, Sequence
from typing import Any

from agent_jobs.reads import queries
from channels_integration import directory

_MOST = 200


def of(org_id: str) -> Sequence[Mapping[str, Any]]:
    """The active job types by name: key, name, description, runner, emoji."""
    found = queries.job_types(org_id).filter(active=True).order_by("name", "key")
    return list(found.values("key", "name", "description", "runner", "emoji")[:_MOST])


def channels(org_id: str) -> Sequence[tuple[str, str, str]]:
    """The registered channels: platform, code, name."""
    return list(directory.channels(org_id).values_list("platform", "code", "name")[:_MOST])
