"""Counting requests: exactly, in one round trip, and also while Redis is away."""

import os
import signal
import threading
import time
import uuid

import pytest
from redis import Redis

from agent_jobs.tenants import rate_limits
from agent_jobs.tenants.rate_limits import Limit
from config import embedded
from infra import redis
from tests.races import in_threads
from tests.waiting import wait_for


@pytest.fixture
def who():
    return uuid.uuid4().hex


@pytest.fixture
def server(home, settings):
    """A Redis of this test's own, to be stopped and started."""

    class Server:
        redis = embedded.Redis(home)
        process = None

        def start(self):
            self.redis.prepare()
            self.process = self.redis.spawn(None)
            embedded.wait_ready(self.redis, self.process)

        def stop(self):
            if self.process:
                embedded.stop(self.process, self.redis.stop_signal)
            self.process = None

        def client(self):
            return Redis.from_url(self.redis.url())

    server = Server()
    server.start()
    settings.REDIS_URL = server.redis.url()
    yield server
    server.stop()


def passes(*limits):
    return not any(standing.is_refused for standing in rate_limits.take(*limits))


def asked_by_forty_threads(limit):
    """Whether each of 200 requests passed, that began at once."""
    return [passed for five in in_threads(*[lambda: [passes(limit) for _ in range(5)]] * 40) for passed in five]


def test_a_limit_lets_through_what_it_says_and_no_more(who):
    assert [passes(Limit("token", who, "3/minute")) for _ in range(5)] == [True, True, True, False, False]


def test_forty_threads_get_exactly_what_the_limit_allows(who):
    passed = asked_by_forty_threads(Limit("token", who, "100/minute"))

    assert (len(passed), sum(passed)) == (200, 100)
    assert rate_limits._alone._storage is None, "all were counted in Redis"


def test_others_are_counted_for_themselves(who):
    assert passes(Limit("token", who, "1/minute"))
    assert not passes(Limit("token", who, "1/minute"))
    assert passes(Limit("token", f"{who}2", "1/minute"))
    assert passes(Limit("org", who, "1/minute"))


def test_what_a_token_is_refused_is_not_taken_from_its_organization(who):
    narrow, wide = Limit("token", who, "2/minute"), Limit("org", who, "4/minute")
    for _ in range(10):
        rate_limits.take(narrow, wide)
    token, org = rate_limits.take(narrow, wide)

    assert (token.is_refused, org.is_refused) == (True, False)
    assert (token.remaining, org.remaining) == (0, 2)


def test_the_organization_refuses_what_the_token_would_allow(who):
    limits = Limit("token", who, "10/minute"), Limit("org", who, "2/minute")

    assert [passes(*limits) for _ in range(3)] == [True, True, False]
    token, org = rate_limits.take(*limits)
    assert (token.is_refused, org.is_refused) == (False, True)


def test_a_limit_that_is_off_is_no_limit(who):
    assert rate_limits.take(Limit("token", who, "off"), Limit("org", who, "off")) == ()
    assert [
        standing.name for standing in rate_limits.take(Limit("token", who, "off"), Limit("org", who, "9/hour"))
    ] == ["org"]


def test_a_standing_tells_what_is_left_and_how_long_to_wait(who):
    limit = Limit("token", who, "3/minute")
    first = rate_limits.take(limit)[0]
    rate_limits.take(limit)
    third, fourth = rate_limits.take(limit)[0], rate_limits.take(limit)[0]

    assert (first.quota, first.window_seconds, first.remaining, first.wait_seconds) == (3, 60, 2, 0)
    assert 55 < first.reset_seconds <= 60
    assert (third.remaining, third.is_refused) == (0, False)
    assert fourth.is_refused
    assert 60 < fourth.wait_seconds <= 60 + 20  # the window's end, and then a third of it for one of three to fade


