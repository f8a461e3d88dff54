"""A conversation that is longer than a model's window is cut by rule, and it is told by how much."""

from dataclasses import replace

import pytest

from agent_jobs import llm
from agent_jobs.llm import context

PLAIN = llm.Turn(instructions="Be kind.", goal="Ask Ann.")


def talk(count: int, size: int = 300) -> llm.Turn:
    """The agent begins, Ann answers, and so on; each line says its number."""
    lines = [
        llm.Line("Ann" if number % 2 else "agent", f"{number} ".ljust(size, "x"), bool(number % 2))
        for number in range(count)
    ]
    return replace(PLAIN, lines=tuple(lines))


def size_of(turn: llm.Turn) -> int:
    texts = [turn.instructions, turn.goal, *(line.text for line in turn.lines)]
    texts += [answer for step in turn.steps for answer in step.answers.values()]
    return sum(map(context.estimate, texts))


def numbers(turn: llm.Turn) -> list[str]:
    return [line.text.split(" ")[0] for line in turn.lines]


def test_what_fits_stays_as_it_is() -> None:
    assert context.cut(talk(10), 10_000) == (talk(10), 0)
    assert context.cut(PLAIN, 1_000) == (PLAIN, 0)


def test_the_middle_is_left_out_and_told() -> None:
    turn, left_out = context.cut(talk(100), 1_300)
    assert (turn.instructions, turn.goal) == (PLAIN.instructions, PLAIN.goal)
    first, note, *newest = turn.lines
    assert (first.text[:2], first.is_human) == ("1 ", True)
    assert note == llm.Line("", f"[… {left_out} earlier messages left out …]", False)
    assert [line.text.split(" ")[0] for line in newest] == [str(n) for n in range(100 - len(newest), 100)]
    assert left_out == 100 - 1 - len(newest)
    assert len(newest) >= 5
    assert size_of(turn) <= 1_300


@pytest.mark.parametrize("tokens", [1_000, 1_500, 3_000, 10_000, 50_000])
@pytest.mark.parametrize("count", [1, 2, 3, 50, 500])
@pytest.mark.parametrize("size", [10, 300, 40_000])
def test_no_conversation_is_longer_than_asked_and_the_newest_line_is_always_there(
    tokens: int, count: int, size: int
) -> None:
    asked = talk(count, size)
    turn, left_out = context.cut(asked, tokens)
    assert size_of(turn) <= tokens
    assert turn.lines[-1].text[:20] == asked.lines[-1].text[:20]
    shown = [line for line in turn.lines if not line.text.startswith("[… ")]
    assert len(shown) + left_out == count


def test_a_single_huge_line_keeps_its_beginning_and_its_end() -> None:
    huge = llm.Line("Ann", "begin " + "x" * 3_000_000 + " end", True)
    turn, left_out = context.cut(replace(PLAIN, lines=(huge,)), 1_000)
    assert left_out == 0
    (line,) = turn.lines
    assert line.text.startswith("begin ")
    assert line.text.endswith(" end")
    assert "characters left out …]" in line.text
    assert size_of(turn) <= 1_000


def test_letters_of_several_bytes_are_not_torn() -> None:
    turn, _ = context.cut(replace(PLAIN, lines=(llm.Line("Ann", "жшщ漢😀" * 50_000, True),)), 1_000)
    assert "�" not in turn.lines[0].text
    assert set(turn.lines[0].text) <= set("жшщ漢😀[… characters left out …]0123456789,")
    assert size_of(turn) <= 1_000


def test_a_lone_surrogate_breaks_nothing() -> None:
    assert context.cut(replace(PLAIN, lines=(llm.Line("Ann", "\ud800" * 9_000, True),)), 1_000)[1] == 0


def test_long_answers_of_tools_are_shortened_and_no_call_is_lost() -> None:
    calls = tuple(llm.ToolCall(f"c{n}", "fetch", {"n": n}) for n in range(4))
    steps = tuple(llm.ModelStep((call,), {call.id: f"{call.id} " + "y" * 90_000}) for call in calls)
    turn, left_out = context.cut(replace(talk(3), steps=steps), 2_000)
    assert [step.calls for step in turn.steps] == [step.calls for step in steps]
    assert all(step.answers[step.calls[0].id].startswith(step.calls[0].id) for step in turn.steps)
    assert left_out == 0
    assert size_of(turn) <= 2_000


def test_a_conversation_in_which_nobody_wrote_yet_keeps_its_newest() -> None:
    lines = tuple(llm.Line("agent", f"{n} ".ljust(600, "x"), False) for n in range(50))
    turn, left_out = context.cut(replace(PLAIN, lines=lines), 1_000)
    assert turn.lines[0].text == f"[… {left_out} earlier messages left out …]"
    assert numbers(turn)[-1] == "49"


def test_instructions_that_take_all_there_is_leave_the_newest_words() -> None:
    turn, left_out = context.cut(replace(talk(20), instructions="z" * 30_000), 5_000)
    assert turn.instructions == "z" * 30_000
    assert numbers(turn)[-1] == "19"
    assert left_out == 19 - (len(turn.lines) - 2)
