import io

import pytest
from django.core.management import call_command

from agent_jobs.models import Activity, Job, Membership


@pytest.mark.django_db
def test_a_demo_organisation_has_jobs_of_every_status_that_its_pages_can_show(client, monkeypatch, settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    monkeypatch.setattr("sys.stdin", io.StringIO("a long password 26\n"))
    printed = io.StringIO()

    call_command("demo_data", "--org", "acme", "--days", "2", "--password-stdin", stdout=printed)

    jobs = Job.objects.filter(org_id="acme")
    assert f"made {jobs.count():,} jobs" in printed.getvalue()
    assert {"SCHEDULED", "WAITING", "RUNNING", "COMPLETED", "FAILED"} <= set(jobs.values_list("status", flat=True))
    assert Activity.objects.filter(org_id="acme", number__isnull=True).count() == 0
    mara = Membership.objects.get(user__username="mara", org_id="acme")
    client.force_login(mara.user, backend="django.contrib.auth.backends.ModelBackend")
    for address in ("", "jobs", "jobs?status=running", *(f"jobs/{job}" for job in _one_of_each(jobs))):
        assert client.get(f"/console/acme/{address}").status_code == 200, address


def _one_of_each(jobs):
    return {job.pk for key in ("status", "job_type_key", "waiting_for") for job in jobs.order_by(key).distinct(key)}
