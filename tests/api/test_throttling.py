"""Limits over HTTP: 429 with Retry-After, the headers of every answer, and addresses that show no valid token."""

import itertools
import time

import pytest

from agent_jobs.api import throttling
from agent_jobs.models import Job, Org
from agent_jobs.tenants import app_tokens
from infra.bounded_cache import BoundedCache
from tests import factories, rows

pytestmark = pytest.mark.django_db
JOBS = "/services/agent-jobs"
_addresses = itertools.count(1)


@pytest.fixture
def address():
    """One that no other test fails from."""
    number = next(_addresses)
    return f"198.18.{number // 250}.{number % 250 + 1}"


@pytest.fixture
def stranger(address):
    return from_address(factories.Api(f"{app_tokens.PREFIX}{'0' * 38}"), address)


def from_address(api, address, **environ):
    api.client.defaults |= {"REMOTE_ADDR": address, **environ}
    return api


def wrong_token():
    """Well-formed, so that only the database knows that there is none of this text."""
    made, plain = app_tokens.issue(rows.org(), name="x", scopes=["SERVICES:READ"])
    made.delete()
    return plain


def test_a_token_that_asks_too_often_gets_a_429_and_stores_nothing(acme, settings):
    settings.RATE_TOKEN = "2/minute"
    answers = [acme.post(JOBS, factories.job_request()) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [201, 201, 429]
    refused = answers[2]
    assert 60 < int(refused["Retry-After"]) <= 91
    body = refused.json()
    assert body["code"] == "throttled"
    assert body["message"] == f"too many requests with this token; try again in {refused['Retry-After']} s"
    assert body["meta"]["request_id"] == refused["X-Request-ID"]
    assert Job.objects.count() == 2


def test_every_answer_tells_how_the_limits_stand(acme, settings):
    settings.RATE_TOKEN, settings.RATE_ORG = "3/minute", "10/hour"
    answers = [acme.get(JOBS), acme.get(f"{JOBS}/nothing"), acme.post(JOBS, {}), acme.get(JOBS)]

    assert [answer.status_code for answer in answers] == [200, 404, 400, 429]
    for answer in answers:
        assert answer["RateLimit-Policy"] == '"token";q=3;w=60, "org";q=10;w=3600'
    assert answers[0]["RateLimit"] == '"token";r=2;t=60, "org";r=9;t=3600'
    assert answers[2]["RateLimit"].startswith('"token";r=0;t=')
    retry_after = answers[3]["Retry-After"]
    assert answers[3]["RateLimit"].startswith(f'"token";r=0;t={retry_after}, "org";r=7;t=')


def test_an_organizations_tokens_share_its_limit(settings):
    settings.RATE_ORG = "3/minute"
    one, other, rival = factories.api("shared"), factories.api("shared"), factories.api("unshared")

    assert [api.get(JOBS).status_code for api in (one, other, one, other)] == [200, 200, 200, 429]
    assert rival.get(JOBS).status_code == 200


def test_an_organizations_own_limit_goes_before_the_settings(settings):
    settings.RATE_ORG = "1/minute"
    api = factories.api("own-limit")
    Org.objects.filter(id="own-limit").update(requests_per_minute=2)

    answers = [api.get(JOBS) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0]["RateLimit-Policy"] == '"org";q=2;w=60'
    assert "organization" in answers[2].json()["message"]


def test_limits_that_are_off_are_not_told_of(acme):
    assert "RateLimit" not in acme.get(JOBS)


def test_a_limit_wins_over_a_missing_scope_and_a_missing_token_over_a_limit(reader, address, settings):
    settings.RATE_TOKEN = "1/minute"

    assert [reader.post(JOBS, {}).status_code for _ in range(2)] == [403, 429]
    assert from_address(factories.Api(None), address).post(JOBS, {}).status_code == 401


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_health_is_never_throttled(client, settings, address, path):
    settings.RATE_ADDRESS = "1/minute"
    answers = [client.get(path, REMOTE_ADDR=address) for _ in range(3)]

    assert 429 not in [answer.status_code for answer in answers]


def test_open_pages_are_limited_by_address(client, settings, address):
    settings.RATE_ADDRESS = "2/minute"

    assert [client.get("/schema", REMOTE_ADDR=address).status_code for _ in range(3)] == [200, 200, 429]


# --- Without a valid token -------------------------------------------------------------------------------------
@pytest.mark.parametrize("token", [None, "nonsense", "of a good shape"])
def test_an_address_that_fails_too_often_gets_a_429(address, settings, token):
    settings.RATE_ADDRESS = "3/minute"
    api = from_address(factories.Api(wrong_token() if token == "of a good shape" else token), address)
    answers = [api.get(JOBS) for _ in range(5)]

    assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]
    assert answers[0]["RateLimit"] == '"address";r=2;t=60'
    assert int(answers[4]["Retry-After"]) > 50
    assert "address" in answers[4].json()["message"]


