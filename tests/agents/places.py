"""Places outside, where conversations of `acme` really have to deliver. The fixtures come with an import."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from channels_integration import directory
from tests.fakes.slack import FakeSlack, Fault, Step
from tests.fakes.webhook import FakeReceiver, Reply


@dataclass
class Place:
    """A channel outside: the columns of a job in it, and the server behind it."""

    columns: dict[str, Any]
    server: Any = field(repr=False)

    def refuse(self, times: int = 1) -> None:
        """The next messages are turned away for good."""
        if isinstance(self.server, FakeReceiver):
            self.server.replies.extend([Reply(410)] * times)
        else:
            self.server.script(*[Step(Fault.NAMED, error="is_archived")] * times)

    def count_received(self) -> int:
        return len(self.server.received if isinstance(self.server, FakeReceiver) else self.server.posts)


@pytest.fixture
def webhook() -> Iterator[Place]:
    with FakeReceiver() as server:
        directory.register_channel("acme", platform="webhook", code="crm", address=server.address)
        yield Place({"platform": "webhook", "channel_code": "crm"}, server)


@pytest.fixture
def slack(settings: Any) -> Iterator[Place]:
    with FakeSlack(team_id="T0ACME", signing_secret="acme-signing-secret", seed=1) as server:
        settings.SLACK_API_URL = server.api_url
        directory.install_slack(
            "acme", team_id="T0ACME", bot_token=server.bot_token, signing_secret=server.signing_secret
        )
        yield Place({"platform": "slack", "channel_code": "C0ONE"}, server)
