"""JSON of clients and of models keeps its keys in their order: json instead of jsonb."""

from django.db import migrations

from infra.json_column import OrderedJSONField

# One statement for each table: each rewrites it.
COLUMNS = {
    ("agent_jobs_job", "job"): {
        "channel_data": OrderedJSONField(default=dict, blank=True),
        "params": OrderedJSONField(default=dict, blank=True),
        "config": OrderedJSONField(default=dict, blank=True),
        "agent": OrderedJSONField(default=dict, db_default={}, blank=True),
        "result_data": OrderedJSONField(null=True, blank=True),
    },
    ("agent_jobs_activity", "activity"): {
        "input": OrderedJSONField(null=True),
        "output": OrderedJSONField(null=True),
    },
    ("agent_jobs_step", "step"): {
        "input": OrderedJSONField(default=dict),
        "output": OrderedJSONField(null=True),
    },
    ("agent_jobs_approval", "approval"): {
        "arguments": OrderedJSONField(default=dict),
        "edited_arguments": OrderedJSONField(null=True),
    },
    ("agent_jobs_jobtype", "jobtype"): {
        "params_schema": OrderedJSONField(default=dict, blank=True),
        "result_schema": OrderedJSONField(default=dict, db_default={}, blank=True),
        "default_config": OrderedJSONField(default=dict, blank=True),
        "tools": OrderedJSONField(default=list, db_default=[], blank=True),
    },
    ("agent_jobs_org", "org"): {
        "hours": OrderedJSONField(null=True, blank=True, editable=False),
    },
    ("agent_jobs_placehours", "placehours"): {
        "hours": OrderedJSONField(),
    },
}


def _alter(kind: str, table: str, columns: dict[str, OrderedJSONField]) -> str:
    clauses = []
    for column, field in columns.items():
        change = f"ALTER COLUMN {column} TYPE {kind} USING {column}::{kind}"
        if field.has_db_default():
            default = "'[]'" if field.db_default == [] else "'{}'"
            change = f"ALTER COLUMN {column} DROP DEFAULT, {change}, ALTER COLUMN {column} SET DEFAULT {default}"
        clauses.append(change)
    return f"ALTER TABLE {table} {', '.join(clauses)}"


class Migration(migrations.Migration):
    dependencies = [("agent_jobs", "0016_closed_orgs")]
    operations = [
        migrations.SeparateDatabaseAndState(
            [
                migrations.RunSQL(_alter("json", table, columns), _alter("jsonb", table, columns))
                for (table, _), columns in COLUMNS.items()
            ],
            [
                migrations.AlterField(model, column, field)
                for (_, model), columns in COLUMNS.items()
                for column, field in columns.items()
            ],
        )
    ]
