"""Entries for the jobs that ended before the trigger was there.

Jobs end meanwhile, so all is counted anew: one statement, which sees one state, replaces what is counted so far by an
entry for each job that has ended. It takes some seconds for a million jobs, and blocks no writer.
"""

from django.db import migrations

COUNT = """
SET LOCAL statement_timeout = 0;
WITH entries AS (
    DELETE FROM agent_jobs_jobtallyentry
), tallies AS (
    DELETE FROM agent_jobs_jobtally
)
INSERT INTO agent_jobs_jobtallyentry (org_id, sign, created_at, status, job_type_key, platform, channel_code, priority,
    duration_class, follow_ups, replies)
SELECT org_id, 1, created_at, status, job_type_key, platform, channel_code, priority,
    CASE WHEN started_at IS NOT NULL THEN agent_jobs_duration_class(started_at, finished_at) END, follow_ups_total,
    inbox_count
FROM agent_jobs_job WHERE finished_at IS NOT NULL;
"""


class Migration(migrations.Migration):
    dependencies = [("agent_jobs", "0040_indexes_of_tallies")]
    operations = [migrations.RunSQL(COUNT, migrations.RunSQL.noop)]
