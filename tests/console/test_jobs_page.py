import html
import re
from datetime import UTC, datetime

import pytest

from agent_jobs.jobs import bulk as bulk_jobs
from agent_jobs.models import Job
from agent_jobs.states import JobStatus
from channels_integration import platforms
from tests import rows

JOBS = "/console/acme/jobs"
POLICY = "default-src 'none'"


def ids_in(answer):
    assert answer.status_code == 200
    return re.findall(r'id="job-([0-9a-f-]{36})"', answer.content.decode())


def test_the_list_shows_jobs_of_the_organisation_only(admin):
    ours = rows.job(params={"name": "Ann"})
    rows.job(org_id="rival")

    assert ids_in(admin.get(JOBS)) == [str(ours.pk)]


def test_somebody_else_finds_nothing_at_the_address(admin, stranger):
    rows.job()

    for address in (
        "/",
        "/jobs",
        "/jobs/rows",
        "/jobs.csv",
        "/jobs/bulk?verb=cancel&ids=x",
        "/jobs/changes",
        "/password",
    ):
        assert stranger.get(f"/console/acme{address}").status_code == 404, address
        assert stranger.get(f"/console/nowhere{address}").status_code == 404, address


def test_nobody_is_sent_to_the_sign_in_and_back(client, db):
    answer = client.get(f"{JOBS}?status=failed")

    assert answer.status_code == 302
    assert answer["Location"] == "/console/?next=%2Fconsole%2Facme%2Fjobs%3Fstatus%3Dfailed"


def test_filters_and_sort_are_in_the_address(admin):
    waiting = rows.job(tags=["q4"])
    failed = rows.job(JobStatus.FAILED, error_code="model_timeout", params={"invoice": "INV-2041"})

    assert ids_in(admin.get(JOBS, {"status": "failed"})) == [str(failed.pk)]
    assert ids_in(admin.get(JOBS, {"q": "INV-20"})) == [str(failed.pk)]
    assert ids_in(admin.get(JOBS, {"tags": "q4", "updated_at_gte": "-1h"})) == [str(waiting.pk)]
    assert ids_in(admin.get(JOBS, {"sort": "queue"})) == [str(waiting.pk)]
    assert ids_in(admin.get(JOBS, {"created_at_lte": "-1h"})) == []


def test_a_value_that_cannot_be_read_is_said_and_never_widens_the_list(admin):
    rows.job()

    answer = admin.get(JOBS, {"status": "flying", "created_at_gte": "yesterday"})

    assert ids_in(answer) == []
    assert "must be one or more of" in answer.content.decode()


def test_pages_follow_each_other_both_ways(admin, monkeypatch):
    monkeypatch.setattr("agent_jobs.console.jobs_page.PAGE", 2)
    made = [str(rows.job().pk) for _ in range(5)][::-1]
    link = re.compile(r'href="([^"]*)" data-swap rel="(prev|next)"')

    seen, address = [], JOBS
    while address:
        answer = admin.get(address)
        seen.append(ids_in(answer))
        links = {rel: href.replace("&amp;", "&") for href, rel in link.findall(answer.content.decode())}
        address = links.get("next")
    back = admin.get(links["prev"])

    assert seen == [made[:2], made[2:4], made[4:]]
    assert ids_in(back) == made[2:4]


def test_rows_are_told_as_they_are_now_and_marked_if_they_no_longer_match(admin):
    waiting, failed = rows.job(), rows.job(JobStatus.FAILED)
    theirs = rows.job(org_id="rival")

    html = admin.get(f"{JOBS}/rows", {"ids": f"{waiting.pk},{failed.pk},{theirs.pk},x", "status": "waiting"})

    assert set(ids_in(html)) == {str(waiting.pk), str(failed.pk)}
    assert f'data-job="{failed.pk}" data-ended data-retry class="is-out"' in html.content.decode()


def test_a_list_takes_few_queries_however_many_jobs(admin, django_assert_max_num_queries):
    for _ in range(30):
        rows.job(JobStatus.RUNNING, lease_until=None, waiting_for="reply", params={"name": "Ann"})

    with django_assert_max_num_queries(12):
        admin.get(JOBS, {"status": "running"})


def test_pages_obey_the_policy(admin, client, db):
    rows.job(params={"name": "Ann"})
    for browser, address in ((admin, JOBS), (client, "/console/")):
        answer = browser.get(address)
        html = answer.content.decode()
        assert POLICY in answer["Content-Security-Policy"]
        assert " style=" not in html
        assert "<script>" not in html
        assert " onclick=" not in html


