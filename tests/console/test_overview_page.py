from datetime import UTC, datetime, timedelta

import pytest

from agent_jobs.models import UsageDay
from agent_jobs.states import JobStatus
from tests import rows

OVERVIEW = "/console/acme/"


@pytest.mark.parametrize("period", ["24h", "7d", "30d", "nonsense"])
def test_an_empty_organisation_has_an_overview(admin, period):
    html = admin.get(OVERVIEW, {"range": period}).content.decode()

    assert "Nothing is queued" in html
    assert "Nothing failed in 24 h" in html
    assert "Yesterday cost nothing" in html
    assert "All 0 failed" not in html


def test_the_type_that_fails_most_is_named_with_its_last_error(admin):
    rows.job_type(key="report", name="Nightly report")
    for number in range(2):
        rows.job(
            JobStatus.FAILED, job_type_key="report", error_code="tool_unreachable", error_message=f"no answer {number}"
        )
    rows.job(JobStatus.COMPLETED, job_type_key="report")
    rows.job(JobStatus.FAILED, error_code="tool_unreachable")  # all of its type, and still fewer
    rows.job(JobStatus.FAILED, org_id="rival", job_type_key="report", error_code="secret_of_rival")

    html = admin.get(OVERVIEW).content.decode()

    assert "Nightly report: 2 of 3 failed" in html
    assert "tool_unreachable" in html
    assert "secret_of_rival" not in html


def test_the_oldest_in_the_queue_is_linked_with_why_it_waits(admin):
    old = rows.job(queue_at=datetime.now(UTC) - timedelta(minutes=41))
    rows.job()

    html = admin.get(OVERVIEW).content.decode()
    why = admin.get(f"{OVERVIEW}why-oldest").content.decode()

    assert "Oldest in the queue: 41 min" in html
    assert f"/console/acme/jobs/{old.pk}" in html
    assert "no worker process takes any work" in why


def test_waits_of_running_jobs_are_counted_and_lead_to_their_list(admin):
    for _ in range(2):
        rows.job(JobStatus.RUNNING, lease_until=None, waiting_for="reply")

    html = admin.get(OVERVIEW).content.decode()

    assert 'href="/console/acme/jobs?waiting_for=reply"' in html
    assert 'aria-label="2 jobs"' in html


def test_an_overview_takes_few_queries(admin, django_assert_max_num_queries):
    for status in JobStatus:
        rows.job(status)

    with django_assert_max_num_queries(12):
        admin.get(OVERVIEW)


def test_yesterdays_cost_leads_to_where_it_went(admin):
    rows.org()
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    for day, key, cost in ((yesterday, "greet", "1.25"), (yesterday - timedelta(days=1), "report", "3.5")):
        UsageDay.objects.create(org_id="acme", day=day, job_type_key=key, model="m", part=0, calls=1, cost=cost)

    overview = admin.get("/console/acme/").content.decode()
    address = f"/console/acme/usage?day={yesterday:%Y-%m-%d}"
    usage = admin.get(address).content.decode()

    assert f'href="{address}"' in overview
    assert "Yesterday cost $1.25" in overview
    assert "$1.25" in usage
    assert ">greet</a>" in usage
    assert ">report</a>" not in usage
    assert ">report</a>" in admin.get("/console/acme/usage?day=2001-01-01x").content.decode()
