"""Requests read no more rows when an organisation has more jobs: the planner must never prefer the whole table."""

import pytest
from django.db import connection

from agent_jobs import lifecycle
from agent_jobs.lifecycle import OrgRotation
from agent_jobs.models import Job
from agent_jobs.states import JobStatus
from channels_integration import web_messages
from channels_integration.models import WebMessage
from tests import factories, rows

pytestmark = pytest.mark.django_db
MANY = 2_000
# Pages, and the rows that a request looks at twice or more, but by far not all.
ENOUGH = 100
READ = """
SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0) FROM pg_stat_xact_user_tables
WHERE relname IN ('agent_jobs_job', 'agent_jobs_activity', 'agent_jobs_task', 'channels_integration_webmessage')
"""


def rows_read():
    with connection.cursor() as cursor:
        cursor.execute(READ)
        return cursor.fetchone()[0]


def copies(model, row, **changed):
    """Many copies of a row, as columns of SQL with `n` for the copy's number."""
    columns = {field.column: field.column for field in model._meta.concrete_fields} | changed
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {model._meta.db_table} ({', '.join(columns)}) SELECT {', '.join(columns.values())}"
            f" FROM {model._meta.db_table}, generate_series(1, {MANY}) n WHERE id = %s",
            [row.pk],
        )


@pytest.fixture
def ended():
    """An ended job, one of many like it; a channel with many messages; statistics that tell the planner so."""
    rows.job_type()
    job = rows.job(JobStatus.FAILED)
    copies(Job, job, id="uuidv7()")
    web_messages.say("acme", "web", "lobby", text="Hi", author="Ann")
    copies(WebMessage, WebMessage.objects.get(), id="uuidv7()", position="position + n")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE agent_jobs_job, channels_integration_webmessage")
    return job


def test_a_request_reads_as_few_rows_beside_many_ended_jobs(ended):
    api = factories.api()
    last = WebMessage.objects.latest("position").pk
    requests = {
        "a post": lambda: api.post("/services/agent-jobs", factories.job_request()),
        "a post of many": lambda: api.post("/services/agent-jobs/bulk", {"jobs": [factories.job_request()] * 3}),
        "a replay": lambda: api.post(f"/services/agent-jobs/{ended.pk}/replay"),
        "a read": lambda: api.get(f"/services/agent-jobs/{ended.pk}?include=activities"),
        "a wait for a message": lambda: web_messages.with_news({web_messages.Reader("acme", "web", "lobby", last)}),
        "a claim": lambda: lifecycle.settle_and_claim([], lane="messages", turn=OrgRotation(), batch=10),
    }

    read = {}
    for name, ask in requests.items():
        before = rows_read()
        response = ask()
        read[name] = rows_read() - before
        assert getattr(response, "status_code", 200) < 300, response.content

    assert {name: count for name, count in read.items() if count > ENOUGH} == {}
