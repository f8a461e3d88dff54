"""The client of Redis: what a Redis costs that does not answer, and when it is asked again."""

import logging
import os
import socket
import subprocess
import threading
import time

import pytest

from config import embedded
from infra import redis
from tests.waiting import PATIENCE, wait_for

NOBODY = "redis://127.0.0.1:1/0"


@pytest.fixture
def line():
    return redis.RedisConnections("test", PATIENCE)


@pytest.fixture
def deaf(settings):
    """A Redis that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        settings.REDIS_URL = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        yield server


def ping(line):
    try:
        with line.client() as client:
            return client.ping()
    except redis.Unavailable:
        return False


def test_a_redis_that_does_not_answer_costs_one_time_out_in_a_second(deaf, monkeypatch):
    monkeypatch.setattr(redis, "REST_SECONDS", PATIENCE)
    line = redis.RedisConnections("test", 0.2)
    began = time.monotonic()
    assert not any(ping(line) for _ in range(20))

    assert time.monotonic() - began < 3, "each by itself would be 4"


def test_after_the_rest_redis_is_asked_again(line, settings, monkeypatch, caplog):
    settings.REDIS_URL = NOBODY
    monkeypatch.setattr(redis, "REST_SECONDS", PATIENCE)
    assert not ping(line)
    with pytest.raises(redis.Unavailable, match="not asked again yet"), line.client():
        pass
    monkeypatch.setattr(line, "_rests_until", 0.0)
    with pytest.raises(redis.Unavailable, match="refused"), line.client() as client:
        client.ping()

    assert [record.message.partition(",")[0] for record in caplog.records] == ["Redis does not answer (test)"]


def test_while_one_asks_again_the_others_do_not_wait(line, settings, monkeypatch):
    settings.REDIS_URL = NOBODY
    assert not ping(line)
    monkeypatch.setattr(line, "_rests_until", 0.0)
    asked, is_answered = [], threading.Event()

    def ask():
        try:
            with line.client():
                asked.append(1)
                is_answered.wait(PATIENCE)
        except redis.Unavailable:
            pass

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_for(lambda: sum(thread.is_alive() for thread in threads) == 1, what="one asks")
    is_answered.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert asked == [1]


def test_a_redis_that_is_back_is_used_again(home, settings, line, caplog):
    caplog.set_level(logging.WARNING)
    server = embedded.Redis(home)
    settings.REDIS_URL = server.url()
    assert not ping(line)
    server.prepare()
    process = server.spawn(subprocess.DEVNULL)
    try:
        embedded.wait_ready(server, process)
        wait_for(lambda: ping(line), what="Redis answers again")
        embedded.stop(process, server.stop_signal)
        process = server.spawn(subprocess.DEVNULL)
        embedded.wait_ready(server, process)
        # A connection that the old server closed is not used.
        assert ping(line)
    finally:
        embedded.stop(process, server.stop_signal)
    assert caplog.messages[-1] == "Redis answers again (test)"


def test_a_redis_that_refuses_to_write_counts_as_unavailable(line):
    with pytest.raises(redis.Unavailable), line.client() as client:
        client.eval("return redis.error_reply('OOM command not allowed')", 0)


def test_a_child_of_a_process_that_is_asking_asks_for_itself():
    """The parent holds the lock of the one who asks again; the child must not wait for it for ever."""
    redis.quick._is_down = True
    assert redis.quick._trying.acquire(blocking=False)
    try:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, b"1" if ping(redis.quick) else b"0")
            os._exit(0)
        assert os.read(reading, 1) == b"1"
        os.waitpid(child, 0)
    finally:
        redis.quick.begin_anew()