# --- Many at once ----------------------------------------------------------------------------------------------
def test_many_are_canceled_with_a_reason(admin):
    made = [rows.job() for _ in range(3)]
    other, ended = rows.job(tags=["keep"]), rows.job(JobStatus.COMPLETED)
    ids = ",".join(str(job.pk) for job in [*made, ended])

    question = admin.get(f"{JOBS}/bulk", {"verb": "cancel", "ids": ids})
    answer = admin.post(f"{JOBS}/bulk", {"verb": "cancel", "ids": ids, "expected": "3", "reason": "paused"})

    assert "Cancel 3 jobs?" in question.content.decode()
    assert answer.status_code == 302
    for job in (*made, other):
        job.refresh_from_db()
    assert [job.status for job in made] == ["CANCELED"] * 3
    assert other.status == "WAITING"
    assert "paused" in made[0].activities.get(moved_to="CANCELED").note


def test_nothing_is_canceled_if_another_number_matches(admin):
    jobs = [rows.job(tags=["q4"]) for _ in range(3)]
    sent = {"verb": "cancel", "scope": "filter", "query": "tags=q4", "expected": "2"}

    page = admin.get(admin.post(f"{JOBS}/bulk", sent)["Location"]).content.decode()

    assert "3 jobs match now; 2 did when you looked" in page
    for job in jobs:
        job.refresh_from_db()
        assert job.status == "WAITING"


@pytest.mark.parametrize(
    "sent", [{"scope": "filter", "query": ""}, {"ids": ""}, {"scope": "filter", "query": "status=flying"}, {}]
)
def test_an_action_on_everything_does_not_exist(admin, sent):
    job = rows.job()

    assert admin.get(f"{JOBS}/bulk", {"verb": "cancel", **sent}).status_code == 400
    assert admin.post(f"{JOBS}/bulk", {"verb": "cancel", "expected": "1", **sent}).status_code == 400
    job.refresh_from_db()
    assert job.status == "WAITING"


def test_another_organisations_jobs_are_not_hit(admin):
    theirs = rows.job(org_id="rival")

    admin.post(f"{JOBS}/bulk", {"verb": "cancel", "ids": str(theirs.pk), "expected": "1"})
    admin.post(f"{JOBS}/bulk", {"verb": "cancel", "ids": str(theirs.pk), "expected": "0"})

    theirs.refresh_from_db()
    assert theirs.status == "WAITING"


def field(html, name):
    return re.search(rf'name="{name}" value="([^"]*)"', html)[1]


def test_more_than_one_transaction_takes_go_in_batches_of_what_was_there(admin, monkeypatch):
    monkeypatch.setattr(bulk_jobs, "MOST", 2)
    jobs = [rows.job(tags=["q4"]) for _ in range(5)]
    sent = {"verb": "cancel", "scope": "filter", "query": "tags=q4", "reason": "paused"}

    assert "They go in batches of 2" in admin.get(f"{JOBS}/bulk", sent).content.decode()
    first = admin.post(f"{JOBS}/bulk", {**sent, "expected": "5"}).content.decode()
    assert "2 of 5 jobs canceled" in first
    late = rows.job(tags=["q4"])
    second = admin.post(f"{JOBS}/bulk", {**sent, "run": field(first, "run")}, headers={"HX-Request": "true"})
    assert "4 of 5 jobs canceled" in second.content.decode()
    last = admin.post(f"{JOBS}/bulk", {**sent, "run": field(second.content.decode(), "run")})

    assert "5 jobs canceled" in admin.get(last["Location"]).content.decode()
    assert {Job.objects.get(pk=job.pk).status for job in jobs} == {"CANCELED"}
    assert Job.objects.get(pk=late.pk).status == "WAITING"


def test_batches_begin_only_with_the_number_that_was_seen(admin, monkeypatch):
    monkeypatch.setattr(bulk_jobs, "MOST", 2)
    for _ in range(5):
        rows.job(tags=["q4"])
    sent = {"verb": "cancel", "scope": "filter", "query": "tags=q4"}

    told = admin.post(f"{JOBS}/bulk", {**sent, "expected": "4"}, headers={"HX-Request": "true"})

    assert told.status_code == 204
    assert "5 jobs match now; 4 did when you looked" in admin.get(told["HX-Redirect"]).content.decode()
    assert set(Job.objects.values_list("status", flat=True)) == {"WAITING"}


