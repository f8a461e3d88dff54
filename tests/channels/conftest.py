"""`acme` has Slack, a web chat, a webhook, a bridge and a null channel; `rival` has nothing."""

from collections.abc import Iterator
from typing import Any

import pytest

from channels_integration import directory, message_owner
from infra import doorbell
from tests.channels import doubles
from tests.channels.sending import GRACE, SIGNING_SECRET
from tests.fakes.slack import FakeSlack


@pytest.fixture(autouse=True)
def owner() -> Iterator[None]:
    doubles.reset()
    with pytest.MonkeyPatch.context() as patch:  # not the test's own, which it may undo
        patch.setattr(message_owner, "_owner", doubles.Owner())
        yield
    doubles.reset()


@pytest.fixture
def slack(settings: Any) -> Iterator[FakeSlack]:
    """The fake, with acme's installation, and a grace short enough for a test."""
    with FakeSlack(team_id="T0ACME", signing_secret=SIGNING_SECRET, seed=1) as server:
        settings.SLACK_API_URL = server.api_url
        settings.DELIVERY_GRACE_SECONDS = GRACE
        server.late_seconds = 0.2
        directory.install_slack(
            "acme", team_id="T0ACME", bot_token=server.bot_token, signing_secret=server.signing_secret
        )
        yield server


@pytest.fixture
def rings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The doorbells that were rung: queue and Celery entry."""
    rung: list[tuple[str, str]] = []
    monkeypatch.setattr(doorbell, "ring", lambda queue, task, times=1: rung.append((queue, task)))
    return rung
