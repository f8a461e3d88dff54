"""Platforms that really have to deliver, for conversations of `acme`."""

import pytest

from tests.agents import scripted_models
from tests.agents.places import Place, slack, webhook

__all__ = ["slack", "webhook"]


@pytest.fixture(params=["webhook", "slack"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["null", pytest.param("webhook", marks=pytest.mark.django_db(transaction=True))])
def everywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of `scripted_models.job` speak on a platform that delivers with the commit, and on one that has to send."""
    if request.param != "null":
        found: Place = request.getfixturevalue(request.param)
        monkeypatch.setattr(scripted_models, "PLACE", found.columns)
