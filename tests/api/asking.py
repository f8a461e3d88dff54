"""Questions of agents that stand in Slack."""

from tests import rows
from tests.channels.sending import deliver_all

PLACE = {"platform": "slack", "channel_code": "C0ONE", "channel_data": {"team_id": "T0ACME"}}


def asked(slack, org_id="acme", **columns):
    """An approval whose question stands in Slack, with its buttons; and the post."""
    approval = rows.approval(rows.parked(org_id, **PLACE), buttons=True, **columns)
    deliver_all()
    return approval, slack.posts[-1]
