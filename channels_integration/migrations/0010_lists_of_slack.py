"""Indexes for the last event of a Slack workspace, and for messages that could not be delivered."""

from django.db import migrations, models

from infra.online_indexes import AddIndexOnline


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("channels_integration", "0009_mentions_and_secrets")]
    operations = [
        AddIndexOnline(
            model_name="outboundmessage",
            index=models.Index(
                models.F("org_id"),
                models.OrderBy(models.F("position"), descending=True),
                condition=models.Q(("status", "dead")),
                name="channels_outbound_dead",
            ),
        ),
        AddIndexOnline(
            model_name="inboundevent",
            index=models.Index(
                models.F("org_id"),
                models.F("team"),
                models.OrderBy(models.F("id"), descending=True),
                condition=models.Q(("team", ""), _negated=True),
                name="channels_inbound_team",
            ),
        ),
    ]
