"""The stranger who repeats what every test asks for (`tests/replay.py`) finds a leak wherever one is planted."""

import pytest

from agent_jobs import jobs, lifecycle
from agent_jobs.api import base
from agent_jobs.jobs import idempotency
from agent_jobs.legal_moves import Event
from agent_jobs.models import Activity, AppToken, Job, Org, Profile
from agent_jobs.reads import external_jobs, numbered_pages, queries
from tests import factories, replay, rows
from tests.dialects.own_forms import signed_in

pytestmark = pytest.mark.django_db
JOBS = "/services/agent-jobs"
HOOK = {"platform": "webhook", "code": "crm", "address": "http://127.0.0.1:9/in"}
PROFILES = "/services/organizations/acme/profiles"


def everybodys_jobs(patch):
    patch.setattr(queries, "jobs", lambda org_id: Job.objects.all())


def everybodys_workspaces(patch):
    of_orgs = numbered_pages.of_orgs
    patch.setattr(numbered_pages, "of_orgs", lambda org_ids: of_orgs(Org.objects.values_list("pk", flat=True)))


def everybodys_programs(patch):
    patch.setattr(external_jobs, "with_binary", lambda org_id: Job.objects.all())


def everybodys_activities(patch):
    patch.setattr(queries, "activities", lambda org_id: Activity.objects.all())


def everybodys_tokens(patch):
    patch.setattr(queries, "app_tokens", lambda org_id: AppToken.objects.all())


def any_organization(patch):
    patch.setattr(base.Resource, "require_org", lambda *_: None)


def any_organizations_profiles(patch):
    any_organization(patch)
    patch.setattr(queries, "profiles", lambda org_id: Profile.objects.all())


def everybodys_cancel(patch):
    def cancel(org_id, job_id, *, actor, **others):
        return lifecycle.move_one(Event.CANCEL, Job.objects.get(pk=job_id), actor=actor)

    patch.setattr(jobs, "cancel", cancel)


def everybodys_keys(patch):
    def once(org_id, key, **others):
        return whole("acme", key, **others)

    whole = idempotency.once
    patch.setattr(idempotency, "once", once)


def broken(patch):
    def fail(*_):
        raise RuntimeError

    patch.setattr(queries, "activities", fail)


def ask_with_api_key(_, job):
    Job.objects.filter(pk=job.pk).update(runner="external", placement="binary\x1fgreet")
    factories.Api(None).get("/executr/api/v1/jobs", X_API_Key=factories.token("acme"))


LEAKS = {
    "a list of everybody's": (everybodys_jobs, lambda api, job: api.get(JOBS), "200 shows '{job.pk}'"),
    "one's words": (
        everybodys_activities,
        lambda api, job: api.get("/services/activities"),
        "200 shows 'Ann was here'",
    ),
    "a token's public part": (
        everybodys_tokens,
        lambda api, job: api.get("/services/app-tokens"),
        "200 shows 'ajt_live_",
    ),
    "another's page, though empty": (
        any_organization,
        lambda api, job: api.get(PROFILES),
        "200, though it names 'acme'",
    ),
    "another's page": (any_organizations_profiles, lambda api, job: api.get(PROFILES), "200 shows 'Be brief, Ann.'"),
    "a list of everybody's, to a person": (
        everybodys_workspaces,
        lambda api, job: signed_in("ann", "admin").get("/jobs"),
        "200 shows '{job.pk}'",
    ),
    "a list of everybody's, to a token in X-API-Key": (
        everybodys_programs,
        ask_with_api_key,
        "200 shows '{job.pk}'",
    ),
    # Refused to ourselves, so that there is something left to cancel.
    "a cancel": (
        everybodys_cancel,
        lambda api, job: factories.api("acme", "SERVICES:READ").delete(f"{JOBS}/{job.pk}"),
        "changed agent_jobs_job: ",
    ),
    "the answer to another's key": (
        everybodys_keys,
        lambda api, job: factories.api("acme", "SERVICES:ADMIN").post("/services/channels", HOOK, Idempotency_Key="k"),
        "201 shows 'acme'",
    ),
    "a 500": (broken, lambda api, job: api.get("/services/activities"), "500 "),
}


@pytest.fixture
def job():
    Profile.objects.create(org=rows.org(), key="brief", name="Brief", instructions="Be brief, Ann.")
    job = rows.job()
    factories.activity(job, note="Ann was here")
    return job


@pytest.mark.parametrize("planted", LEAKS)
def test_a_planted_leak_is_found(job, planted):
    plant, ask, expected = LEAKS[planted]
    api = factories.api("acme", "SERVICES:ADMIN")
    with replay.recording() as asked:
        ask(api, job)
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        found = replay.replay(asked)

    assert expected.format(job=job) in "\n".join(found)


def test_what_is_asked_for_with_a_token_is_repeated_and_nothing_else(job, replayed_by_a_stranger):
    """The token itself is not kept; the stranger has another one."""
    api = factories.api("acme", "SERVICES:READ")
    for ask in (api, api, factories.Api(None)):
        ask.get(f"{JOBS}?status=WAITING", X_Request_ID="r-1")
    replay.replay(replayed_by_a_stranger)

    first, second = replayed_by_a_stranger
    assert first == second
    assert str(first) == f"GET {JOBS}?status=WAITING"
    assert dict(first.environ)["HTTP_X_REQUEST_ID"] == "r-1"
    assert "ajt_" not in first.text


def test_where_nothing_leaks_nothing_is_found_and_nothing_of_the_strangers_is_left(job):
    api = factories.api("acme", "SERVICES:ADMIN")
    with replay.recording() as asked:
        api.get(f"{JOBS}/{job.pk}")
        api.post("/services/app-tokens", {"app": "x", "scopes": ["SERVICES:READ"]})
        api.delete(f"{JOBS}/{job.pk}")

    assert (len(asked), replay.replay(asked)) == (3, [])
    assert not AppToken.objects.filter(org_id=replay.STRANGER).exists()