@pytest.mark.parametrize("token", [None, "nonsense", "of a good shape"])
def test_a_bad_token_of_a_barred_address_is_looked_up_once_at_most(
    address, settings, stranger, token, django_assert_num_queries
):
    settings.RATE_ADDRESS = "2/minute"
    for _ in range(3):
        stranger.get(JOBS)
    api = from_address(factories.Api(wrong_token() if token == "of a good shape" else token), address)

    assert api.get(JOBS).status_code == 429
    with django_assert_num_queries(0):
        assert api.get(JOBS).status_code == 429


def test_a_barred_address_has_few_tokens_looked_up(address, settings, stranger, monkeypatch):
    settings.RATE_ADDRESS = "2/minute"
    apis = [from_address(factories.Api(wrong_token()), address) for _ in range(60)]
    looked_up = []
    authenticate = app_tokens.authenticate
    monkeypatch.setattr(app_tokens, "authenticate", lambda plain: looked_up.append(plain) or authenticate(plain))
    for _ in range(3):
        stranger.get(JOBS)
    looked_up.clear()

    begun = int(time.monotonic())
    assert {api.get(JOBS).status_code for api in apis} == {429}

    seconds = int(time.monotonic()) - begun + 1
    assert len(looked_up) <= throttling._LOOK_UPS_A_SECOND * seconds


def test_a_customer_whom_the_process_does_not_know_passes_at_a_barred_address(address, stranger, settings):
    settings.RATE_ADDRESS = "2/minute"
    apis = [from_address(factories.api("acme"), address) for _ in range(5)]
    for number in range(61):
        from_address(factories.Api(f"nonsense{number}"), address).get(JOBS)
    assert stranger.get(JOBS).status_code == 429

    assert [api.get(JOBS).status_code for api in apis] == [200] * 5


def test_a_stranger_does_not_lock_out_a_customer_behind_the_same_address(acme, address, stranger, settings):
    settings.RATE_ADDRESS = "2/minute"
    from_address(acme, address)
    assert acme.get(JOBS).status_code == 200
    assert [stranger.get(JOBS).status_code for _ in range(4)] == [401, 401, 429, 429]

    assert acme.get(JOBS).status_code == 200


def test_a_token_that_was_revoked_is_a_customers_no_more(acme, address, stranger, settings, django_assert_num_queries):
    settings.RATE_ADDRESS = "2/minute"
    from_address(acme, address).get(JOBS)
    for _ in range(3):
        stranger.get(JOBS)
    from agent_jobs.models import AppToken

    app_tokens.revoke(AppToken.objects.get())

    assert acme.get(JOBS).status_code == 429
    with django_assert_num_queries(0):
        assert acme.get(JOBS).status_code == 429


def test_other_addresses_are_not_touched(address, stranger, settings):
    settings.RATE_ADDRESS = "1/minute"
    assert [stranger.get(JOBS).status_code for _ in range(2)] == [401, 429]

    assert from_address(stranger, "198.19.0.1").get(JOBS).status_code == 401


def test_what_is_remembered_of_addresses_is_bounded():
    remembered = BoundedCache(3)
    for number in range(10):
        remembered.put(number, number)

    assert [number for number in range(10) if remembered.get(number) is not None] == [7, 8, 9]


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.7", None, "203.0.113.7"),
        ("203.0.113.7", "198.51.100.1", "203.0.113.7"),  # not a proxy of ours: anybody can write that
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.1", "198.51.100.1"),  # the client's own lie stands left
        ("10.0.0.1", "198.51.100.1, 10.0.0.2", "198.51.100.1"),  # two proxies
        ("10.0.0.1", "10.0.0.3,10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, nonsense", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8::1", "198.51.100.1", "2001:db8::/64"),
        ("fd00::5", "198.51.100.1", "198.51.100.1"),
        ("::ffff:203.0.113.7", None, "203.0.113.7"),
        ("fe80::1%eth0", None, "fe80::/64"),
        ("", "198.51.100.1", ""),
        (None, None, ""),
    ],
)
def test_whose_request_it_is(settings, peer, forwarded, expected):
    settings.TRUSTED_PROXIES = ["10.0.0.0/8", "fd00::/8"]

    assert throttling.address_of({"REMOTE_ADDR": peer, "HTTP_X_FORWARDED_FOR": forwarded}) == expected


def test_clients_behind_our_proxy_are_counted_apart(stranger, address, settings):
    settings.RATE_ADDRESS, settings.TRUSTED_PROXIES = "1/minute", [address]
    one, other = f"2001:db8:{next(_addresses)}::", f"2001:db8:{next(_addresses)}::"

    statuses = [stranger.get(JOBS, X_Forwarded_For=f"{who}{n}").status_code for n in (1, 2) for who in (one, other)]

    assert statuses == [401, 401, 429, 429]  # the second address of each /64 is the same subscriber
