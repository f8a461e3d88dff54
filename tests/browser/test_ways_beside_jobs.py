"""An admin works in the console with schedules, approvals and tokens."""

import re

import pytest
from playwright.sync_api import expect

from tests.waiting import PATIENCE

pytestmark = pytest.mark.browser
PATIENT = PATIENCE * 1000


def confirm(page, verb):
    dialog = page.get_by_role("dialog")
    dialog.wait_for()
    dialog.get_by_role("button", name=verb).click()


def told(page, title):
    expect(page.locator("#toasts").get_by_text(title)).to_be_visible(timeout=PATIENT)


def test_a_schedule_is_paused_and_rolled_back(visitor):
    me = visitor()
    page = me.page
    me.go("/console/acme/schedules")
    page.get_by_role("link", name="Ledger close").click()

    page.get_by_role("link", name="Pause…").click()
    confirm(page, "Pause it")
    told(page, "The schedule is paused")
    expect(page.get_by_role("heading", name="Ledger close")).to_contain_text("Paused")
    page.get_by_role("link", name="Resume…").click()
    confirm(page, "Resume it")
    told(page, "The schedule is resumed")

    page.get_by_role("link", name=re.compile("^Versions")).click()
    page.get_by_role("link", name="Roll back to 1…").click()
    expect(page.get_by_role("dialog")).to_contain_text("30 2 * * 7L → 30 2 28 * *")
    confirm(page, "Roll back to 1")
    told(page, "The schedule is rolled back")
    expect(page.locator("main")).to_contain_text("At 02:30 on day 28 of the month")


def test_the_preview_follows_what_one_types(visitor):
    me = visitor()
    page = me.page
    me.go("/console/acme/schedules/new?type=invoice-chase")

    page.get_by_label("Cron", exact=True).fill("30 2 * 3 7L")
    page.get_by_label("Time zone of the schedule").fill("Europe/Berlin")
    page.get_by_label("Clocks go forward").select_option("run_after")
    expect(page.locator("#preview")).to_contain_text("02:30 does not exist that day", timeout=PATIENT)
    expect(page.locator("#preview time")).to_have_count(10)
    page.get_by_label("Cron", exact=True).fill("61 * * * *")
    expect(page.locator("#preview")).to_contain_text("minute", timeout=PATIENT, ignore_case=True)
    expect(page.locator("#preview time")).to_have_count(0)


def test_a_tool_call_is_approved_with_other_arguments_and_the_form_of_another_viewer_closes(visitor):
    other = visitor()
    other.go("/console/acme/approvals")
    other.page.get_by_label("Reason, told to the agent").fill("wait for the demo")
    me = visitor()
    page = me.page
    me.go("/console/acme/approvals")
    number = page.locator('input[inputmode="decimal"]').first
    was = number.input_value()

    number.fill("7")
    expect(page.get_by_text(f"It was {was}.")).to_be_visible()
    page.get_by_label("Reason, told to the agent").fill("less will do")
    page.get_by_role("button", name="Approve, changed").click()

    told(page, "Approved")
    page.get_by_role("link", name="Decided", exact=True).click()
    expect(page.get_by_text("Approved, changed · Mara Lindqvist").first).to_be_visible()
    expect(other.page.locator("[data-closed]")).to_contain_text("Approved, changed by Mara Lindqvist", timeout=PATIENT)
    expect(other.page.locator("[data-key-approve]")).to_be_disabled()
    expect(other.page.get_by_label("Reason, told to the agent")).to_have_value("wait for the demo")


def test_a_token_is_made_shown_once_and_revoked(visitor):
    me = visitor()
    page = me.page
    me.go("/console/acme/tokens")
    page.get_by_role("link", name="New token").click()
    page.get_by_label("App", exact=True).fill("Warehouse")
    page.get_by_role("button", name="Make it and show it once").click()
    secret = page.locator("#secret").inner_text()
    assert re.fullmatch(r"ajt_live_[0-9A-Za-z]{38}", secret)

    page.get_by_role("link", name="I have kept it").click()
    expect(page.get_by_text("Warehouse")).to_be_visible()
    assert secret not in page.content()
    page.get_by_role("link", name="Revoke Warehouse…").click()
    confirm(page, "Revoke this token")
    told(page, "The token is revoked")
    expect(page.get_by_role("row", name="Warehouse")).to_contain_text("Revoked")


def test_a_member_sees_these_pages_without_their_buttons(visitor):
    me = visitor(username="mel")
    for address, button in (
        ("schedules", "New schedule"),
        ("webhooks", "New endpoint"),
        ("types", "New job type"),
    ):
        me.go(f"/console/acme/{address}")
        expect(me.page.locator("main")).not_to_contain_text(button)
    expect(me.page.get_by_role("link", name="Webhooks")).to_have_count(1)
    expect(me.page.get_by_role("link", name="Tokens")).to_have_count(0)
