"""Ringing: never an error, never a wait, never more bells than are of use."""

import json
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest
import redis

from channels_integration import doorbell
from tests.chaos.proxy import Proxy
from tests.races import in_threads
from tests.waiting import PATIENCE, wait_for

QUEUE = "test-bells"


@pytest.fixture
def queue(settings):
    client = redis.Redis.from_url(settings.REDIS_URL)
    client.delete(QUEUE)
    yield client
    client.delete(QUEUE)


@pytest.fixture(autouse=True)
def a_new_line(monkeypatch):
    monkeypatch.setattr(doorbell, "_line", None)
    monkeypatch.setattr(doorbell, "_patient_line", None)


@pytest.fixture
def real_time_outs(monkeypatch):
    monkeypatch.setattr(doorbell, "_TIMEOUT_SECONDS", 0.2)


def deaf_redis(settings):
    """A Redis that takes connections and never answers."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(8)
    settings.REDIS_URL = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
    return server


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


def test_several_bells_at_once_have_ids_of_their_own(queue):
    doorbell.ring(QUEUE, "channels.deliver", times=3)

    messages = [json.loads(raw) for raw in queue.lrange(QUEUE, 0, -1)]
    assert len({m["headers"]["id"] for m in messages}) == 3
    assert len({m["properties"]["delivery_tag"] for m in messages}) == 3


def test_threads_that_ring_for_the_first_time_at_once_make_sound_messages(queue):
    for round_number in range(5):
        doorbell._template.cache_clear()
        queue.delete(QUEUE)
        in_threads(*[lambda: doorbell.ring(QUEUE, "channels.deliver")] * 4)
        messages = [json.loads(raw) for raw in queue.lrange(QUEUE, 0, -1)]
        assert len({m["headers"]["id"] for m in messages}) == len(messages) == 4, round_number


def test_redis_gone_is_no_error_and_asked_again_only_a_second_later(settings, monkeypatch):
    monkeypatch.setattr(doorbell, "_SILENCE_SECONDS", PATIENCE)
    settings.REDIS_URL = "redis://127.0.0.1:9/0"
    began = time.monotonic()
    doorbell.ring(QUEUE, "channels.deliver")
    assert time.monotonic() - began < 5
    assert 0 < doorbell._line.silent_until - time.monotonic() <= PATIENCE
    assert doorbell.waiting(QUEUE) is None

    tries = []
    monkeypatch.setattr(doorbell._line, "ring", lambda **_: tries.append(1))
    doorbell.ring(QUEUE, "channels.deliver")
    assert tries == []
    monkeypatch.setattr(doorbell._line, "silent_until", 0.0)
    doorbell.ring(QUEUE, "channels.deliver")
    assert tries == [1]


def test_of_many_that_ring_while_redis_is_gone_one_looks_again(settings, monkeypatch):
    settings.REDIS_URL = "redis://127.0.0.1:9/0"
    doorbell.ring(QUEUE, "channels.deliver")
    monkeypatch.setattr(doorbell._line, "silent_until", 0.0)
    looks, is_answered = [], threading.Event()

    def look(**_):
        looks.append(1)
        is_answered.wait(PATIENCE)

    monkeypatch.setattr(doorbell._line, "ring", look)
    rings = [threading.Thread(target=doorbell.ring, args=(QUEUE, "channels.deliver")) for _ in range(8)]
    for thread in rings:
        thread.start()
    wait_for(lambda: sum(thread.is_alive() for thread in rings) == 1, what="one waits")
    is_answered.set()
    for thread in rings:
        thread.join(PATIENCE)
    assert looks == [1]


def test_a_redis_that_does_not_answer_costs_a_fraction_of_a_second_once(settings, monkeypatch, real_time_outs):
    monkeypatch.setattr(doorbell, "_SILENCE_SECONDS", PATIENCE)
    with deaf_redis(settings):
        began = time.monotonic()
        for _ in range(20):
            doorbell.ring(QUEUE, "channels.deliver")
        assert time.monotonic() - began < 3, "each by itself would be 4"
        assert doorbell.waiting(QUEUE) is None


def test_a_redis_that_is_back_is_rung_again(queue, settings):
    address = settings.REDIS_URL
    settings.REDIS_URL = "redis://127.0.0.1:9/0"
    doorbell.ring(QUEUE, "channels.deliver")
    settings.REDIS_URL = address
    doorbell.ring(QUEUE, "channels.deliver")

    assert doorbell.waiting(QUEUE) == 1


def test_over_a_slow_line_only_the_patient_are_heard(queue, settings, monkeypatch, real_time_outs):
    monkeypatch.setattr(doorbell, "_PATIENT_TIMEOUT_SECONDS", PATIENCE)
    address = urlsplit(settings.REDIS_URL)
    with Proxy((address.hostname, address.port)) as line:
        line.set(latency=0.3)
        there = address.netloc.rpartition(":")[0]
        settings.REDIS_URL = address._replace(netloc=f"{there}:{line.port}").geturl()
        doorbell.ring(QUEUE, "channels.deliver")
        assert queue.llen(QUEUE) == 0
        with doorbell.patience():
            doorbell.ring(QUEUE, "channels.deliver")

        assert queue.llen(QUEUE) == 1
