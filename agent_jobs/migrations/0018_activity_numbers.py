"""Activities are numbered within their job: 1, 2, 3 ... without gaps, in the order in which they are committed.

The trigger locks the job's row until the end of the transaction, so two transactions never number activities of one job
at the same time. Nearly every writer holds that lock already. A writer that locks other rows takes the job's row first.
"""

from django.db import migrations, models

NUMBER_WHAT_IS_THERE = """
UPDATE agent_jobs_activity a SET number = numbered.number
FROM (
    SELECT id, row_number() OVER (PARTITION BY job_id ORDER BY created_at, id) AS number
    FROM agent_jobs_activity WHERE job_id IS NOT NULL
) numbered
WHERE numbered.id = a.id
"""
CREATE = """
CREATE FUNCTION agent_jobs_number_activity() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM agent_jobs_job WHERE id = NEW.job_id FOR NO KEY UPDATE;
    NEW.number := coalesce((SELECT max(number) FROM agent_jobs_activity WHERE job_id = NEW.job_id), 0) + 1;
    RETURN NEW;
END $$;
CREATE TRIGGER activities_are_numbered BEFORE INSERT ON agent_jobs_activity FOR EACH ROW
WHEN (NEW.job_id IS NOT NULL AND NEW.number IS NULL)
EXECUTE FUNCTION agent_jobs_number_activity();
"""
DROP = """
DROP TRIGGER activities_are_numbered ON agent_jobs_activity;
DROP FUNCTION agent_jobs_number_activity();
"""


class Migration(migrations.Migration):
    dependencies = [("agent_jobs", "0017_json_in_its_order")]
    operations = [
        migrations.AddField("activity", "number", models.PositiveIntegerField(editable=False, null=True)),
        migrations.RunSQL(NUMBER_WHAT_IS_THERE, migrations.RunSQL.noop),
        migrations.AddConstraint(
            "activity", models.UniqueConstraint(fields=["job", "number"], name="activity_number")
        ),
        migrations.RunSQL(CREATE, DROP),
        migrations.RemoveIndex("activity", "activity_job"),
    ]