def test_who_waits_as_long_as_told_gets_through_and_the_window_moves(who):
    """Windows that jump would let twice as many through around their edge."""
    limit = Limit("token", who, "4/second")
    while not (refused := rate_limits.take(limit)[0]).is_refused:
        pass
    threading.Event().wait(refused.wait_seconds + 0.02)
    began = time.monotonic()

    assert passes(limit)
    passed = sum(passes(limit) for _ in range(4))
    assert passed <= 1 + 4 * (time.monotonic() - began), "four a second, however long these took"


@pytest.mark.parametrize("redis_is", ["there", "away"])
def test_both_ways_of_counting_agree(who, settings, redis_is):
    if redis_is == "away":
        settings.REDIS_URL = "redis://127.0.0.1:1/0"
    limits = Limit("token", who, "5/minute"), Limit("org", who, "3/minute")

    seen = [rate_limits.take(*limits) for _ in range(4)]

    assert [[(at.remaining, at.is_refused) for at in standings] for standings in seen] == [
        [(4, False), (2, False)],
        [(3, False), (1, False)],
        [(2, False), (0, False)],
        [(1, False), (0, True)],
    ]


def test_a_request_is_one_round_trip(server, who):
    limits = Limit("token", who, "5/minute"), Limit("org", who, "3/minute")
    rate_limits.take(*limits)  # loads the script
    client = server.client()
    client.config_resetstat()
    for _ in range(4):
        rate_limits.take(*limits)

    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 4
    outside = {"cmdstat_evalsha", "cmdstat_config|resetstat", "cmdstat_info"}
    inside = {"cmdstat_get", "cmdstat_set", "cmdstat_pttl", "cmdstat_exists", "cmdstat_incrby", "cmdstat_rename"}
    # The first call of a connection says hello; a pool that is warm does not.
    assert set(client.info("commandstats")) <= outside | inside | {"cmdstat_client|setinfo", "cmdstat_hello"}


def test_counting_needs_little_memory_however_high_the_limit(server, who):
    limit = Limit("token", who, "100000/minute")
    client = server.client()
    for _ in range(500):
        rate_limits.take(limit)

    assert sum(client.memory_usage(key) for key in client.scan_iter("rate:*")) < 500


def test_a_redis_that_stops_mid_way_stops_nobody_and_the_limit_goes_on(server, who):
    limit = Limit("token", who, "10/minute")
    assert all(passes(limit) for _ in range(10))
    assert not passes(limit)
    server.stop()

    alone = [passes(limit) for _ in range(11)]

    assert (alone.count(True), alone[-1]) == (10, False)  # from nothing again: this process counts alone
    server.start()
    # The new Redis has forgotten; it counts for all again.
    wait_for(lambda: passes(limit) and server.client().dbsize() == 1, what="Redis is seen again")


def test_no_request_waits_for_a_redis_that_hangs(server, who, monkeypatch):
    monkeypatch.setattr(redis.quick, "timeout_seconds", 0.2)  # the service's own
    limit = Limit("token", who, "1000/minute")
    rate_limits.take(limit)
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        rate_limits.take(limit)
        first = time.monotonic() - began
        began = time.monotonic()
        for _ in range(100):
            rate_limits.take(limit)
        others = time.monotonic() - began
    finally:
        os.kill(server.process.pid, signal.SIGCONT)

    assert 0.05 < first < 30
    assert others < 5  # for a hundred of them
    wait_for(lambda: rate_limits.take(limit) and rate_limits._alone._storage is None, what="Redis is seen again")


def test_a_redis_that_is_full_counts_as_away(server, who):
    client = server.client()
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", 1)

    assert [passes(Limit("token", who, "2/minute")) for _ in range(3)] == [True, True, False]


def test_forty_threads_get_exactly_what_the_limit_allows_without_redis_too(settings, who):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"

    passed = asked_by_forty_threads(Limit("token", who, "100/minute"))

    assert (len(passed), sum(passed)) == (200, 100)
