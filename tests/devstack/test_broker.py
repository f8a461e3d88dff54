"""The Celery application reaches its broker, and outlives the broker's troubles."""

import ssl
import subprocess
import sys
from contextlib import suppress

import pytest
from kombu import Connection, Consumer
from redis import Redis

from config import celery, embedded
from config.celery import app
from tests.waiting import PATIENCE, wait_for


def test_a_message_in_hand_when_the_broker_dies_does_not_end_the_worker(home):
    server = embedded.Redis(home)
    server.prepare()
    process = server.spawn()
    embedded.wait_ready(server, process)
    heard = []
    lost = app.connection_for_read(server.url())
    queue = app.amqp.queues["duties"]
    with Consumer(lost.default_channel, [queue], callbacks=[lambda body, message: heard.append(body)]):
        lost.SimpleQueue("duties").put("ding")
        lost.drain_events(timeout=PATIENCE)
        with pytest.raises(TimeoutError):
            lost.drain_events(timeout=0.2)  # and waits for the next one
        process.kill()
        process.wait(PATIENCE)

        # As Celery's consumer gives a lost connection up.
        with suppress(Exception):
            lost.collect()
        lost.close()

    assert heard == ["ding"]


def test_nothing_is_kept_in_redis_for_a_message_that_was_taken(home):
    server = embedded.Redis(home)
    server.prepare()
    process = server.spawn()
    try:
        embedded.wait_ready(server, process)
        taken = []
        with app.connection_for_read(server.url()) as connection:
            queue = app.amqp.queues["duties"]
            with Consumer(connection.default_channel, [queue], callbacks=[lambda _, message: taken.append(message)]):
                connection.SimpleQueue("duties").put("ding")
                connection.drain_events(timeout=PATIENCE)
            commands = Redis.from_url(server.url()).info("commandstats")
            taken[0].ack()
            left = [key for key in Redis.from_url(server.url()).scan_iter() if not key.startswith(b"_kombu.binding")]
    finally:
        embedded.stop(process, server.stop_signal)

    assert left == []
    assert "cmdstat_zadd" not in commands


@pytest.mark.parametrize(
    ("redis_url", "wanted"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://:p%40ss@redis:6379/3", "redis://:p%40ss@redis:6379/3"),
        ("rediss://:pw@redis:6379/3", "rediss://:pw@redis:6379/3?ssl_cert_reqs=required"),
        ("rediss://redis:6379/0?ssl_cert_reqs=none", "rediss://redis:6379/0?ssl_cert_reqs=none"),
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock?virtual_host=0"),
        ("unix://:pw@/run/redis.sock?db=3", "redis+socket://:pw@/run/redis.sock?virtual_host=3"),
    ],
)
def test_kombu_gets_the_address_of_redis_in_its_own_spelling(redis_url, wanted):
    assert celery.broker_url(redis_url) == wanted


def test_the_brokers_certificate_is_verified():
    assert Connection(celery.broker_url("rediss://redis:6379/0")).ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED}


def test_bells_and_workers_meet_over_a_socket(home, settings):
    """A password and a database number are in the address, too."""
    from infra import doorbell

    socket = home / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(socket), "--requirepass", "pw", "--save", ""]
    server = subprocess.Popen([embedded.Redis(home).program, *options], stdout=subprocess.DEVNULL)
    try:
        wait_for(socket.exists, what="the socket is there")
        settings.REDIS_URL = f"unix://:pw@{socket}?db=3"
        doorbell.ring("duties", "agent_jobs.sweep")
        heard = []
        with app.connection_for_read(celery.broker_url(settings.REDIS_URL)) as connection:
            queue = app.amqp.queues["duties"]
            with Consumer(connection, [queue], callbacks=[lambda _, message: heard.append(message.headers["task"])]):
                connection.drain_events(timeout=PATIENCE)
    finally:
        server.kill()
        server.wait(PATIENCE)
    assert heard == ["agent_jobs.sweep"]


def test_a_worker_gives_way_also_where_sessions_share_the_processors():
    lines = (
        "import os",
        "from pathlib import Path",
        "from config import celery",
        "celery.give_way(7)",
        "group = Path('/proc/self/autogroup')",
        "print(os.nice(0), group.read_text() if group.exists() else '')",
    )
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, start_new_session=True)
    niceness, _, group = done.stdout.strip().partition(" ")
    assert int(niceness) >= 7, done.stderr
    assert not group or group.endswith("nice 7")
