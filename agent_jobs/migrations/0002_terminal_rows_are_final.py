"""A job that has ended never changes again, by anybody, unless it is explicitly retried (promise I2)."""

from django.db import migrations

CREATE = """
CREATE FUNCTION agent_jobs_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'job % is %, and that is final', OLD.id, OLD.status USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER terminal_rows_are_final BEFORE UPDATE ON agent_jobs_job FOR EACH ROW
WHEN (
    OLD.status IN ('COMPLETED', 'FAILED', 'CANCELED')
    AND NOT (OLD.status <> 'COMPLETED' AND NEW.status = 'WAITING' AND NEW.retry_count = OLD.retry_count + 1)
)
EXECUTE FUNCTION agent_jobs_refuse_change();
"""
DROP = """
DROP TRIGGER terminal_rows_are_final ON agent_jobs_job;
DROP FUNCTION agent_jobs_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [("agent_jobs", "0001_initial")]
    operations = [migrations.RunSQL(CREATE, DROP)]
