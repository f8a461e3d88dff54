"""Cuts a conversation to a model's context: keeps instructions, goal and tools, and drops the middle of the talk.

It keeps the first line that a person wrote (it says what the talk is about) and the newest lines. Tokens are estimated
as bytes divided by three, which is too high, and so safe, for most languages. Exact counts would need the provider. The
limit is `Access.context_tokens`, which a profile may set.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from agent_jobs.llm.base import Line, ModelStep, Turn

BYTES_PER_TOKEN = 3
# Allowance per line, for the names, quotes and roles around it.
_LINE_TOKENS = 12
# The smallest size of a shortened line or tool result, even where the newest does not fit.
_LEAST_BYTES = 300
_SHORTENED = "[… {count:,} characters left out …]"
_LEFT_OUT = "[… {count} earlier messages left out …]"


def cut(turn: Turn, tokens: int) -> tuple[Turn, int]:
    """The turn with at most `tokens` of context, and the number of lines that were dropped.

    If the fixed parts take all the room, the newest line still stays, shortened.
    """
    room = tokens - _fixed(turn)
    steps = turn.steps
    if (taken := sum(map(_tokens_of_step, steps))) > room // 2:
        steps = _shortened_steps(steps, room // 2)
        taken = sum(map(_tokens_of_step, steps))
    lines, left_out = _fitting(turn.lines, room - taken)
    if not left_out and lines == turn.lines and steps == turn.steps:
        return turn, 0
    return replace(turn, lines=lines, steps=steps), left_out


def size(turn: Turn) -> int:
    """Estimated tokens of the turn."""
    return _fixed(turn) + sum(map(_tokens_of_step, turn.steps)) + sum(map(_tokens_of, turn.lines))


def estimate(text: str) -> int:
    return -(-len(text.encode(errors="replace")) // BYTES_PER_TOKEN)


def _fixed(turn: Turn) -> int:
    """Tokens of the parts that are never cut."""
    tools = [(tool.name, tool.description, dict(tool.parameters)) for tool in turn.tools]
    told = json.dumps([tools, dict(turn.result_schema or {})], ensure_ascii=False, default=str)
    return sum(map(estimate, (turn.instructions, turn.goal, told)))


def _tokens_of(line: Line) -> int:
    return _LINE_TOKENS + estimate(line.author) + estimate(line.text)


def _fitting(lines: tuple[Line, ...], room: int) -> tuple[tuple[Line, ...], int]:
    """The first human line, a note of how many lines are left out, and as many of the newest as fit."""
    if sum(map(_tokens_of, lines)) <= room:
        return lines, 0
    room -= _LINE_TOKENS + estimate(_LEFT_OUT.format(count=len(lines)))
    # No single line takes more than half of the room.
    lines = tuple(_shortened_line(line, room // 2) for line in lines)
    first = next((number for number, line in enumerate(lines) if line.is_human), None)
    kept: list[int] = []
    if first is not None and _tokens_of(lines[first]) <= room // 2:
        kept.append(first)
        room -= _tokens_of(lines[first])
    newest: list[int] = []
    for number in range(len(lines) - 1, -1, -1):
        if number in kept:
            continue
        size = _tokens_of(lines[number])
        if newest and size > room:
            break
        newest.append(number)
        room -= size
    kept = sorted({*kept, *newest})
    left_out = len(lines) - len(kept)
    shown = [lines[number] for number in kept]
    if left_out:
        shown.insert(len(kept) - len(newest), Line("", _LEFT_OUT.format(count=left_out), is_human=False))
    return tuple(shown), left_out


def _shortened_line(line: Line, room: int) -> Line:
    most = max((room - _LINE_TOKENS - estimate(line.author)) * BYTES_PER_TOKEN, _LEAST_BYTES)
    text = _shortened(line.text, most)
    return line if text == line.text else replace(line, text=text)


def _shortened_steps(steps: Sequence[ModelStep], room: int) -> tuple[ModelStep, ...]:
    """Keeps every call, because providers refuse a result without its call. Shortens long results, all to one size."""
    count = sum(len(step.calls) for step in steps)
    asked = sum(_tokens_of_step(replace(step, answers={})) for step in steps)
    most = max((room - asked) * BYTES_PER_TOKEN // max(count, 1), _LEAST_BYTES)

    def answers_of(step: ModelStep) -> Mapping[str, str]:
        return {call: _shortened(answer, most) for call, answer in step.answers.items()}

    return tuple(replace(step, answers=answers_of(step)) for step in steps)


def _tokens_of_step(step: ModelStep) -> int:
    asked = json.dumps([(call.id, call.name, dict(call.arguments)) for call in step.calls], default=str)
    texts = (asked, step.text, step.note, *step.answers.values())
    return _LINE_TOKENS * len(step.calls) + sum(map(estimate, texts))


def _shortened(text: str, most_bytes: int) -> str:
    """The beginning and end of a text that is longer than `most_bytes`."""
    raw = text.encode(errors="replace")
    if len(raw) <= most_bytes:
        return text
    half = max(most_bytes - len(_SHORTENED.format(count=len(text)).encode()), 2) // 2
    begin, end = raw[:half].decode(errors="ignore"), raw[-half:].decode(errors="ignore")
    return begin + _SHORTENED.format(count=len(text) - len(begin) - len(end)) + end
