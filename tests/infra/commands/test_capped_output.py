"""An output is kept by its head and its tail, in whole characters."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.commands import CappedOutput, cap_text
from infra.commands.capped_output import MIN_BYTES

# Pieces that mix whole characters of each length with broken ones.
PIECES = st.sampled_from(
    [b"a", "é".encode(), "€".encode(), "😀".encode(), b"\x00", b"\xff", b"\xe2\x82", b"\x80", b"\n"]
)
OUTPUTS = st.lists(PIECES, max_size=700).map(b"".join)


def test_a_short_output_is_kept_as_it_is() -> None:
    kept = cap_text("grüße 😀\n", 256)
    assert (kept.text, kept.total_bytes, kept.is_truncated) == ("grüße 😀\n", 13, False)


def test_an_output_of_exactly_the_limit_is_kept_whole() -> None:
    assert cap_text(b"x" * 999, 999).text == "x" * 999
    assert cap_text(b"x" * 1_000, 999).is_truncated


def test_a_long_output_keeps_its_head_and_its_tail_and_says_how_much_is_left_out() -> None:
    source = "".join(f"line {number}\n" for number in range(10_000))
    kept = cap_text(source, 1_000)
    head, marker, tail = kept.text.partition("\n[")
    left_out, _, tail = tail.partition(" bytes left out]\n")
    assert marker
    assert source.startswith(head)
    assert source.endswith(tail)
    assert len(head) + int(left_out) + len(tail) == len(source) == kept.total_bytes
    assert min(len(head), len(tail)) > 400


@given(OUTPUTS, st.integers(MIN_BYTES, 1_500))
def test_no_output_exceeds_its_limit_or_cuts_a_character(source: bytes, max_bytes: int) -> None:
    kept = cap_text(source, max_bytes)
    assert len(kept.text.encode()) <= max_bytes
    assert "\x00" not in kept.text
    assert kept.total_bytes == len(source)
    if not kept.is_truncated:
        assert kept.text == source.decode("utf-8", "replace").replace("\x00", "\ufffd")


@given(st.text(alphabet="aé€😀", min_size=400, max_size=900), st.integers(MIN_BYTES, 500))
def test_valid_text_never_gains_a_replacement_character(source: str, max_bytes: int) -> None:
    kept = cap_text(source, max_bytes).text
    assert "\ufffd" not in kept
    head, _, rest = kept.partition("\n[")
    if rest:
        left_out, _, tail = rest.partition(" bytes left out]\n")
        assert source.startswith(head)
        assert source.endswith(tail)
        assert len(head.encode()) + int(left_out) + len(tail.encode()) == len(source.encode())


@given(OUTPUTS, st.lists(st.integers(1, 300), min_size=1, max_size=5), st.integers(MIN_BYTES, 700))
def test_the_size_of_the_pieces_does_not_matter(source: bytes, sizes: list[int], max_bytes: int) -> None:
    output, at, turn = CappedOutput(max_bytes), 0, 0
    while at < len(source):
        size = sizes[turn % len(sizes)]
        output.add(source[at : at + size])
        at, turn = at + size, turn + 1
    assert output.result() == cap_text(source, max_bytes)


def test_nul_and_broken_utf8_are_replaced() -> None:
    assert cap_text(b"a\x00b\xffc\xe2\x82", 256).text == "a\ufffdb\ufffdc\ufffd"
    assert cap_text("lone \ud800 surrogate", 256).text.startswith("lone \ufffd")


def test_broken_bytes_that_grow_when_replaced_still_fit() -> None:
    kept = cap_text(b"\xff" * 1_000, 1_000)
    assert kept.is_truncated
    assert len(kept.text.encode()) <= 1_000


def test_memory_stays_bounded_while_an_output_goes_on() -> None:
    output, chunk = CappedOutput(100_000), b"x" * 65_536
    tracemalloc.start()
    try:
        for _ in range(2_000):
            output.add(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert output.total_bytes == 2_000 * 65_536
    assert peak < 600_000


def test_a_limit_without_room_for_the_marker_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 256"):
        cap_text("", 10)
