"""How long an agent waits for an answer before it follows up."""

from agent_jobs.turns import follow_ups


def test_the_silence_before_a_follow_up_doubles_twice() -> None:
    config = {"follow_up_interval": 10}
    waits = [follow_ups.seconds_of_silence(config, unanswered) for unanswered in range(5)]
    assert waits == [600, 1200, 2400, 2400, 2400]


def test_without_a_stated_interval_the_first_follow_up_comes_after_an_hour() -> None:
    assert follow_ups.seconds_of_silence({}, 0) == 3600
