"""The strict parsers accept and refuse texts; no HTTP is involved."""

from datetime import UTC, datetime

import pytest
from rest_framework.exceptions import ParseError

from agent_jobs.api import parsing
from agent_jobs.errors import Invalid


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-01-31T09:00:00Z", datetime(2026, 1, 31, 9, tzinfo=UTC)),
        ("2026-01-31t09:00:00z", datetime(2026, 1, 31, 9, tzinfo=UTC)),
        ("2026-01-31T09:00:00.5Z", datetime(2026, 1, 31, 9, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-01-31T09:00:00.123456789Z", datetime(2026, 1, 31, 9, 0, 0, 123_456, tzinfo=UTC)),
        ("2026-01-31T09:00:00+02:00", datetime(2026, 1, 31, 7, tzinfo=UTC)),
        ("2026-01-31T09:00:00-09:30", datetime(2026, 1, 31, 18, 30, tzinfo=UTC)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
    ],
)
def test_times_with_an_offset_and_plain_dates_are_read(text, at):
    assert parsing.moment(text) == at


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "now", "2026-01-31T09:00:00", "2026-01-31 09:00:00Z", "2026-01-31T09:00Z", "20260131"),
        *("2027-99-99", "2026-02-30", "2026-01-31T25:00:00Z", "2026-01-31T09:00:60Z", "2026-W05-1", "2026-031"),
        *("2026-01-31T09:00:00 02:00", "2026-01-31T09:00:00+99:99", "1769850000", "-0001-01-01", "0001-01-01"),
        *("9999-12-31", "9999-12-31T23:59:59-10:00", "0001-01-01T00:00:00+10:00", "２０２６-01-31", "2026-01-31\n"),
    ],
)
def test_any_other_time_is_refused(text):
    with pytest.raises(ValueError, match=r"must|calendar"):
        parsing.moment(text)


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"{", b"{'a': 1}", b'{"a": 1,}', b"[1 2]", b"// x\n{}", b"\xef\xbb\xbf{}", b'{"a": 01}', b'{"a": +1}'),
        *(b'{"a": "\x00"}', b'{"a": "\n"}', b"{}{}", b'{"a": "\xff"}', b'{"a": "\xed\xa0\x80"}', b"\xff\xfe{\x00}\x00"),
    ],
)
def test_what_is_not_json_in_utf_8_is_refused(raw):
    with pytest.raises(ParseError):
        parsing.read_json(raw)


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b'{"a": 1, "a": 2}', "a"),
        (b'{"outer": {"inner": 1, "inner": 1}}', "inner"),
        (b'{"a": NaN}', "body"),
        (b'{"a": -Infinity}', "body"),
        (b'{"a": 1e999}', "body"),
        (b'{"a": 9007199254740993}', "body"),
        (b'{"a": -9007199254740993}', "body"),
        (b'{"a": 1e17}', "body"),
        (b'{"a": ' + b"9" * 4_000 + b"}", "body"),
        (b'{"a": "x\\u0000y"}', "a"),
        (b'{"a": [1, {"b": "\\ud800"}]}', "a.1.b"),
        (b'{"a": {"\\u0000": 1}}', "a"),
        (b'{"\\udc00": 1}', "body"),
        (b'{"a": "\\ude00\\ud83d"}', "a"),
        (b"[" * 33 + b"]" * 33, "body"),
        (b"[" * 10_000, "body"),
        (b'{"a":' * 100_000, "body"),
    ],
)
def test_json_that_cannot_be_kept_is_refused_and_named(raw, field):
    with pytest.raises(Invalid) as refused:
        parsing.read_json(raw)

    assert [error.field for error in refused.value.errors] == [field]


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"{}", {}),
        (b' {"a": [1, -2.5, true, null, "\xc3\xa9"]} ', {"a": [1, -2.5, True, None, "é"]}),
        (b'{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
        (b'{"a": 9007199254740992}', {"a": 2**53}),
        (b"[" * 32 + b"]" * 32, eval("[" * 32 + "]" * 32)),
        (b'{"a": "' + b"[{" * 500 + b'\\"["}', {"a": "[{" * 500 + '"['}),
    ],
)
def test_plain_json_is_read(raw, value):
    assert parsing.read_json(raw) == value


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.0", " 1", "1_000", "٣", "1e3", "0x1", "10" * 10, "4000", "1\n"])
def test_whole_numbers_in_queries_are_plain_digits_in_range(text):
    with pytest.raises(ValueError, match="whole number from 0 to 1000"):
        parsing.whole(0, 1_000).parse(text)


@pytest.mark.parametrize(("name", "hint"), [("job_ids", "; did you mean job_id?"), ("x" * 300, ""), ("sort", "")])
def test_an_unknown_parameter_is_told_of_one_that_it_resembles(name, hint):
    known = {"job_id": parsing.text(), "limit": parsing.whole(1, 100)}
    _, (problem,) = parsing.gather([(name, "1")], known)
    assert problem.code == "unknown_parameter"
    assert problem.message == f"is not a parameter of this request{hint}"


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-26", "2026-11-26T23:59:59.999999+00:00"),
        ("2024-02-29", "2024-02-29T23:59:59.999999+00:00"),
        ("2026-11-26T00:00:00Z", "2026-11-26T00:00:00+00:00"),
        ("2026-11-26T00:00:00+01:00", "2026-11-25T23:00:00+00:00"),
    ],
)
def test_a_plain_date_that_bounds_from_above_is_the_end_of_its_day(text, at):
    assert parsing.until(text).isoformat() == at
