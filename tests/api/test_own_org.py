"""Every operation takes the token's own `org_id` in its query; another one is a 403, whether it exists or not."""

import pytest

from tests import factories, rows

pytestmark = pytest.mark.django_db
JOBS = "/services/agent-jobs"
PATHS = [
    ("GET", JOBS),
    ("GET", "/services/activities"),
    ("GET", JOBS + "/{job}"),
    ("DELETE", JOBS + "/{job}"),
    ("GET", JOBS + "/{job}/messages"),
    ("GET", JOBS + "/{job}/approvals"),
    ("GET", "/services/organizations/acme/agent-jobs-type"),
    ("GET", "/services/organizations/acme/agent-jobs-type/greet"),
    ("GET", "/services/organizations/acme/profiles"),
    ("GET", "/services/channels"),
    ("GET", "/services/usage"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_the_own_org_id_is_taken_and_another_is_a_403(acme, rival, method, path):
    path = path.format(job=rows.job().pk)

    refused = [acme.send(method, f"{path}?org_id={name}") for name in ("rival", "nobody")]
    taken = acme.send(method, f"{path}?org_id=acme")

    assert [answer.status_code for answer in refused] == [403, 403]
    one, other = ({**answer.json(), "meta": None} for answer in refused)
    assert one == other
    assert taken.status_code == 200, taken.content


def test_a_job_may_be_posted_with_the_org_id_in_the_query_too(acme):
    assert acme.post(f"{JOBS}?org_id=acme", factories.job_request()).status_code == 201
    assert acme.post(f"{JOBS}?org_id=rival", factories.job_request()).status_code == 403


def test_the_strangers_job_is_a_403_under_either_org_id(acme, rival):
    theirs = rows.job(org_id="rival")

    for org_id in ("acme", "rival"):
        assert acme.get(f"{JOBS}/{theirs.pk}?org_id={org_id}").status_code == 403


@pytest.mark.parametrize("query", ["limit=0", "nonsense=1", "org_id=acme", "org_id="])
def test_a_bad_query_wins_over_another_org(acme, query):
    assert acme.get(f"{JOBS}?org_id=rival&{query}").status_code == 400
