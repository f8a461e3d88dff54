"""A channel's data keeps the order of its keys: json instead of jsonb."""

from django.db import migrations

from infra.json_column import OrderedJSONField

ALTER = """
ALTER TABLE channels_integration_outboundmessage ALTER COLUMN details DROP DEFAULT,
    ALTER COLUMN details TYPE {kind} USING details::{kind}, ALTER COLUMN details SET DEFAULT '{{}}'
"""


class Migration(migrations.Migration):
    dependencies = [("channels_integration", "0007_outsiders")]
    operations = [
        migrations.RunSQL(
            ALTER.format(kind="json"),
            ALTER.format(kind="jsonb"),
            [migrations.AlterField("outboundmessage", "details", OrderedJSONField(blank=True, db_default={}))],
        )
    ]
