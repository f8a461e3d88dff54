"""Counters of ended jobs for statistics, fed by a trigger, in place of an index over every job (0040 drops it).

Jobs that have ended before get their entries in 0041.
"""

import django.db.models.deletion
from django.db import migrations, models

# 50 classes for each factor of e, so each is 2 % wide.
CREATE_CLASS = """
CREATE FUNCTION agent_jobs_duration_class(began timestamptz, ended timestamptz) RETURNS smallint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT floor(50 * ln(greatest(extract(epoch FROM ended - began)::float8, 0.001)))::smallint
$$
"""
_COLUMNS = """org_id, sign, created_at, status, job_type_key, platform, channel_code, priority, duration_class,
        follow_ups, replies"""
_VALUES = """{job}.org_id, {sign}, {job}.created_at, {job}.status, {job}.job_type_key, {job}.platform,
        {job}.channel_code, {job}.priority,
        CASE WHEN {job}.started_at IS NOT NULL THEN agent_jobs_duration_class({job}.started_at, {job}.finished_at) END,
        {job}.follow_ups_total, {job}.inbox_count"""
CREATE_TRIGGERS = f"""
CREATE FUNCTION agent_jobs_tally() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.finished_at IS NOT NULL THEN
        INSERT INTO agent_jobs_jobtallyentry ({_COLUMNS})
        VALUES ({_VALUES.format(job="OLD", sign=-1)});
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.finished_at IS NOT NULL THEN
        INSERT INTO agent_jobs_jobtallyentry ({_COLUMNS})
        VALUES ({_VALUES.format(job="NEW", sign=1)});
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER jobs_are_tallied AFTER UPDATE ON agent_jobs_job FOR EACH ROW
    WHEN (OLD.finished_at IS NOT NULL OR NEW.finished_at IS NOT NULL) EXECUTE FUNCTION agent_jobs_tally();
CREATE TRIGGER new_jobs_are_tallied AFTER INSERT ON agent_jobs_job FOR EACH ROW
    WHEN (NEW.finished_at IS NOT NULL) EXECUTE FUNCTION agent_jobs_tally();
CREATE TRIGGER deleted_jobs_are_tallied AFTER DELETE ON agent_jobs_job FOR EACH ROW
    WHEN (OLD.finished_at IS NOT NULL) EXECUTE FUNCTION agent_jobs_tally();
"""
DROP_TRIGGERS = """
DROP TRIGGER jobs_are_tallied ON agent_jobs_job;
DROP TRIGGER new_jobs_are_tallied ON agent_jobs_job;
DROP TRIGGER deleted_jobs_are_tallied ON agent_jobs_job;
DROP FUNCTION agent_jobs_tally();
"""
# Entries live for seconds, so the table is small and full of dead rows.
VACUUM_OFTEN = """
ALTER TABLE agent_jobs_jobtallyentry SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000)
"""


class Migration(migrations.Migration):
    dependencies = [("agent_jobs", "0038_indexes_of_jobs")]
    operations = [
        migrations.CreateModel(
            name="JobTallyEntry",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("sign", models.SmallIntegerField()),
                ("created_at", models.DateTimeField()),
                ("status", models.CharField(max_length=12)),
                ("job_type_key", models.CharField(max_length=128)),
                ("platform", models.CharField(max_length=32)),
                ("channel_code", models.CharField(max_length=255)),
                ("priority", models.SmallIntegerField()),
                ("duration_class", models.SmallIntegerField(null=True)),
                ("follow_ups", models.IntegerField()),
                ("replies", models.IntegerField()),
                (
                    "org",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        to="agent_jobs.org",
                    ),
                ),
            ],
            options={"indexes": [models.Index(fields=["org", "created_at"], name="tally_entry_created")]},
        ),
        migrations.CreateModel(
            name="JobTally",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("span", models.CharField(max_length=4)),
                ("start_at", models.DateTimeField()),
                ("kind", models.CharField(max_length=8)),
                ("key", models.TextField()),
                ("number", models.BigIntegerField()),
                (
                    "org",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        to="agent_jobs.org",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=["org", "span", "start_at", "kind", "key"], name="tally_once")
                ]
            },
        ),
        migrations.RunSQL(VACUUM_OFTEN, migrations.RunSQL.noop),
        migrations.RunSQL(CREATE_CLASS, "DROP FUNCTION agent_jobs_duration_class"),
        migrations.RunSQL(CREATE_TRIGGERS, DROP_TRIGGERS),
    ]
