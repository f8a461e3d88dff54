"""Every answer of a model becomes a reply that the database can hold, or a slip that says what is wrong."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent_jobs import llm
from agent_jobs.llm import answer_parsing
from agent_jobs.llm.answer_parsing import ProviderAnswer, Stop
from agent_jobs.llm.text_tool_calls import TextToolCall
from infra import prepared_sql

OFFERED = ("find", "send_message")


def read(answer: ProviderAnswer) -> llm.Reply:
    return answer_parsing.sound(answer_parsing.reply(answer, offered=OFFERED))


def responds(**arguments: Any) -> TextToolCall:
    return TextToolCall("c1", "respond", json.dumps(arguments))


def test_the_last_next_and_the_last_result_count() -> None:
    calls = (responds(say="A", next="done", result="r", result_data={"a": 1}), responds(say="B", next="wait"))
    reply = read(ProviderAnswer(calls=calls))
    assert (reply.say, reply.is_done, reply.result, reply.result_data) == (("A", "B"), False, "r", {"a": 1})


def test_the_text_beside_words_for_people_is_the_models_own() -> None:
    assert read(ProviderAnswer(text="I greet Ann.", calls=(responds(say="Hi Ann", next="wait"),))).say == ("Hi Ann",)


@pytest.mark.parametrize(
    ("text", "is_done", "words"),
    [
        ("Bye.\nDONE", True, ("Bye.",)),
        ("Bye.\n\n DONE \n", True, ("Bye.",)),
        ("DONE", True, ()),
        ("We are DONE", False, ("We are DONE",)),
        ("DONE\nand more", False, ("DONE\nand more",)),
        ("Bye.\ndone", False, ("Bye.\ndone",)),
    ],
)
def test_a_last_line_of_its_own_ends_the_job(text: str, is_done: bool, words: tuple[str, ...]) -> None:
    reply = read(ProviderAnswer(text=text))
    assert (reply.is_done, reply.say) == (is_done, words)


@pytest.mark.parametrize(
    "ids",
    [
        ["a", "a", "a"],
        ["", "", ""],
        ["a_2", "a", "a"],
        ["x" * 500] * 3,
        ["a b", "ü", "\x00"],
        ["call_2", "?", "call_2"],
    ],
    ids=str,
)
def test_every_call_has_an_id_of_its_own(ids: list[str]) -> None:
    reply = read(ProviderAnswer(calls=tuple(TextToolCall(id, "find", "{}") for id in ids)))
    assert len({call.id for call in reply.calls}) == 3
    assert all(answer_parsing._ID.fullmatch(call.id) for call in reply.calls)


def test_a_name_that_no_provider_takes_in_a_history_is_mended() -> None:
    (call,) = read(ProviderAnswer(calls=(TextToolCall("c1", "calendar list!\x00" + "x" * 99, "{}"),))).calls
    assert len(call.name) <= 64
    assert call.name.startswith("calendar_list_")


texts = st.text(st.characters(codec=None), max_size=30) | st.sampled_from(
    ["", " \n", "\x00", "\ud83d", "DONE", "```json\n{}\n```", "<tool_call>", '{"say":"a","next":"wait"}', "[1]", "{"]
)
numbers = st.floats() | st.integers() | st.sampled_from([10**400, 10**4_000])
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
arguments = st.one_of(
    st.none(),
    texts,
    st.dictionaries(st.sampled_from(["say", "next", "result", "result_data", "id"]), values),
    st.fixed_dictionaries({"say": texts, "next": st.sampled_from(["wait", "done", "WAIT"]), "result_data": values}),
)
calls = st.lists(
    st.builds(TextToolCall, texts, st.sampled_from(["respond", "find", "?"]) | texts, arguments), max_size=4
)


@pytest.mark.django_db
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.builds(
        ProviderAnswer, text=texts, calls=calls.map(tuple), stop=st.sampled_from(Stop), finish=texts, refusal=texts
    )
)
@example(ProviderAnswer(calls=(responds(say="a", next="done", result_data=float("nan")),)))
@example(ProviderAnswer(calls=(TextToolCall("c", "find", {"a": float("inf")}),)))
def test_the_database_holds_every_reply(answer: ProviderAnswer) -> None:
    reply = read(answer)
    record = json.dumps(asdict(reply), allow_nan=False)
    assert prepared_sql.first("SELECT %(record)s::jsonb", {"record": record}) is not None
    assert reply.slip or reply.is_paused or reply.calls or reply.say or reply.is_done or not reply.text
    assert all(word.strip() for word in reply.say)


@settings(max_examples=100, deadline=None)
@given(values)
def test_what_is_called_fit_is_JSON_that_comes_back_the_same(value: Any) -> None:
    reply = answer_parsing.sound(llm.Reply(result_data=value))
    if reply.slip is None:
        assert json.loads(json.dumps(reply.result_data, allow_nan=False)) == reply.result_data


def test_a_reply_that_is_sound_stays_as_it_is() -> None:
    reply = replace(
        read(ProviderAnswer(text="Hi", calls=(TextToolCall("c1", "find", '{"id": "7"}'),))), usage=llm.Usage(1, 2)
    )
    assert answer_parsing.sound(reply) == reply
