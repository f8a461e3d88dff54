"""Searching jobs by words."""

import pytest

from agent_jobs.models import Job
from agent_jobs.reads import job_words, queries
from agent_jobs.states import JobStatus
from tests import rows

pytestmark = pytest.mark.django_db


def found(text, jobs=None):
    return set(job_words.matching(queries.jobs("acme") if jobs is None else jobs, text))


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("inv-20", True),
        ("INV-2041", True),
        ("in", True),
        ("inv", True),
        ("inv-30", False),
        ("in-20", False),
        ("follow-up", True),
        ("follow-u", True),
        ("follow", True),
        ("foll-up", False),
        ("ann@acme.exa", True),
        ("brightwave foll", True),
        ("bright foll", False),
        ("-- '' & |", False),
    ],
)
def test_only_the_last_word_may_be_cut_off(text, is_found):
    job = rows.job(
        JobStatus.COMPLETED, params={"about": "Brightwave INV-2041"}, result="A follow-up to ann@acme.example"
    )
    living = rows.job(params={"about": "Brightwave INV-2041, a follow-up to ann@acme.example"})

    assert found(text) == ({job, living} if is_found else set())


def test_older_jobs_are_searched_while_few_of_the_newest_have_the_words(monkeypatch):
    monkeypatch.setattr(job_words, "MOST_WALKED", 3)
    old, *newest = [rows.job(JobStatus.COMPLETED, params={"customer": "Brightwave"}) for _ in range(4)]
    rows.job(JobStatus.COMPLETED, "rival", params={"customer": "Brightwave"})

    assert found("brightwave") == {old, *newest}
    monkeypatch.setattr(job_words._AreFew, "template", "(SELECT count(*) FROM newest) < 3")
    assert found("brightwave") == {*newest}


def test_other_filters_narrow_the_search_itself(monkeypatch):
    monkeypatch.setattr(job_words, "MOST_WALKED", 1)
    failed = rows.job(JobStatus.FAILED, params={"customer": "Brightwave"})
    rows.job(JobStatus.COMPLETED, params={"customer": "Brightwave"})

    assert found("brightwave", queries.jobs("acme").filter(status="FAILED")) == {failed}
    assert found("brightwave", Job.objects.none()) == set()
