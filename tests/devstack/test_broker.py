"""The Celery application finds its broker again soon after an outage."""

import pytest
from kombu.exceptions import OperationalError

from config import embedded
from config.celery import app


@pytest.mark.parametrize("connect", [app.connection_for_read, app.connection_for_write], ids=["worker", "beat"])
def test_a_broker_that_is_away_is_looked_for_twice_a_second_however_long_it_takes(connect):
    pauses = []
    away = connect(f"redis://127.0.0.1:{embedded.free_port()}/0")

    # As Celery's consumer and beat do it, but for the end.
    with pytest.raises(OperationalError):
        away.ensure_connection(lambda error, pause: pauses.append(pause), max_retries=4)

    assert pauses == [0.5] * 4
