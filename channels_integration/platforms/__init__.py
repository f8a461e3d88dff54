"""The platforms by name. To add one, add a file and a line here. The tests' contract suite then covers it."""

from __future__ import annotations

from channels_integration.platforms.base import Listener, Platform
from channels_integration.platforms.null import Null
from channels_integration.platforms.slack import Slack
from channels_integration.platforms.webchat import WebChat
from channels_integration.platforms.webhook import Webhook

_slack = Slack()
_bridge = Webhook()
PLATFORMS: tuple[Platform, ...] = (_slack, WebChat(), _bridge, Null())
LISTENERS: tuple[Listener, ...] = (_slack,)
_by_name = {platform.name: platform for platform in PLATFORMS}
NAMES = tuple(_by_name)
WITHOUT_CHANNEL_NAMES = frozenset(platform.name for platform in PLATFORMS if not platform.has_channel_names)


def get(name: str) -> Platform:
    """The platform of that name; any other name is that of a bridge, which is a webhook."""
    return _by_name.get(name, _bridge)


def title(name: str) -> str:
    """The platform's name for people. A bridge has no other name."""
    return _by_name[name].title if name in _by_name else name
