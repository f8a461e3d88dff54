"""Every page in light and dark, on a desk and on a phone: without a fault that axe finds, and as a picture.

The pictures go to `.dev/screens/`. They are for people, who lay them beside the design.
"""

import json
from pathlib import Path

import axe_playwright_python
import pytest

from tests.browser.conftest import SCREENS, SIZES

pytestmark = pytest.mark.browser
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
PAGES = {
    "overview": "/console/acme/",
    "overview-30d": "/console/acme/?range=30d",
    "jobs": "/console/acme/jobs",
    "jobs-filtered": "/console/acme/jobs?status=failed&updated_at_gte=-7d&tags=q4",
    "jobs-none": "/console/acme/jobs?tags=nobody-has-this&status=failed",
    "jobs-wrong": "/console/acme/jobs?created_at_gte=yesterday",
    "job-approval": "waiting_for=approval",
    "job-reply": "waiting_for=reply",
    "job-queued": "status=waiting",
    "job-failed": "status=failed&job_type_id=nightly-report",
    "job-completed": "status=completed&job_type_id=invoice-chase",
    "job-steps": "status=completed&job_type_id=nightly-report|?tab=steps",
    "job-activities": "status=completed&job_type_id=invoice-chase|?tab=activities",
    "job-raw": "status=completed&job_type_id=invoice-chase|?tab=raw",
    "job-replay": "status=failed|/replay",
    "password": "/console/acme/password",
    "schedules": "/console/acme/schedules",
    "schedule": "schedules|",
    "schedule-edit": "schedules|/edit",
    "schedule-versions": "schedules|?tab=versions",
    "approvals": "/console/acme/approvals",
    "approvals-decided": "/console/acme/approvals?which=decided",
    "new-job-type": "/console/acme/jobs/new",
    "new-job": "/console/acme/jobs/new?type=invoice-chase",
    "channels": "/console/acme/channels",
    "channel": "/console/acme/channels/web/finance-desk",
    "outbox": "/console/acme/channels/outbox",
    "installations": "/console/acme/channels/installations",
    "webhooks": "/console/acme/webhooks",
    "webhook": "webhooks|",
    "webhook-new": "/console/acme/webhooks/new",
    "types": "/console/acme/types",
    "type": "types|",
    "profiles": "/console/acme/profiles",
    "tokens": "/console/acme/tokens",
    "token-new": "/console/acme/tokens/new",
    "members": "/console/acme/members",
    "usage": "/console/acme/usage",
    "hours": "/console/acme/hours",
    "hours-edit": "/console/acme/hours/edit",
    "audit": "/console/acme/audit",
    "processes": "/console/acme/processes",
}
# Lists whose first entry is opened; other places are filters of the jobs list.
LISTS = ("schedules", "webhooks", "types")


def open_page(visitor, place):
    if place.startswith("/"):
        visitor.go(place)
        return
    query, _, more = place.partition("|")
    visitor.go(f"/console/acme/{query}" if query in LISTS else f"/console/acme/jobs?{query}")
    visitor.go(visitor.page.locator("main a.t").first.get_attribute("href") + more)


def faults(page):
    page.evaluate((Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text())
    found = page.evaluate(f"axe.run(document, {{runOnly: {json.dumps(RULES)}}})")
    return [
        f"{fault['id']} ({fault['help']}): {node['html'][:160]} {node.get('failureSummary', '')[:200]}"
        for fault in found["violations"]
        for node in fault["nodes"][:3]
    ]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_have_no_fault_and_do_not_scroll_sideways(visitor, theme, size):
    me = visitor(theme=theme, size=size)
    SCREENS.mkdir(parents=True, exist_ok=True)
    found = []
    for name, place in PAGES.items():
        open_page(me, place)
        me.page.wait_for_load_state("networkidle") if name.startswith("overview") else None
        me.page.screenshot(path=SCREENS / f"{name}-{theme}-{size}.png", full_page=True)
        found += [f"{name}: {fault}" for fault in faults(me.page)]
        if me.page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
            found.append(f"{name}: scrolls sideways")
    assert found == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_door_and_the_dialogs_have_no_fault(visitor, theme):
    me = visitor(theme=theme)
    found = []
    open_page(me, "waiting_for=reply")
    me.page.get_by_role("link", name="Cancel…").click()
    me.page.get_by_role("dialog").wait_for()
    me.page.screenshot(path=SCREENS / f"dialog-{theme}.png")
    found += faults(me.page)
    me.go("/console/acme/jobs?status=running")
    me.page.get_by_label("Select all on this page").check()
    me.page.screenshot(path=SCREENS / f"selected-{theme}.png")
    found += faults(me.page)
    me.page.locator("[data-verb=cancel]").click()
    me.page.get_by_role("dialog").wait_for()
    me.page.screenshot(path=SCREENS / f"bulk-{theme}.png")
    found += faults(me.page)
    me.context.clear_cookies()
    me.go("/console/")
    me.page.screenshot(path=SCREENS / f"door-{theme}.png")
    found += faults(me.page)
    assert found == []
