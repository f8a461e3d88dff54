"""The Celery application outlives its broker's troubles, and finds it again soon."""

from contextlib import suppress

import pytest
from kombu import Consumer
from kombu.exceptions import OperationalError

from config import embedded
from config.celery import app
from tests.waiting import PATIENCE


@pytest.mark.parametrize("connect", [app.connection_for_read, app.connection_for_write], ids=["worker", "beat"])
def test_a_broker_that_is_away_is_looked_for_twice_a_second_however_long_it_takes(connect):
    pauses = []
    away = connect(f"redis://127.0.0.1:{embedded.free_port()}/0")

    # As Celery's consumer and beat do it, but for the end.
    with pytest.raises(OperationalError):
        away.ensure_connection(lambda error, pause: pauses.append(pause), max_retries=4)

    assert pauses == [0.5] * 4


def test_a_bell_that_was_in_hand_when_the_broker_died_ends_no_worker(home):
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
