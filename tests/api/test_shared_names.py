"""Names that two organisations share lead to each one's own things: in what goes out, and in what a request names."""

import json
import logging
import time

import pytest
import standardwebhooks

from agent_jobs.models import Job, JobType, Profile
from agent_jobs.worker.loop import Worker
from channels_integration import directory, send_loop
from tests import factories, rows
from tests.conversations import QuietKeeper
from tests.fakes.webhook import FakeReceiver


@pytest.mark.django_db(transaction=True)
def test_each_organisations_words_go_to_its_own_address_under_its_own_signature(caplog):
    """The same job type, channel code and person's name in both; worked off and delivered together."""
    caplog.set_level(logging.DEBUG)
    with FakeReceiver() as ours, FakeReceiver() as theirs:
        secrets = {}
        for org_id, receiver in (("acme", ours), ("rival", theirs)):
            rows.job_type(org_id, default_config={"start_prompt": f"canary-{org_id} for {{{{ name }}}}"})
            _, secrets[org_id] = directory.register_channel(
                org_id, platform="webhook", code="crm", address=receiver.address
            )
            body = factories.job_request(org_id, params={"name": org_id})
            body["target_channel"] |= {"platform": "webhook", "code": "crm", "data": {"canary": f"canary-{org_id}"}}
            api = factories.api(org_id)
            for _ in range(5):
                assert api.post("/services/agent-jobs", body).status_code == 201
        Worker(QuietKeeper()).serve("messages")
        send_loop.deliver_due(until=time.monotonic() + 10)

        for org_id, other, receiver in (("acme", "rival", ours), ("rival", "acme", theirs)):
            assert len(receiver.received) == 5
            for received in receiver.received:
                sent = json.dumps(
                    [
                        standardwebhooks.Webhook(secrets[org_id]).verify(received.body, received.headers),
                        received.headers,
                    ]
                )
                assert f"canary-{org_id} for {org_id}" in sent
                assert other not in sent
    logged = caplog.text + str([record.__dict__ for record in caplog.records])
    assert "canary" not in logged
    assert not [secret for secret in secrets.values() if secret in logged]


@pytest.mark.django_db
def test_a_job_cannot_take_the_strangers_type_or_profile(acme, rival):
    JobType.objects.create(org_id="rival", key="theirs", name="x")
    Profile.objects.create(org_id="rival", key="theirs", name="x")

    by_type = acme.post("/services/agent-jobs", factories.job_request(job_type_id="theirs"))
    by_profile = acme.post("/services/agent-jobs", factories.job_request(config={"profile_id": "theirs"}))

    assert (by_type.status_code, by_profile.status_code) == (404, 404)
    assert (
        by_type.json()["message"].replace("theirs", "x")
        == acme.post("/services/agent-jobs", factories.job_request(job_type_id="x")).json()["message"]
    )
    assert not Job.objects.exists()
