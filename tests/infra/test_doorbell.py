"""Ringing: never an error, never more messages than are of use."""

import json
from urllib.parse import urlsplit

import pytest

from infra import doorbell, redis
from tests.chaos.proxy import Proxy
from tests.races import in_threads

QUEUE = "test-bells"


@pytest.fixture
def queue():
    redis.background.begin_anew()
    with redis.background.client() as client:
        client.delete(QUEUE)
        yield client
        client.delete(QUEUE)


def test_a_ring_is_a_celery_message_that_names_the_task(queue):
    doorbell.ring(QUEUE, "channels.deliver")

    (raw,) = queue.lrange(QUEUE, 0, -1)
    assert json.loads(raw)["headers"]["task"] == "channels.deliver"
    assert doorbell.waiting(QUEUE) == 1


def test_no_more_than_four_bells_wait_however_often_it_rings(queue):
    for _ in range(10):
        doorbell.ring(QUEUE, "channels.deliver")
    doorbell.ring(QUEUE, "channels.deliver", times=10)

    assert doorbell.waiting(QUEUE) == doorbell.ENOUGH_BELLS == 4


def test_several_workers_are_rung_for_at_once(queue):
    doorbell.ring(QUEUE, "channels.deliver", times=3)

    assert doorbell.waiting(QUEUE) == 3


def test_threads_that_ring_for_the_first_time_at_once_each_name_their_own_task(queue):
    names = [f"channels.task{number}" for number in range(4)]
    for round_number in range(5):
        doorbell._message.cache_clear()
        queue.delete(QUEUE)
        in_threads(*[lambda name=name: doorbell.ring(QUEUE, name) for name in names])
        messages = [json.loads(raw) for raw in queue.lrange(QUEUE, 0, -1)]
        assert sorted(m["headers"]["task"] for m in messages) == names, round_number


def test_redis_gone_is_no_error(settings):
    settings.REDIS_URL = "redis://127.0.0.1:9/0"
    doorbell.ring(QUEUE, "channels.deliver")

    assert doorbell.waiting(QUEUE) is None


def test_over_a_slow_line_only_the_patient_are_heard(queue, settings, monkeypatch):
    monkeypatch.setattr(redis.quick, "timeout_seconds", 0.2)  # the service's own
    address = urlsplit(settings.REDIS_URL)
    with Proxy((address.hostname, address.port)) as line:
        line.set(latency=0.3)
        there = address.netloc.rpartition(":")[0]
        settings.REDIS_URL = address._replace(netloc=f"{there}:{line.port}").geturl()
        doorbell.ring(QUEUE, "channels.deliver")
        assert queue.llen(QUEUE) == 0
        with doorbell.background_timeout():
            doorbell.ring(QUEUE, "channels.deliver")

        assert queue.llen(QUEUE) == 1
