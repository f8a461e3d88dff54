"""Reads a model's answer. Repairs it where the meaning is clear; otherwise a `Slip` says what is wrong.

`reply` reads a provider's answer. `sound` makes any reply safe for the database; every answer of every model passes
through it (`llm.answer`). Knows no provider's package.
"""

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import chain, count
from typing import Any

from agent_jobs.llm import text_tool_calls
from agent_jobs.llm.base import RESPOND, Reply, Slip, ToolCall, Usage
from agent_jobs.llm.text_tool_calls import Misread, TextToolCall
from infra.storable_text import storable

INVALID = "model_answer_invalid"
OUTPUT_CUT = "model_output_cut"
REFUSED = "model_refused"
CONTEXT_TOO_LONG = "context_too_long"
MAX_CALLS = 32
# The API accepts 32 levels from clients. Some hundred levels break JSON encoders.
MAX_DEPTH = 64
# 10**400 fits, which is enough for any sum. Python converts at most 4,300 digits.
_MAX_BITS = 4_000
_MAX_EXCERPT = 300
_MAX_REFUSAL = 1_000
# Models without tools end the job by this word alone on the last line.
DONE = "DONE"
# The strictest provider's rule for ids and names of calls, because one model's calls are shown to another.
_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")
_NOT_OF_A_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_CALL_AGAIN = "Call it again with sound JSON."
# Thoughts whose opening tag stands in the prompt; the providers' packages drop those with both tags.
_THOUGHTS = re.compile(r"\A(?:(?!<think|`).)*</think(?:ing)?>", re.DOTALL)


class Stop(StrEnum):
    """The reason why the model stopped."""

    END = "end"
    CUT = "cut"  # at the limit of its output
    FULL = "full"  # its context window was full
    REFUSED = "refused"  # by the model or a filter
    PAUSED = "paused"
    MALFORMED = "malformed"  # the provider itself could not read what the model wrote


@dataclass(frozen=True, slots=True)
class ProviderAnswer:
    """One answer from a provider. `finish` is the provider's word for `stop`."""

    text: str = ""
    calls: tuple[TextToolCall, ...] = ()
    stop: Stop = Stop.END
    finish: str = ""
    refusal: str = ""
    usage: Usage = field(default_factory=Usage)
    model: str = ""
    max_output_tokens: int = 0


def reply(answer: ProviderAnswer, *, offered: Collection[str] = ()) -> Reply:
    """Read an answer. `offered` are the names of the tools that the model may call beside `respond`."""
    about = Reply(usage=answer.usage, model=answer.model, finish=answer.finish)
    text = _THOUGHTS.sub("", answer.text).strip()
    if slip := _stopped(answer, text):
        return replace(about, slip=slip)
    if answer.stop == Stop.PAUSED:
        return replace(about, text=text, is_paused=True)
    try:
        calls = answer.calls or text_tool_calls.calls(text, {RESPOND, *offered})
        if not calls:
            return _spoken(about, text)
        return _called(about, "" if calls is not answer.calls else text, calls)
    except Misread as error:
        return replace(about, slip=Slip(INVALID, str(error), error.mend))


def sound(reply: Reply) -> Reply:
    """The reply, safe for the database: without NUL characters and lone surrogates, with unique call ids, and with at
    most `MAX_CALLS` calls. A reply with a value that is not JSON is replaced by one that has only a `Slip`: the answer
    is rejected.
    """
    values = [(f"the arguments of {call.name[:64]}", call.arguments) for call in reply.calls]
    values.append(("the parts of result_data", reply.result_data))
    slip = reply.slip
    if misfits := [f"{what} {why}" for what, value in values if (why := unfit(value))]:
        slip = slip or Slip(INVALID, misfits[0])
        reply = replace(reply, calls=(), result_data=None)
    note = reply.note
    if len(reply.calls) > MAX_CALLS:
        note = f"{note} Only the first {MAX_CALLS} of your {len(reply.calls):,} calls were made.".strip()
    return replace(
        reply,
        text=storable(reply.text).strip(),
        before=tuple(filter(None, (storable(text).strip() for text in reply.before))),
        result=storable(reply.result),
        result_data=storable(reply.result_data),
        calls=_told_apart(reply.calls[:MAX_CALLS]),
        model=storable(reply.model),
        finish=storable(reply.finish)[:64],
        note=storable(note),
        slip=slip and replace(slip, what=storable(slip.what), mend=storable(slip.mend)),
    )


