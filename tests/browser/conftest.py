"""A real browser in front of the real service with the demo organisation. Needs Debian's chromium, or another one whose
path is in CHROMIUM. Without a browser the tests are skipped, except where BROWSER_REQUIRED says that there must be one.
With PICTURES, the tests of how pages look write them to `.dev/screens/`.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.stack import ROOT, Stack

PASSWORD = "the demo of the browser"
SCREENS = ROOT / ".dev" / "screens"
PICTURES = bool(os.environ.get("PICTURES"))
SIZES = {"desk": {"width": 1440, "height": 980}, "phone": {"width": 390, "height": 844}}


@pytest.fixture(scope="session")
def chromium() -> str:
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found:
        return found
    reason = "no Chromium on this machine: apt-get install chromium, or CHROMIUM=/path/to/one"
    if os.environ.get("BROWSER_REQUIRED"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def stack(chromium: str, make_home: Callable[[], Path]) -> Iterator[Stack]:
    stack = Stack(make_home() / "stack")
    try:
        stack.wait_ready()
        stack.manage("demo_data", "--org", "acme", "--days", "14", "--password-stdin", stdin=f"{PASSWORD}\n")
        stack.manage(
            *("create_user", "--org", "acme", "--username", "mel", "--role", "member", "--password-stdin"),
            stdin=f"{PASSWORD}\n",
        )
        yield stack
    finally:
        stack.stop()


@pytest.fixture(scope="session")
def engine(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visitor:
    """One person's browser. What the console logs as an error, and each violation of the policy, is in `complaints`."""

    def __init__(self, engine: Any, stack: Stack, *, signed_in: Any = None) -> None:
        self.base = stack.record()["web_url"]
        self.context = engine.new_context(
            viewport=SIZES["desk"], timezone_id="Europe/Berlin", color_scheme="light", storage_state=signed_in
        )
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def sign_in(self, username: str = "mara") -> None:
        self.go("/console/")
        self.page.get_by_label("Name or e-mail").fill(username)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_role("heading", name="Overview").wait_for()

    def wear(self, theme: str) -> None:
        """Switch the page between light and dark, as the viewer's choice does."""
        self.page.evaluate(f"document.documentElement.dataset.theme = {theme!r}")

    def picture(self, name: str) -> None:
        if PICTURES:
            SCREENS.mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=SCREENS / f"{name}.png", full_page=True)

    def go(self, path: str) -> None:
        answer = self.page.goto(f"{self.base}{path}", wait_until="domcontentloaded")
        assert answer.status == 200, (path, answer.status)


@pytest.fixture(scope="session")
def sign_ins() -> dict[str, Any]:
    """The cookies of each person who has signed in already."""
    return {}


@pytest.fixture
def visitor(engine: Any, stack: Stack, sign_ins: dict[str, Any]) -> Iterator[Callable[..., Visitor]]:
    made: list[Visitor] = []

    def make(*, username: str = "mara") -> Visitor:
        """A browser of its own, on the overview. Each person signs in once in a run."""
        me = Visitor(engine, stack, signed_in=sign_ins.get(username))
        made.append(me)
        if username in sign_ins:
            me.go("/console/acme/")
        else:
            me.sign_in(username)
            sign_ins[username] = me.context.storage_state()
        return me

    yield make
    complaints = [complaint for each in made for complaint in each.complaints]
    for each in made:
        each.context.close()
    assert complaints == []
