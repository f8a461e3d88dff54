"""How an expression is said in English."""

import pytest

from agent_jobs import recurrence


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("30 2 * * *", "At 02:30 every day, UTC"),
        ("15 30 2 * * *", "At 02:30:15 every day, UTC"),
        ("5 1-3 * * *", "At 01:05, 02:05 and 03:05 every day, UTC"),
        ("CRON_TZ=europe/berlin 0 9 * * 1-5", "At 09:00 on Monday to Friday, Europe/Berlin time"),
        ("* * * * *", "Every minute, UTC"),
        ("* * * * * *", "Every second, UTC"),
        ("@hourly", "Every hour, UTC"),
        ("*/15 * * * *", "Every 15 minutes, UTC"),
        ("*/7 * * * *", "At minutes 0, 7, 14, 21, 28, 35, 42, 49 and 56 of every hour, UTC"),
        ("10,40 * * * *", "At minutes 10 and 40 of every hour, UTC"),
        ("30 * * * * *", "At second 30 of every minute, UTC"),
        ("*/10 * * * * *", "Every 10 seconds, UTC"),
        ("*/10 */15 * * * *", "Every 10 seconds of every 15 minutes, UTC"),
        ("0 */2 * * *", "Every 2 hours every day, UTC"),
        ("30 */2 * * *", "At minute 30 of every 2 hours every day, UTC"),
        ("*/15 9-17 * * mon-fri", "Every 15 minutes of hours 9 to 17 on Monday to Friday, UTC"),
        ("0 9-17 * * *", "At minute 0 of hours 9 to 17 every day, UTC"),
        ("0 0 * * fri-sun", "At 00:00 on Friday to Sunday, UTC"),
        ("0 0 * * 0,3", "At 00:00 on Sunday and Wednesday, UTC"),
        ("0 0 1,15 * *", "At 00:00 on days 1 and 15 of the month, UTC"),
        ("0 0 13 * 5", "At 00:00 on day 13 of the month or on Friday, UTC"),
        ("0 0 */10 * 1", "At 00:00 on days 1, 11, 21 and 31 of the month, if it is Monday, UTC"),
        ("0 0 L * *", "At 00:00 on the last day of the month, UTC"),
        ("0 0 LW * *", "At 00:00 on the last working day (Monday to Friday) of the month, UTC"),
        ("0 0 * * 5L", "At 00:00 on the last Friday of the month, UTC"),
        ("0 0 * * mon#2", "At 00:00 on the second Monday of the month, UTC"),
        ("0 0 29 2 *", "At 00:00 on day 29 of the month in February, UTC"),
        ("0 0 * jan,mar-may 7", "At 00:00 on Sunday in January and March to May, UTC"),
        ("@every 90s", "Every 1 minute 30 seconds"),
        ("@every 1h", "Every hour"),
        ("@every 48h", "Every 2 days"),
    ],
)
def test_an_expression_is_said_in_plain_english(expression: str, said: str) -> None:
    assert recurrence.parse(expression).describe() == said