# --- Why it stopped --------------------------------------------------------------------------------------------
def _stopped(answer: ProviderAnswer, text: str) -> Slip | None:
    match answer.stop:
        case Stop.CUT:
            limit = f"the answer was cut off at max_output_tokens, {answer.max_output_tokens:,}"
            began = f", after {_excerpt(text)}" if text else ""
            return Slip(OUTPUT_CUT, f"{limit}{began}", "Answer again, and keep it much shorter.")
        case Stop.FULL:
            return Slip(CONTEXT_TOO_LONG, "the model's context window was full before its answer was complete")
        case Stop.REFUSED:
            words = (answer.refusal or text).strip()[:_MAX_REFUSAL]
            how = f"the model refused: {words}" if words else f"the model refused without a word ({answer.finish})"
            return Slip(REFUSED, how, "", is_final=True)
        case Stop.MALFORMED:
            return Slip(INVALID, f"the provider could not read what you called ({answer.finish})")
    return None


# --- What it wants ---------------------------------------------------------------------------------------------
def _spoken(about: Reply, text: str) -> Reply:
    """Read an answer without a call."""
    if not text:
        raise Misread("the answer was empty", f"Call {RESPOND}, or another tool.")
    first, _, last = text.rpartition("\n")
    if last.strip() == DONE:
        text = first.strip()
        return replace(about, text=text, is_done=True, result=text)
    return replace(about, text=text)


def _called(about: Reply, text: str, calls: Sequence[TextToolCall]) -> Reply:
    tools = tuple(ToolCall(call.id, call.name, _arguments(call)) for call in calls if call.name != RESPOND)
    responses = [_response(_arguments(call)) for call in calls if call.name == RESPOND]
    said = [response.say for response in responses if response.say]
    if tools:
        said = [text, *said] if text and text not in said else said
        note = f"What you gave to {RESPOND} beside other tools has been said. Look at their answers and go on."
        return replace(about, before=tuple(said), calls=tools, note=note if responses else "")
    said = said or [text]
    *before, last = said
    results = [response for response in responses if response.result or response.data is not None]
    ended = results[-1] if results else responses[-1]
    return replace(
        about,
        before=tuple(before),
        text=last,
        is_done=responses[-1].is_done,
        result=ended.result or last,
        result_data=ended.data,
    )


@dataclass(frozen=True, slots=True)
class _Response:
    """The arguments of one call of `respond`."""

    say: str
    is_done: bool
    result: str
    data: Any


def _response(given: Mapping[str, Any]) -> _Response:
    """The arguments of a call of RESPOND. Null counts as a missing field. Raises Misread if one has the wrong form."""
    texts = {}
    for name in ("say", "result"):
        value = given.get(name)
        if not isinstance(value, str | None):
            raise Misread(f"{name} of {RESPOND} has to be a text, and was {_excerpt(value)}", f"Call {RESPOND} again.")
        texts[name] = (value or "").strip()
    following = given.get("next")
    word = following.strip().lower() if isinstance(following, str) else following
    if word not in ("wait", "done"):
        was = "was missing" if following is None else f"was {_excerpt(following)}"
        raise Misread(f'next of {RESPOND} has to be "wait" or "done", and {was}', f"Call {RESPOND} again.")
    return _Response(texts["say"], word == "done", texts["result"], given.get("result_data"))


def _arguments(call: TextToolCall) -> dict[str, Any]:
    """The arguments of a call as an object. Raises Misread, which names the tool."""
    try:
        return text_tool_calls.object_of(call.arguments)
    except Misread as error:
        raise Misread(f"the arguments of {call.name[:64]} {error}", _CALL_AGAIN) from None


# --- What the database holds -----------------------------------------------------------------------------------
def unfit(value: Any) -> str:
    """Why a value cannot be stored as JSON, within a sentence; empty if it can. Not recursive: it may be deep."""
    for item, depth in _items(value):
        if depth > MAX_DEPTH:
            return f"are nested more than {MAX_DEPTH} levels deep"
        match item:
            case float() if not math.isfinite(item):
                return "hold a number that JSON does not have (NaN, Infinity, or one too large)"
            case int() if item.bit_length() > _MAX_BITS:
                return "hold a number with too many digits"
            case None | bool() | int() | float() | str() | Mapping() | list() | tuple():
                continue
        return f"hold a {type(item).__name__}, which is not JSON"
    return ""


def _items(value: Any) -> Iterator[tuple[Any, int]]:
    waiting = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        yield item, depth
        if isinstance(item, Mapping):
            waiting += [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list | tuple):
            waiting += [(inner, depth + 1) for inner in item]


def _told_apart(calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
    """Gives each call a unique id, even if the model used one twice, and a name that every provider accepts."""
    taken: set[str] = set()
    named = []
    for number, call in enumerate(calls, start=1):
        wanted = call.id if _ID.fullmatch(call.id) else f"call_{number}"
        names = chain([wanted], (f"{wanted[:32]}_{again}" for again in count(2)))
        name = next(name for name in names if name not in taken)
        taken.add(name)
        tool = _NOT_OF_A_NAME.sub("_", call.name)[:64] or "_"
        named.append(ToolCall(name, tool, storable(call.arguments)))
    return tuple(named)


def _excerpt(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= _MAX_EXCERPT else f"{text[:_MAX_EXCERPT]}…"
