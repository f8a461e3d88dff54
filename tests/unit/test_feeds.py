"""A client's place in a job's events: what its last event's id remembers."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from agent_jobs.api import feeds
from agent_jobs.api.feeds import Feed

JOB = UUID("01930000-0000-7000-8000-0000000000aa")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def ids_in(frame: bytes) -> str:
    return next(line for line in frame.decode().splitlines() if line.startswith("id: ")).removeprefix("id: ")


def rows(*seconds: float) -> list[tuple[UUID, datetime]]:
    return [(uuid7(), NOON + timedelta(seconds=second)) for second in seconds]


def tell(feed: Feed, found: list[tuple[UUID, datetime]]) -> str:
    last = ""
    times = dict(found)
    for activity_id in feed.unseen(found):
        last = ids_in(feed.activity({"id": str(activity_id)}, activity_id, times[activity_id]))
    return last


def test_who_comes_back_is_told_what_was_not_told_in_whatever_order_it_appears() -> None:
    early, middle, late = rows(0, 1, 2)
    last_id = tell(Feed("acme", JOB), [early, late])

    again = Feed("acme", JOB, last_id)

    assert again.unseen([early, middle, late]) == [middle[0]]
    assert again.count == 2


def test_what_is_older_than_any_transaction_is_remembered_by_the_floor_alone() -> None:
    feed = Feed("acme", JOB)
    found = rows(0, 10, 1_000)

    last_id = tell(feed, found)

    assert feed.floor == found[2][1] - feeds.WINDOW
    assert feed.count == 1
    assert Feed("acme", JOB, last_id).floor == feed.floor
    assert len(last_id) < 40


def test_an_id_never_outgrows_a_header() -> None:
    feed = Feed("acme", JOB)

    last_id = tell(feed, found := rows(*(number / 1000 for number in range(3_000))))

    assert len(last_id) < 5_000
    assert Feed("acme", JOB, last_id).unseen([row for row in found if row[1] > feed.floor]) == []


def test_many_of_one_moment_are_all_told() -> None:
    feed = Feed("acme", JOB)
    found = rows(*[0] * 600)
    tell(feed, found[:450])

    assert feed.unseen([row for row in found if row[1] > feed.floor]) == [row[0] for row in found[450:]]


def test_the_end_is_remembered_until_something_happens_again() -> None:
    feed = Feed("acme", JOB)
    tell(feed, rows(0))
    assert not feed.knows_end

    again = Feed("acme", JOB, ids_in(feed.end({"job_status": "FAILED"})))
    assert again.knows_end
    tell(again, rows(5))
    assert not again.knows_end


@pytest.mark.parametrize("text", ["", "x", "AAAA", "ä", "\ud800", "A" * 8_000, "a b", "=", str(JOB)])
def test_what_is_no_id_is_refused(text: str) -> None:
    if not text:
        assert Feed("acme", JOB, text).floor == feeds.BEGINNING
        return
    with pytest.raises(ValueError, match="no id of this job"):
        Feed("acme", JOB, text)


def test_an_id_of_another_jobs_events_is_refused() -> None:
    last_id = tell(Feed("acme", UUID(int=JOB.int + 1)), rows(0))

    with pytest.raises(ValueError, match="no id of this job"):
        Feed("acme", JOB, last_id)


def test_no_text_of_an_activity_can_end_its_event_or_begin_another() -> None:
    frame = feeds.event("activity", {"note": "a\n\nevent: end\r\ndata: {}\r"})

    assert frame.count(b"\n\n") == 1
    assert b"\r" not in frame
    assert frame.decode().count("\nevent: ") == 0
