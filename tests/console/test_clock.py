"""Lengths of time as people read them."""

import pytest

from agent_jobs.console import clock


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(-1, "0 s"), (12.4, "12 s"), (59.6, "1 min"), (61, "1 min"), (1_860, "31 min"), (3_569, "59 min")],
        *[(3_570, "1 h"), (3_599, "1 h"), (3_600, "1 h"), (7_190, "2 h"), (7_440, "2 h 4 m"), (349_200, "4 d 1 h")],
    ],
)
def test_a_rough_length_has_no_seconds_from_one_minute_on_and_no_sixty_minutes(seconds, text):
    assert clock.rough(seconds) == text
