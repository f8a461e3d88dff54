import html
import json
import re
import shlex

import pytest
from django.db.models.functions import Now

from agent_jobs import runners
from agent_jobs.models import Job, Org, WorkerProcess
from agent_jobs.states import JobStatus
from channels_integration import directory
from tests import factories, rows


def page(job, org_id="acme"):
    return f"/console/{org_id}/jobs/{job.pk}"


@pytest.mark.parametrize("status", JobStatus)
def test_every_status_has_a_page(admin, status):
    job = rows.job(status, params={"name": "Ann"}, error_code="model_timeout" if status == JobStatus.FAILED else "")

    answer = admin.get(page(job))

    assert answer.status_code == 200
    assert status.capitalize() in answer.content.decode()


@pytest.mark.parametrize("tab", ["conversation", "steps", "attempts", "activities", "input", "raw", "nothing"])
def test_every_tab_has_an_address(admin, tab):
    job = rows.job(params={"name": "Ann"})

    assert admin.get(page(job), {"tab": tab}).status_code == 200


def test_a_job_of_another_organisation_is_not_there(admin, stranger):
    theirs = rows.job(org_id="rival")

    for address in (page(theirs), f"{page(theirs)}/cancel", f"{page(theirs)}/replay", page(theirs, "rival")):
        assert admin.get(address).status_code == 404
    assert admin.post(f"{page(theirs)}/cancel").status_code == 404
    assert admin.post(f"{page(theirs)}/retry").status_code == 404


def test_an_admin_cancels_with_a_reason(admin):
    job = rows.job()

    asked = admin.get(f"{page(job)}/cancel")
    answer = admin.post(f"{page(job)}/cancel", {"reason": "paid this morning"})

    job.refresh_from_db()
    assert "Cancel this job" in asked.content.decode()
    assert answer.status_code == 302
    assert job.status == JobStatus.CANCELED
    assert "paid this morning" in job.activities.get(moved_to="CANCELED").note


def test_an_admin_retries_a_failed_job(admin):
    rows.job_type()
    job = rows.job(JobStatus.FAILED, error_code="model_timeout")

    assert admin.post(f"{page(job)}/retry").status_code == 302
    job.refresh_from_db()
    assert (job.status, job.retry_count) == (JobStatus.WAITING, 1)


def test_a_member_reads_and_may_not_act(member):
    job = rows.job()

    html = member.get(page(job)).content.decode()

    assert "Cancel…" not in html
    for action in ("cancel", "retry", "replay", "reply"):
        assert member.post(f"{page(job)}/{action}", {"text": "Hi"}).status_code == 403
    job.refresh_from_db()
    assert job.status == JobStatus.WAITING


def test_a_page_takes_few_queries(admin, django_assert_max_num_queries):
    job = rows.job(JobStatus.RUNNING, lease_until=None, waiting_for="reply", params={"name": "Ann"})

    with django_assert_max_num_queries(12):
        admin.get(page(job))


def test_the_last_attempt_is_shown_with_its_report(admin):
    job = rows.job(JobStatus.FAILED, runner="command", error_code="exit_code")
    for number, said in enumerate(("first try", "second <try>"), start=1):
        job.tasks.create(
            number=number,
            lease_token=number,
            status="FAILED",
            result="exit_code: 3",
            report={"exit_code": 3, "stdout": said},
        )

    html = admin.get(page(job)).content.decode()
    first = admin.get(page(job), {"tab": "attempts", "attempt": "1"}).content.decode()

    assert "second &lt;try&gt;" in html
    assert "first try" not in html
    assert "first try" in first


def test_what_holds_a_job_is_named_by_its_subject(admin):
    rows.job_type(name="Greet", max_running=1)
    first = rows.job(JobStatus.RUNNING, params={"file": "reel-0187.mov"})
    waiting = rows.job()
    WorkerProcess.objects.create(name="w", worked_at=Now())

    html = admin.get(f"/console/acme/jobs/{waiting.pk}").content.decode()

    assert f'href="/console/acme/jobs/{first.pk}">Greet reel-0187.mov</a>' in html
    assert "Greet reel-0187.mov ending" in html


def test_who_may_decide_is_named(admin):
    job = rows.parked()
    rows.approval(job, approvers=["user:jane", "token:billing"])

    html = admin.get(f"/console/acme/jobs/{job.pk}").content.decode()

    assert "Jane Doe, token billing may decide." in html


# --- The curl command ------------------------------------------------------------------------------------------
SECRET = "s3cret-of-acme-42"
WORKS = {
    "webhook": {"url": "https://example.com/{{ name }}", "auth": {"type": "bearer", "token": SECRET}},
    "command": {"shell": "echo it's $NAME", "environment": {"NAME": SECRET}},
    "external": {"type": "render", "environment": {"TOKEN": SECRET}},
}
KEPT = (
    *("job_type_key", "runner", "platform", "channel_code", "channel_type", "channel_data", "prompt", "params"),
    *("config", "work", "outcome_channel", "tags", "priority", "metadata"),
)


def posted(api, runner, **fields):
    rows.job_type(
        key=runner, runner=runner, default_config={} if runner in WORKS else {"start_prompt": "Hello {{ name }}"}
    )
    Org.objects.update(allows_commands=True)
    if runner in WORKS:
        place = {"work": WORKS[runner]}
    else:
        data = {"team_id": "T0ACME", "name": "o'neill"}
        place = {"target_channel": {"org_id": "acme", "platform": "slack", "type": "dm", "code": "C0ONE", "data": data}}
    answer = api.post("/services/agent-jobs", {"job_type_id": runner, **place, **fields})
    assert answer.status_code == 201, answer.content
    return Job.objects.get(pk=answer.json()["data"]["id"])


@pytest.mark.parametrize("runner", runners.names())
def test_the_shown_curl_command_posts_the_same_job_once_its_secrets_are_filled_in(admin, runner, settings):
    settings.COMMAND_RUNNER = "trusted"
    api = factories.api("acme", "SERVICES:WRITE")
    for team_id in ("T0ACME", "T0OTHER"):
        directory.install_slack("acme", team_id=team_id, bot_token=f"xoxb-{team_id}", signing_secret="signing-secret")
    outcome = {"platform": "web", "code": "ops", "template": "{{ job_id }}: it's over"}
    more = {"tags": ["q4", "eu"], "priority": 9, "metadata": {"ticket": "A-1"}, "outcome_channel": outcome}
    job = posted(api, runner, params={"name": "Ann"}, config={"max_time_to_complete": 5}, **more)

    page_text = admin.get(page(job)).content.decode()
    command = html.unescape(re.search(r'id="curl"[^>]*>([^<]*)<', page_text)[1])
    words = shlex.split(command)
    body = words[words.index("-d") + 1]

    assert SECRET not in page_text
    assert ("fill in its ******" in page_text) == (runner in WORKS)
    again = api.post("/services/agent-jobs", json.loads(body))
    if runner in WORKS:
        assert again.status_code == 400
        again = api.post("/services/agent-jobs", json.loads(body.replace("******", SECRET)))
    assert again.status_code == 201, again.content
    other = Job.objects.get(pk=again.json()["data"]["id"])
    assert {name: getattr(other, name) for name in KEPT} == {name: getattr(job, name) for name in KEPT}
