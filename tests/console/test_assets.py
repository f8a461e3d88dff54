"""The files that a browser loads for a page, compressed as `collectstatic` stores them."""

import gzip
import re

import pytest

from agent_jobs.states import JobStatus
from tests import rows

MOST_BYTES = 150_000
_NAMED = re.compile(r'(?:href|src)="(/static/[^"#]+)')


def loaded(browser, address):
    """The compressed bytes of the page and of each file that it names."""
    page = browser.get(address)
    assert page.status_code == 200, address
    sizes = {address: len(gzip.compress(page.content))}
    for name in set(_NAMED.findall(page.content.decode())):
        answer = browser.get(name)
        assert answer.status_code == 200, name
        content = b"".join(answer.streaming_content) if answer.streaming else answer.content
        sizes[name] = len(gzip.compress(content))
    return sizes


@pytest.mark.parametrize(
    "place",
    ["/", "/jobs", "/jobs/{job}", "/jobs/new", "/schedules", "/schedules/new", "/approvals", "/channels", "/usage"],
)
def test_a_page_with_its_files_is_small(admin, place):
    jobs = [rows.job(JobStatus.FAILED, params={"name": f"Ann {number}"}) for number in range(50)]

    sizes = loaded(admin, f"/console/acme{place.format(job=jobs[0].pk)}")

    assert len(sizes) > 4  # the sheet, two scripts, icons
    assert sum(sizes.values()) < MOST_BYTES, sizes


def test_the_sign_in_is_small(client, db):
    assert sum(loaded(client, "/console/").values()) < MOST_BYTES


def test_the_sheet_and_the_scripts_load_nothing_else(client):
    for name in ("console.css", "console.js", "theme.js"):
        answer = client.get(f"/static/console/{name}")
        text = b"".join(answer.streaming_content).decode()
        assert not re.search(r"url\((?!#)|@import|import\(|https?://(?!www\.w3\.org)", text), name
