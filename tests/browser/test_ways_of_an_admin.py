"""An admin works in the console with jobs, from the sign-in on; real workers perform them."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import expect

from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.browser
PATIENT = PATIENCE * 1000
LOBBY = {"platform": "web", "type": "channel", "code": "lobby"}


@pytest.fixture(scope="module")
def types(stack):
    # The demo organisation keeps quiet at night; this channel never does, whenever the tests run.
    always = {"time_zone": "UTC", "quiet": []}
    stack.ok("PUT", "/services/organizations/acme/hours/channels/web/lobby", {"hours": always})
    for name, runner, prompt in (
        ("question", "conversation", "Hi {{ name }}, what are you working on today?"),
        ("announcement", "message", "{{ name }}"),
    ):
        stack.ok(
            "POST",
            "/services/organizations/acme/agent-jobs-type",
            {"id": name, "name": name.capitalize(), "runner": runner, "default_config": {"start_prompt": prompt}},
        )


def next_year():
    return (datetime.now(UTC) + timedelta(days=365)).isoformat().replace("+00:00", "Z")


def post(stack, kind, name, **fields):
    return stack.post_job(kind, channel=LOBBY, params={"name": name}, **fields)


def test_the_overview_answers_and_leads_to_the_last_error_of_what_fails_most(visitor):
    page = visitor().page
    asks = page.get_by_label("Needs attention")
    expect(asks).to_contain_text("may run at a time, and as many do.")  # why the oldest in the queue waits
    asks.get_by_text(re.compile(r"Yesterday cost \$\d")).click()
    expect(page.get_by_role("heading", name=re.compile("^By job type and model, "))).to_be_visible()
    page.go_back()

    page.get_by_role("link", name=re.compile("See the .* jobs?")).click()
    page.get_by_role("heading", name="Jobs", exact=True).wait_for()
    assert "status=failed" in page.url
    page.locator("#rows a.t").first.click()
    page.get_by_text("What helps").wait_for()
    assert page.get_by_role("button", name="Retry this job").is_visible()


def test_a_job_is_canceled_retried_answered_and_seen_to_end_live(visitor, stack, types):
    job_id = post(stack, "question", "Ada")
    stack.wait_status(job_id, "RUNNING")
    page = visitor().page

    page.goto(f"{stack.record()['web_url']}/console/acme/jobs/{job_id}")
    page.locator(".bub", has_text="Hi Ada, what are you working on today?").wait_for(timeout=PATIENT)
    page.get_by_role("link", name="Cancel…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill("asked too early")
    dialog.get_by_role("button", name="Cancel this job").click()
    page.get_by_text("The job is canceled").wait_for()
    assert stack.job(job_id)["job_status"] == "CANCELED"

    page.get_by_role("button", name="Retry this job").click()
    page.get_by_text("The job begins again").wait_for()
    box = page.get_by_label("Reply as Mara Lindqvist")
    stack.wait_status(job_id, "RUNNING")
    page.reload()
    box.fill("The release notes.")
    page.get_by_role("button", name="Send").click()
    page.locator(".bub", has_text="The release notes.").wait_for()
    page.locator(".st-pill.is-completed").wait_for(timeout=PATIENT)  # without a reload of ours
    assert stack.job(job_id)["job_status"] == "COMPLETED"


def test_fifty_jobs_of_a_type_are_canceled_from_the_overview_and_no_other(visitor, stack, types):
    bulk = [post(stack, "standup", f"No. {n}", scheduled_at=next_year()) for n in range(50)]
    other = post(stack, "announcement", "Keep me", scheduled_at=next_year())
    page = visitor().page

    page.get_by_role("link", name="Stand-up", exact=True).click()
    page.get_by_label("Select all on this page").check()
    page.get_by_text("50 selected").wait_for()
    page.get_by_role("button", name="Cancel 50…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Cancel 50 jobs?").wait_for()
    dialog.get_by_label("Reason").fill("the campaign is paused")
    dialog.get_by_role("button", name="Cancel 50 jobs").click()
    page.get_by_text("50 jobs canceled").wait_for(timeout=PATIENT)

    assert {stack.job(job_id)["job_status"] for job_id in bulk} == {"CANCELED"}
    assert stack.job(other)["job_status"] == "SCHEDULED"


def test_more_jobs_than_one_transaction_takes_are_canceled_in_batches(visitor, stack, types):
    job = {
        "job_type_id": "announcement",
        "target_channel": {"org_id": "acme", **LOBBY},
        "params": {"name": "Many"},
        "tags": ["many"],
        "scheduled_at": next_year(),
    }
    for number in (1_000, 100):
        stack.ok("POST", "/services/agent-jobs/bulk", {"jobs": [job] * number})
    page = visitor().page

    page.goto(f"{stack.record()['web_url']}/console/acme/jobs?tags=many")
    page.get_by_label("Select all on this page").check()
    page.get_by_role("button", name="Select all 1,100").click()
    page.locator("[data-verb=cancel]").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("They go in batches of 1,000")
    dialog.get_by_role("button", name="Cancel 1,100 jobs").click()
    expect(page.locator("#toasts")).to_contain_text("1,100 jobs canceled", timeout=PATIENT)

    expect(page.get_by_role("button", name=re.compile("^Canceled"))).to_contain_text("1,100")


def test_filters_are_kept_in_the_address_and_by_back(visitor, stack, types):
    post(stack, "announcement", "Needle 4711", tags=["haystack"], scheduled_at=next_year())
    page = visitor().page
    page.goto(f"{stack.record()['web_url']}/console/acme/jobs")

    page.get_by_role("button", name=re.compile("^Scheduled")).click()
    page.wait_for_url("**status=scheduled**")
    page.get_by_label("Search jobs").fill("Needle")
    page.wait_for_url("**q=Needle**")
    page.locator("#rows tr").first.get_by_text("Needle 4711").wait_for()
    assert page.locator("#rows tr").count() == 1
    page.go_back()
    wait_for(lambda: page.locator("#rows tr").count() > 1, what="the list without the words")
    assert "status=scheduled" in page.url


def test_new_jobs_wait_behind_a_chip_and_rows_change_in_place(visitor, stack, types):
    first = post(stack, "announcement", "First", tags=["live"], scheduled_at=next_year())
    page = visitor().page
    page.goto(f"{stack.record()['web_url']}/console/acme/jobs?tags=live")
    row = page.locator(f"#job-{first}")
    row.get_by_text("Scheduled").wait_for()
    page.locator("[data-live-state]").wait_for()

    second = post(stack, "announcement", "Second", tags=["live"], scheduled_at=next_year())
    page.get_by_role("button", name="1 new").wait_for(timeout=PATIENT)
    assert page.locator(f"#job-{second}").count() == 0
    stack.ok("DELETE", f"/services/agent-jobs/{first}")
    row.get_by_text("Canceled").first.wait_for(timeout=PATIENT)

    page.get_by_role("button", name="1 new").click()
    page.locator(f"#job-{second}").wait_for()


def test_rows_are_chosen_and_opened_by_keys(visitor, stack):
    page = visitor().page
    page.goto(f"{stack.record()['web_url']}/console/acme/jobs?status=completed&sort=created")

    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("x")
    page.get_by_text("1 selected").wait_for()
    export = page.get_by_role("link", name="Export 1").get_attribute("href")
    assert re.search(r"/jobs\.csv\?ids=[0-9a-f-]{36}&sort=created$", export), export
    page.keyboard.press("Escape")
    assert not page.get_by_text("1 selected").is_visible()
    page.keyboard.press("?")
    page.get_by_role("dialog").get_by_text("Find a job, go anywhere").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Timeline").wait_for()


def test_an_approval_is_given_with_a_changed_argument(visitor, stack):
    page = visitor().page
    page.goto(f"{stack.record()['web_url']}/console/acme/jobs?waiting_for=approval&job_type_id=deploy-approval")
    page.locator("#rows a.t").first.click()

    page.get_by_role("link", name="Edit").click()
    page.get_by_label("window_minutes").fill("15")
    page.get_by_text("It was 30.").wait_for()
    page.get_by_label("Reason, told to the agent").fill("Short window because of the demo.")
    page.get_by_role("button", name="Approve").click()
    page.get_by_text("Approved").first.wait_for()

    page.get_by_role("link", name=re.compile("^Activities")).click()
    page.get_by_text("was approved by user:mara: Short window because of the demo.").wait_for()


def test_a_member_sees_no_buttons(visitor, stack):
    page = visitor(username="mel").page
    page.goto(f"{stack.record()['web_url']}/console/acme/jobs?status=running")
    page.locator("#rows a.t").first.click()

    page.get_by_role("heading", name="Timeline").wait_for()
    assert page.get_by_role("link", name="Cancel…").count() == 0
    assert page.get_by_role("button", name="Approve").count() == 0
