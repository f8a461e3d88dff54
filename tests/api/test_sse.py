"""The wire format of a job's events."""

import json

import pytest

from agent_jobs.api import sse


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("1", 1), ("007", 7), ("999999999", 999_999_999)])
def test_an_id_is_a_whole_number(text: str, number: int) -> None:
    assert sse.read_id(text) == number


@pytest.mark.parametrize("text", ["", "x", "-1", "+1", "1.0", " 1", "1_0", "\u0661", "\ud800", "1" * 18, "AAAA"])
def test_any_other_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a whole number"):
        sse.read_id(text)


@pytest.mark.parametrize("breaks", ["\n\nevent: end\r\ndata: {}\r", "\u2028", "\u2029", "\x85", "\v\f\x1c\x1d\x1e"])
def test_no_text_of_an_activity_breaks_its_line(breaks: str) -> None:
    frame = sse.event("activity", {"note": f"a{breaks}b"}, number=7).decode()

    lines = frame.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["id", "event", "data", ""]
    assert json.loads(lines[2].removeprefix("data: ")) == {"note": f"a{breaks}b"}