def test_a_run_goes_on_for_its_own_action_only(admin, monkeypatch):
    monkeypatch.setattr(bulk_jobs, "MOST", 2)
    for tag in ("q4", "keep"):
        for _ in range(3):
            rows.job(tags=[tag])
    sent = {"verb": "cancel", "scope": "filter", "query": "tags=q4"}
    run = field(admin.post(f"{JOBS}/bulk", {**sent, "expected": "3"}).content.decode(), "run")

    assert admin.post(f"{JOBS}/bulk", {**sent, "query": "tags=keep", "run": run}).status_code == 400
    assert set(Job.objects.filter(tags=["keep"]).values_list("status", flat=True)) == {"WAITING"}


def test_a_member_may_not_act_on_many(member):
    job = rows.job()
    sent = {"verb": "cancel", "ids": str(job.pk), "expected": "1"}

    assert member.post(f"{JOBS}/bulk", sent).status_code == 403
    assert member.get(f"{JOBS}/bulk", sent).status_code == 403
    job.refresh_from_db()
    assert job.status == "WAITING"


# --- Beside the list -------------------------------------------------------------------------------------------
def test_the_csv_has_the_matching_jobs_and_no_formula(admin):
    rows.job(params={"name": "=HYPERLINK(1)"}, tags=["q4"])
    rows.job()

    answer = admin.get(f"{JOBS}.csv", {"tags": "q4"})
    lines = answer.content.decode().splitlines()

    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert len(lines) == 2
    assert "'=HYPERLINK(1)" in lines[1]


def test_the_csv_has_the_order_and_the_jobs_of_the_list(admin):
    newest, oldest = (rows.job(state_since=datetime(2026, 1, day, tzinfo=UTC)) for day in (2, 1))
    rows.job(JobStatus.COMPLETED)

    page = admin.get(JOBS, {"sort": "queue"})
    link = html.unescape(re.search(r'href="([^"]*)" data-export>', page.content.decode())[1])
    lines = admin.get(link).content.decode().splitlines()[1:]
    both = {"sort": "queue", "ids": f"{newest.pk},{oldest.pk}"}
    selected = admin.get(f"{JOBS}.csv", both).content.decode().splitlines()[1:]

    assert [line[:36] for line in lines] == ids_in(page) == [str(oldest.pk), str(newest.pk)]
    assert selected == lines


@pytest.mark.parametrize("platform", platforms.PLATFORMS, ids=lambda each: each.name)
def test_every_platform_is_offered(admin, platform):
    rows.job_type()
    offered = f"<option>{platform.name}</option>"

    assert offered in admin.get(JOBS).content.decode()
    assert f'<option value="{platform.name}">' in admin.get(f"{JOBS}/new", {"type": "greet"}).content.decode()


def test_a_view_is_kept_for_its_person_only(admin, member):
    sent = {"name": "Open invoices", "query": "status=running&tags=q4&nonsense=1"}

    assert admin.post("/console/acme/views", sent).status_code == 302
    mine, theirs = admin.get(JOBS).content.decode(), member.get(JOBS).content.decode()

    assert "Open invoices" in mine
    assert "Open invoices" not in theirs
    view_id = re.search(r"/views/(\d+)/remove", mine)[1]
    member.post(f"/console/acme/views/{view_id}/remove")
    assert "Open invoices" in admin.get(JOBS).content.decode()
    admin.post(f"/console/acme/views/{view_id}/remove")
    assert "Open invoices</a>" not in admin.get(JOBS).content.decode()


def test_a_job_without_a_channel_is_listed_as_such(admin):
    rows.job(platform="", channel_code="")

    (cell,) = re.findall(r'<td role="cell" class="clip soft">(.*?)</td>', admin.get(JOBS).content.decode())
    assert cell.strip() == "none"


def test_a_canceled_job_says_who_did_it_and_that_it_never_began(admin):
    job = rows.job(JobStatus.SCHEDULED)
    admin.post(f"/console/acme/jobs/{job.pk}/cancel", {"reason": "settled by phone"})

    listed = admin.get(JOBS).content.decode()
    shown = admin.get(f"{JOBS}/{job.pk}").content.decode()

    assert "By Jane Doe: settled by phone" in listed
    assert "never began" in listed
    assert "By Jane Doe: settled by phone." in shown
    assert "In the queue" not in shown
