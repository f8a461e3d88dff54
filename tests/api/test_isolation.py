"""No address shows or changes what belongs to another organisation.

Every address of the native API has a row here for each method that it takes: what the stranger's and an unknown
organisation's objects answer. An address without a row fails the first test.
"""

import json

import pytest
from django.urls import URLPattern, get_resolver

from agent_jobs.models import Job, JobType, Profile
from tests import factories, rows

pytestmark = pytest.mark.django_db
UNKNOWN_JOB = "01930000-0000-7000-8000-000000000000"
ENTRY = {"id": "new", "name": "New"}

# (address without its prefix, method) → (path, body, statuses for ours, the stranger's and an unknown organisation's).
# Where the last two are the same, so are the answers, byte for byte.
ROWS = {
    ("agent-jobs", "GET"): ("agent-jobs?org_id={org}", None, (200, 403, 403)),
    ("agent-jobs", "POST"): ("agent-jobs", lambda org: factories.job_request(org), (201, 404, 404)),
    ("agent-jobs/", "GET"): ("agent-jobs/", None, (400, 400, 400)),
    ("agent-jobs/", "DELETE"): ("agent-jobs/", None, (400, 400, 400)),
    ("agent-jobs/<str:job_id>", "GET"): ("agent-jobs/{job}", None, (200, 403, 404)),
    ("agent-jobs/<str:job_id>", "DELETE"): ("agent-jobs/{job}", None, (200, 403, 404)),
    ("activities", "GET"): ("activities?org_id={org}", None, (200, 403, 403)),
}
for word in ("agent-jobs-type", "profiles"):
    base, entry = f"organizations/<str:org_id>/{word}", f"organizations/{{org}}/{word}"
    ROWS |= {
        (base, "GET"): (entry, None, (200, 404, 404)),
        (base, "POST"): (entry, lambda org: ENTRY, (201, 404, 404)),
        (f"{base}/<str:entry_id>", "GET"): (f"{entry}/greet", None, (200, 404, 404)),
        (f"{base}/<str:entry_id>", "PUT"): (f"{entry}/greet", lambda org: {"name": "X"}, (200, 404, 404)),
        (f"{base}/<str:entry_id>", "PATCH"): (f"{entry}/greet", lambda org: {"name": "X"}, (200, 404, 404)),
        (f"{base}/<str:entry_id>", "DELETE"): (f"{entry}/greet", None, (200, 404, 404)),
    }
# Where the address names no organisation, the stranger's things are simply not there: see test_channels.
BY_CODE = {
    ("app-tokens", "GET"),
    ("app-tokens", "POST"),
    ("app-tokens/<str:public_id>", "GET"),
    ("app-tokens/<str:public_id>", "DELETE"),
    ("audit", "GET"),
    ("channels", "GET"),
    ("channels", "POST"),
    ("channels/slack/installations", "GET"),
    ("channels/slack/installations", "POST"),
    ("channels/slack/installations/<str:team_id>", "DELETE"),
    ("channels/<str:platform>/<str:code>", "DELETE"),
    ("channels/<str:platform>/<str:code>/messages", "GET"),
    ("channels/<str:platform>/<str:code>/messages", "POST"),
}
# Shows nothing of any organisation, or belongs to another door, with isolation tests of its own.
OPEN = ("health/live", "health/ready", "metrics", "schema", "docs")
OTHER_DOORS = ("admin/", "channels/slack/events", "static/")
PREFIXES = ("services/", "api/v0/services/", "")


def addresses(patterns=None, prefix=""):
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLPattern):
            yield route, getattr(pattern.callback, "cls", None)
        else:
            yield from addresses(pattern.url_patterns, route)


def native():
    """(address without its prefix, method) of everything that the URLconf serves and that is not listed as open."""
    for route, view in addresses():
        if route in OPEN or route.startswith(OTHER_DOORS):
            continue
        bare = next(route.removeprefix(prefix) for prefix in PREFIXES if route.startswith(prefix))
        assert view is not None, f"{route} is no view of REST framework: what does it show, and to whom?"
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            if hasattr(view, method.lower()):
                yield bare, method


def test_every_address_has_a_row():
    served = set(native())

    assert served - set(ROWS) - BY_CODE == set(), "an address without a row: say what a stranger gets there"
    assert (set(ROWS) | BY_CODE) - served == set(), "a row without an address"


@pytest.fixture
def world(acme, rival):
    """Things of ours and of the stranger's, all with the same names."""
    jobs = {}
    for org_id in ("acme", "rival"):
        Profile.objects.create(org_id=org_id, key="greet", name=f"canary of {org_id}")
        job = rows.job(org_id=org_id, params={"canary": org_id}, result="x")
        factories.activity(job, note=f"canary of {org_id}")
        JobType.objects.filter(org_id=org_id).update(description=f"canary of {org_id}")
        jobs[org_id] = str(job.pk)
    acme.jobs = jobs | {"unknown": UNKNOWN_JOB}
    return acme


def snapshot():
    return [list(model.objects.filter(org_id="rival").order_by("pk").values()) for model in (Job, JobType, Profile)]


@pytest.mark.parametrize("prefix", ["/services/", "/api/v0/services/"])
@pytest.mark.parametrize(("address", "method"), sorted(ROWS), ids=lambda value: value)
def test_a_stranger_gets_nothing(world, address, method, prefix):
    path, body, expected = ROWS[address, method]
    before = snapshot()

    answers = {}
    for org_id in ("unknown", "rival", "acme"):
        at = prefix + path.format(org=org_id, job=world.jobs[org_id])
        answers[org_id] = world.send(method, at, body(org_id) if body else None)

    assert tuple(answers[org_id].status_code for org_id in ("acme", "rival", "unknown")) == expected
    assert snapshot() == before
    for response in answers.values():
        assert "canary of rival" not in response.content.decode()
        assert '"canary":"rival"' not in response.content.decode()
    if expected[1] == expected[2]:
        theirs, unknown = (dict(answers[org_id].json(), meta=None) for org_id in ("rival", "unknown"))
        assert json.dumps(theirs) == json.dumps(unknown)


def test_lists_hold_only_what_is_ours(world):
    for path in (
        "agent-jobs?include=activities,stats",
        "activities",
        "organizations/acme/agent-jobs-type",
        "organizations/acme/profiles",
    ):
        body = world.get(f"/services/{path}").json()
        assert body["meta"]["total"] == len(body["data"]) == 1
        assert {entry["org_id"] for entry in body["data"]} == {"acme"}


def test_the_catalogue_without_a_prefix_is_isolated_as_well(world):
    assert world.get("/organizations/rival/agent-jobs-type").status_code == 404
    assert world.get("/organizations/rival/agent-jobs-type/greet").status_code == 404


def test_a_job_cannot_take_the_strangers_type_or_profile(world):
    JobType.objects.create(org_id="rival", key="theirs", name="x")
    Profile.objects.create(org_id="rival", key="theirs", name="x")

    by_type = world.post("/services/agent-jobs", factories.job_request(job_type_id="theirs"))
    by_profile = world.post("/services/agent-jobs", factories.job_request(config={"profile_id": "theirs"}))

    assert (by_type.status_code, by_profile.status_code) == (404, 404)
    assert (
        by_type.json()["message"].replace("theirs", "x")
        == world.post("/services/agent-jobs", factories.job_request(job_type_id="x")).json()["message"]
    )
