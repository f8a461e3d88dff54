"""Every page in light and dark, on a desk and on a phone: without a fault that axe finds, and as a picture.

Each page is loaded once. The pictures are for people, who lay them beside the design.
"""

import json
from pathlib import Path

import axe_playwright_python
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import SIZES

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
    "schedule-backfill": "schedules|/backfill",
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
    found = page.evaluate(f"axe.run(document, {{runOnly: {json.dumps(RULES)}, resultTypes: ['violations']}})")
    return [
        f"{fault['id']} ({fault['help']}): {node['html'][:160]} {node.get('failureSummary', '')[:200]}"
        for fault in found["violations"]
        for node in fault["nodes"][:3]
    ]


@pytest.fixture
def looker(visitor):
    """Looks at the page that is open: what axe finds in both themes, and whether a phone scrolls sideways."""
    me = visitor()
    me.context.add_init_script(path=Path(axe_playwright_python.__file__).parent / "axe.min.js")

    def look(name, *, on_phone=True):
        found = []
        for size in SIZES if on_phone else ("desk",):
            me.page.set_viewport_size(SIZES[size])
            for theme in ("light", "dark"):
                me.wear(theme)
                me.picture(f"{name}-{theme}-{size}")
                if size == "desk" or theme == "light":
                    found += [f"{name}, {theme}, {size}: {fault}" for fault in faults(me.page)]
            if me.page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
                found.append(f"{name}, {size}: scrolls sideways")
        me.page.set_viewport_size(SIZES["desk"])
        return found

    return me, look


@pytest.mark.parametrize("part", range(2))
def test_pages_have_no_fault_and_do_not_scroll_sideways(looker, part):
    me, look = looker
    found = []
    for name, place in list(PAGES.items())[part::2]:
        open_page(me, place)
        if name.startswith("overview"):
            expect(me.page.locator(".asks [hx-get]")).not_to_contain_text("for a worker.")
        found += look(name)
    assert found == []


def test_the_door_and_the_dialogs_have_no_fault(looker):
    me, look = looker
    open_page(me, "waiting_for=reply")
    me.page.get_by_role("link", name="Cancel…").click()
    me.page.get_by_role("dialog").wait_for()
    found = look("dialog", on_phone=False)
    me.go("/console/acme/jobs?status=running")
    me.page.get_by_label("Select all on this page").check()
    found += look("selected", on_phone=False)
    me.page.locator("[data-verb=cancel]").click()
    me.page.get_by_role("dialog").wait_for()
    found += look("bulk", on_phone=False)
    me.context.clear_cookies()
    me.go("/console/")
    found += look("door")
    assert found == []
