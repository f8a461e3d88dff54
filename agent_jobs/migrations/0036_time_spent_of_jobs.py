"""Seconds that a job spent in each kind of time, kept as it moves: lists cannot add up activities.

A trigger keeps them, because a dozen statements move jobs. Jobs from before are counted from this migration on.
"""

from django.db import migrations, models
from django.db.models.functions import Now

CREATE = """
CREATE FUNCTION agent_jobs_spend_time() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    kind text := CASE
        WHEN OLD.status IN ('COMPLETED', 'FAILED', 'CANCELED') THEN ''
        WHEN OLD.lease_until IS NOT NULL THEN CASE
            WHEN NEW.status = 'FAILED' OR NEW.failed_attempts > OLD.failed_attempts OR NEW.crash_count > OLD.crash_count
            THEN 'failed_work' ELSE 'work' END
        WHEN OLD.queue_at IS NOT NULL THEN 'queue'
        WHEN OLD.waiting_for <> '' THEN OLD.waiting_for
        WHEN OLD.status = 'SCHEDULED' THEN 'delay'
        ELSE 'work' END;
    seconds numeric := greatest(extract(epoch FROM statement_timestamp() - OLD.state_since), 0);
BEGIN
    NEW.state_since := statement_timestamp();
    IF kind <> '' THEN
        NEW.time_spent := OLD.time_spent || jsonb_build_object(
            kind, round(coalesce((OLD.time_spent ->> kind)::numeric, 0) + seconds, 3));
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER jobs_spend_time BEFORE UPDATE ON agent_jobs_job FOR EACH ROW
WHEN (
    OLD.status <> NEW.status OR OLD.waiting_for <> NEW.waiting_for
    OR (OLD.lease_until IS NULL) <> (NEW.lease_until IS NULL) OR (OLD.queue_at IS NULL) <> (NEW.queue_at IS NULL)
)
EXECUTE FUNCTION agent_jobs_spend_time();
"""
DROP = """
DROP TRIGGER jobs_spend_time ON agent_jobs_job;
DROP FUNCTION agent_jobs_spend_time();
"""


class Migration(migrations.Migration):
    dependencies = [("agent_jobs", "0035_statistics_of_jobs")]
    operations = [
        migrations.AddField("job", "state_since", models.DateTimeField(db_default=Now())),
        migrations.AddField("job", "time_spent", models.JSONField(blank=True, db_default={}, default=dict)),
        migrations.RunSQL(CREATE, DROP),
    ]
