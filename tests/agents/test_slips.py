"""A slip of the model is mended, or told to the model in the next request; it never ends a job untold.

Every job here has the default config: no retries. Its model is hosted, its provider a double behind a real socket.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_jobs.catalog import model_keys
from agent_jobs.models import Activity, Job, Profile, Step
from agent_jobs.states import JobStatus
from tests import rows
from tests.agents import scripted_models
from tests.agents.scripted_models import said, work
from tests.conversations import again, let_time_pass
from tests.fakes import openai
from tests.fakes.openai import Answer, FakeOpenAI, completion, message, says

pytestmark = pytest.mark.django_db

FIND = {
    "type": "http",
    "name": "find",
    "description": "Finds a thing.",
    "url": "https://things.example.com/{id}",
    "parameters": {
        "type": "object",
        "properties": {"id": {"type": "string"}, "note": {"type": "string"}},
        "required": ["id"],
    },
}
ITEMS = {"type": "object", "properties": {"items": {"type": "array"}, "max": {"type": "number"}}, "required": ["items"]}


@pytest.fixture
def provider(settings: Any) -> Iterator[FakeOpenAI]:
    settings.MODEL_KEYS = {}
    rows.org("acme")
    with FakeOpenAI(lambda request: says("Fine?")) as fake:
        for name in ("openai", "anthropic", "google"):
            model_keys.put_key("acme", name, key="sk-canary", base_url=fake.base_url, actor=rows.TESTER)
        yield fake


def hosted(model: str = "openai:gpt-fake", *, agent: dict[str, Any] | None = None, **config: Any) -> Job:
    Profile.objects.get_or_create(org_id="acme", key="ann", defaults={"name": "Ann", "model": model})
    default = {"tools": [{"type": "send_message"}, FIND]}
    return scripted_models.job(agent=default if agent is None else agent, config={"profile_id": "ann", **config})


def respond(arguments: Any, **more: Any) -> Answer:
    return completion(calls=[("respond", arguments)], **more)


def model_calls(job: Job) -> list[dict[str, Any]]:
    found = Activity.objects.filter(job=job, code="model.call").order_by("created_at", "id")
    return list(found.values_list("output", flat=True))


def deep(levels: int) -> str:
    return '{"say":"a","next":"done","result_data":' + '{"a":' * levels + "1" + "}" * levels + "}"


def gateway(**odd: Any) -> Answer:
    """A call of `respond` by a server that is only like OpenAI's."""
    body = json.loads(respond({"say": "Hi", "next": "wait"}).body)
    (call,) = body["choices"][0]["message"]["tool_calls"]
    for name, value in odd.items():
        where = call["function"] if name == "arguments" else call
        where[name] = value
        if value is None:
            del where[name]
    return Answer(body=json.dumps(body).encode())


MENDED: list[tuple[str, Answer, list[str]]] = [
    ("null for what is optional", respond({"say": "Hi", "next": "wait", "result": None, "result_data": None}), ["Hi"]),
    ("next in capitals", respond({"say": "Hi", "next": "WAIT"}), ["Hi"]),
    ("a fence", respond('```json\n{"say":"Hi","next":"wait"}\n```'), ["Hi"]),
    ("a raw line break", respond('{"say":"a\nb","next":"wait"}'), ["a\nb"]),
    ("half a character", respond('{"say":"half \\ud83d pair","next":"wait"}'), ["half ? pair"]),
    ("a zero character", respond({"say": "a\x00b", "next": "wait"}), ["ab"]),
    ("JSON as a text", respond(json.dumps('{"say":"Hi","next":"wait"}')), ["Hi"]),
    ("text beside a silent respond", completion("42.", calls=[("respond", {"say": "", "next": "wait"})]), ["42."]),
    (
        "respond twice",
        completion(calls=[("respond", {"say": "One.", "next": "done"}), ("respond", {"say": "Two?", "next": "wait"})]),
        ["One.", "Two?"],
    ),
    ("a call as bare JSON", completion('{"say":"Hi Ann","next":"wait"}'), ["Hi Ann"]),
    ("a call as JSON in a fence", completion('```json\n{"say":"Hi Ann","next":"wait"}\n```'), ["Hi Ann"]),
    (
        "a call in tags",
        completion('<tool_call>{"name":"respond","arguments":{"say":"Hi Ann","next":"wait"}}</tool_call>'),
        ["Hi Ann"],
    ),
    (
        "a call of Mistral",
        completion('[TOOL_CALLS] [{"name":"respond","arguments":{"say":"Hi","next":"wait"}}]'),
        ["Hi"],
    ),
    (
        "a call of Llama",
        completion('<|python_tag|>{"name":"respond","parameters":{"say":"Hi","next":"wait"}}<|eom_id|>'),
        ["Hi"],
    ),
    ("a call as a function", completion('<function=respond>{"say":"Hi Ann","next":"wait"}</function>'), ["Hi Ann"]),
    (
        "a call with parameters",
        completion("<function=respond><parameter=say>Hi</parameter><parameter=next>wait</parameter></function>"),
        ["Hi"],
    ),
    ("usage in floats", completion("Hi", usage={"prompt_tokens": 12.0, "completion_tokens": 5.0}), ["Hi"]),
    ("usage without input", completion("Hi", usage={"completion_tokens": 5, "total_tokens": 17}), ["Hi"]),
    ("no usage", completion("Hi", usage=None), ["Hi"]),
    ("half a character in a text", completion("half \ud83d pair"), ["half ? pair"]),
    ("arguments as an object", gateway(arguments={"say": "Hi", "next": "wait"}), ["Hi"]),
    ("a call without an id", gateway(id=None), ["Hi"]),
    ("a call without a type", gateway(type=None), ["Hi"]),
    ("thoughts without an opening tag", completion("Should I greet?\n</think>\nHi"), ["Hi"]),
    (
        "a text about a tag",
        completion("Models write `</think>` at the end."),
        ["Models write `</think>` at the end."],
    ),
    ("other JSON is a text", completion('{"temperature": 3}'), ['{"temperature": 3}']),
]


@pytest.mark.parametrize(("answer", "words"), [row[1:] for row in MENDED], ids=[row[0] for row in MENDED])
def test_a_plain_meaning_is_mended_without_asking(provider: FakeOpenAI, answer: Answer, words: list[str]) -> None:
    job = hosted()
    provider.queue(answer)
    work()
    assert said(job) == words
    assert (again(job).status, again(job).waiting_for) == (JobStatus.RUNNING, "reply")
    assert len(provider.requests) == 1


def call(arguments: Any, name: str = "find") -> Answer:
    return completion(calls=[(name, arguments)])


TOLD: list[tuple[str, Answer, str]] = [
    ("no next", respond({"say": "Hi"}), "next of respond"),
    ("next is null", respond({"say": "Hi", "next": None}), "next of respond"),
    *[(f"next is {word}", respond({"say": "Hi", "next": word}), "next of respond") for word in ("finish", True, 7, [])],
    ("say is a list", respond({"say": [], "next": "wait"}), "say of respond"),
    ("result is an object", respond({"say": "a", "next": "done", "result": {}}), "result of respond"),
    ("broken JSON", respond('{"say":"Hi"'), "not JSON"),
    ("a list", respond("[1]"), "have to be an object"),
    ("nothing", completion(None), "empty"),
    ("white space", completion(" \n"), "empty"),
    ("a tool's broken JSON", call('{"id": "7"'), "the arguments of find"),
    ("NaN", respond('{"say":"a","next":"done","result_data":{"score":NaN}}'), "NaN"),
    ("NaN with wait", respond('{"say":"a","next":"wait","result_data":{"score":NaN}}'), "NaN"),
    ("Infinity", respond('{"say":"a","next":"done","result_data":[Infinity]}'), "Infinity"),
    ("1e400", respond('{"say":"a","next":"done","result_data":{"score":1e400}}'), "Infinity"),
    ("NaN in a tool's arguments", call('{"id":NaN}'), "the arguments of find"),
    ("1e999 in a tool's arguments", call('{"id":1e999}'), "the arguments of find"),
    ("100 levels", respond(deep(100)), "levels deep"),
    ("30,000 levels", respond(deep(30_000)), "too deep"),
    ("5,000 digits", respond('{"say":"a","next":"done","result_data":' + "9" * 5_000 + "}"), "too many digits"),
    ("2,000 digits", respond('{"say":"a","next":"done","result_data":' + "9" * 2_000 + "}"), "too many digits"),
    ("silence for ever", respond({"say": "", "next": "wait"}), "nothing was ever said"),
    ("blank words", respond({"say": " \n", "next": "wait"}), "nothing was ever said"),
    ("cut", completion("1. Open the valve. 2. Cl", finish="length"), "cut off at max_output_tokens"),
    ("cut before a word", completion("", finish="length"), "cut off at max_output_tokens"),
    ("half a call", completion(calls=[("respond", '{"say":"1. Op')], finish="length"), "cut off"),
    ("a call among words", completion('Sure! <tool_call>{"name":"find"}</tool_call>'), "written as text"),
    *[
        (f"a call of {family}", completion(text), "written as text")
        for family, text in {
            "DeepSeek": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>respond",
            "Kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.respond:0",
            "gpt-oss": "<|channel|>commentary to=functions.respond <|message|>{}",
            "Gemini": "```tool_code\nprint(default_api.respond(say='Hi'))\n```",
            "tags with attributes": '<tool_call name="respond">{"say":"Hi"}</tool_call>',
            "other tags": '<function_call>{"name":"respond"}</function_call>',
            "newer Mistral": '[TOOL_CALLS]respond[ARGS]{"say":"Hi"}',
        }.items()
    ],
    ("a broken call as text", completion('{"say": "Hi", "next": "wait"'), "written as text"),
    ("a tool as text that is not there", completion('{"name":"drop","arguments":{}}'), "there is no tool"),
]


@pytest.mark.parametrize(("answer", "told"), [row[1:] for row in TOLD], ids=[row[0] for row in TOLD])
def test_a_slip_is_told_to_the_model_in_the_next_request(provider: FakeOpenAI, answer: Answer, told: str) -> None:
    job = hosted()
    provider.queue(answer)
    work()
    assert len(provider.requests) == 2
    last = provider.requests[1]["messages"][-1]
    assert last["role"] == "user"
    assert told in json.dumps(last["content"])
    assert said(job) == ["Fine?"]
    assert (again(job).status, again(job).waiting_for) == (JobStatus.RUNNING, "reply")
    slip, fine = Activity.objects.filter(job=job, code="model.call").order_by("created_at", "id")
    assert told in fine.input["told"]
    assert slip.output["input_tokens"] == 12, "it is paid for"
    assert Step.objects.filter(job=job, kind="model").count() == 2


THREE_TIMES: list[tuple[str, Answer, str]] = [
    ("broken JSON", respond('{"say":"Hi"'), "model_answer_invalid"),
    ("nothing", completion(None), "model_answer_invalid"),
    ("cut", completion("1. Open the valve. 2. Cl", finish="length"), "model_output_cut"),
    ("silence", respond({"say": "", "next": "wait"}), "nothing_said"),
    ("a misfit", respond({"say": "a", "next": "done", "result_data": {"items": 3}}), "invalid_result"),
]


@pytest.mark.parametrize(("answer", "code"), [row[1:] for row in THREE_TIMES], ids=[row[0] for row in THREE_TIMES])
def test_the_third_slip_of_a_turn_fails_it_and_a_retry_asks_anew(
    provider: FakeOpenAI, answer: Answer, code: str
) -> None:
    job = hosted(agent={"tools": [], "result_schema": ITEMS}, max_task_retries=1)
    provider.queue(answer, answer, answer)
    work()
    assert len(provider.requests) == 3
    assert (again(job).waiting_for, said(job)) == ("retry", [])
    let_time_pass(job)
    work()
    assert len(provider.requests) == 4
    assert (said(job), again(job).waiting_for) == (["Fine?"], "reply")
    assert len(model_calls(job)) == 4
    assert code in Activity.objects.get(job=job, code="task.failed").note


def test_without_retries_the_third_slip_ends_the_job_with_its_code_and_the_limit(provider: FakeOpenAI) -> None:
    Profile.objects.create(org_id="acme", key="ann", name="Ann", model="openai:gpt-fake", max_output_tokens=300)
    job = hosted()
    cut = completion("1. Open the valve. 2. Cl", finish="length")
    provider.queue(cut, cut, cut)
    work()
    assert (again(job).status, again(job).error_code) == (JobStatus.FAILED, "model_output_cut")
    assert "300" in again(job).error_message
    assert said(job) == []


def test_slips_count_as_steps(provider: FakeOpenAI) -> None:
    job = hosted(max_steps=1)
    provider.queue(completion(None))
    work()
    assert (again(job).error_code, len(provider.requests)) == ("step_limit", 1)


# --- Why it stopped --------------------------------------------------------------------------------------------
REFUSALS: list[tuple[str, str, Answer, str]] = [
    ("OpenAI", "openai:gpt", completion(None, refusal="I cannot help with that."), "I cannot help with that."),
    ("OpenAI's filter", "openai:gpt", completion("", finish="content_filter"), "content_filter"),
    ("a gateway", "openai:gpt", completion("Blocked.", finish="guardrail_intervened"), "Blocked."),
    ("Anthropic", "anthropic:claude", message("", stop="refusal"), "refusal"),
    ("Anthropic with words", "anthropic:claude", message("I would rather not.", stop="refusal"), "I would rather not."),
    ("Google", "google:gemini", openai.content("", stop="SAFETY"), "SAFETY"),
    (
        "Google's block",
        "google:gemini",
        Answer(body=json.dumps({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}).encode()),
        "PROHIBITED_CONTENT",
    ),
]


@pytest.mark.parametrize(("model", "answer", "words"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_a_refusal_is_final_with_the_models_words_and_no_fallback(
    provider: FakeOpenAI, model: str, answer: Answer, words: str
) -> None:
    Profile.objects.create(org_id="acme", key="ann", name="Ann", model=model, fallback_model="openai:gpt-other")
    job = hosted(max_task_retries=3)
    provider.queue(answer)
    work()
    assert (again(job).status, again(job).error_code) == (JobStatus.FAILED, "model_refused")
    assert words in again(job).error_message
    assert (len(provider.requests), said(job)) == (1, [])
    (told,) = model_calls(job)
    assert told["finish_reason"]


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        ("anthropic:claude", message("1. Open the valve. 2. Cl", stop="max_tokens")),
        ("google:gemini", openai.content("1. Open the valve. 2. Cl", stop="MAX_TOKENS")),
    ],
)
def test_what_is_cut_is_never_said_as_if_it_were_whole(provider: FakeOpenAI, model: str, answer: Answer) -> None:
    spoken = message("Open it.") if model.startswith("anthropic") else openai.content("Open it.")
    job = hosted(model)
    provider.queue(answer, spoken)
    work()
    assert said(job) == ["Open it."]
    assert model_calls(job)[0]["slip"]["code"] == "model_output_cut"


def test_a_paused_model_is_asked_to_go_on_with_what_it_wrote(provider: FakeOpenAI) -> None:
    job = hosted("anthropic:claude")
    provider.queue(message("First,", stop="pause_turn"), message("First, open the valve."))
    work()
    assert said(job) == ["First, open the valve."]
    *_, wrote, asked = provider.requests[1]["messages"]
    assert "First," in json.dumps(wrote)
    assert "Go on" in json.dumps(asked)
    assert "slip" not in model_calls(job)[0]


def test_blocks_of_an_unknown_type_beside_a_text_are_passed_over(provider: FakeOpenAI) -> None:
    job = hosted("anthropic:claude")
    provider.queue(message(blocks=[{"type": "novel", "x": 1}, {"type": "text", "text": "Fine?"}]))
    work()
    assert said(job) == ["Fine?"]


@pytest.mark.parametrize(
    ("model", "body"),
    [
        ("openai:gpt-fake", {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": []}),
        ("google:gemini", {"candidates": [{"content": {"role": "model"}, "finishReason": "STOP"}]}),
        ("anthropic:claude", json.loads(message(blocks=[]).body)),
    ],
    ids=str,
)
def test_an_answer_with_nothing_in_it_is_told(provider: FakeOpenAI, model: str, body: dict[str, Any]) -> None:
    spoken = {"openai": says("Fine?"), "anthropic": message("Fine?"), "google": openai.content("Fine?")}
    job = hosted(model)
    provider.queue(Answer(body=json.dumps(body).encode()), spoken[model.partition(":")[0]])
    work()
    assert (said(job), len(provider.requests)) == (["Fine?"], 2)
    assert "empty" in json.dumps(provider.requests[1])


def test_a_call_that_the_provider_could_not_read_is_told(provider: FakeOpenAI) -> None:
    job = hosted("google:gemini")
    provider.queue(openai.content(stop="MALFORMED_FUNCTION_CALL", parts=[]), openai.content("Fine?"))
    work()
    assert "MALFORMED_FUNCTION_CALL" in json.dumps(provider.requests[1])
    assert said(job) == ["Fine?"]


@pytest.mark.parametrize(
    "usage", [None, {}, {"output_tokens": 5}, {"input_tokens": 12.0, "output_tokens": 5.0}], ids=str
)
def test_odd_bookkeeping_of_anthropics_gateways_costs_no_answer(provider: FakeOpenAI, usage: Any) -> None:
    job = hosted("anthropic:claude")
    provider.queue(message("Fine?", usage=usage))
    work()
    assert said(job) == ["Fine?"]


@pytest.mark.parametrize("model", ["anthropic:claude", "google:gemini"])
@pytest.mark.parametrize(
    "value", ["NaN", "1e400", "9" * 5_000, '"\\u0000\\ud83d"', '{"a":' * 3_000 + "1" + "}" * 3_000]
)
def test_arguments_that_come_as_an_object_are_no_trouble_either(provider: FakeOpenAI, model: str, value: str) -> None:
    blocks = [
        {"type": "tool_use", "id": "t1", "name": "respond", "input": {"say": "a", "next": "done", "result_data": "@"}}
    ]
    called = [{"functionCall": {"name": "respond", "args": {"say": "a", "next": "done", "result_data": "@"}}}]
    is_claude = model.startswith("anthropic")
    answer = message(blocks=blocks, stop="tool_use") if is_claude else openai.content(parts=called)
    job = hosted(model)
    provider.queue(Answer(body=answer.body.replace(b'"@"', value.encode())))
    provider.answer = lambda request: message("Fine?") if is_claude else openai.content("Fine?")
    work()
    if "ud83d" in value:
        assert again(job).status == JobStatus.COMPLETED
    else:
        assert (said(job), again(job).waiting_for) == (["Fine?"], "reply")


# --- Too long --------------------------------------------------------------------------------------------------
TOO_LONG = openai.error(400, "context_length_exceeded")


def talked(model: str = "openai:gpt-fake", lines: int = 6) -> Job:
    """A job whose people have written much since it asked."""
    job = hosted(model)
    work()
    for number in range(lines):
        assert scripted_models.reply(job, f"{number} " + "word " * 700, event_id=f"e{number}")
    return job


def test_a_context_that_is_too_long_is_cut_to_half_and_asked_again(provider: FakeOpenAI) -> None:
    job = talked()
    provider.queue(TOO_LONG, TOO_LONG)
    work()
    sizes = [len(json.dumps(request["messages"])) for request in provider.requests[1:]]
    assert sizes[1] < sizes[0] * 0.75
    assert sizes[2] < sizes[1] * 0.85
    assert said(job) == ["Fine?", "Fine?"]


def test_it_is_cut_twice_and_then_ends_the_job(provider: FakeOpenAI) -> None:
    job = talked()
    provider.answer = lambda request: TOO_LONG
    work()
    assert (again(job).error_code, len(provider.requests)) == ("context_too_long", 1 + 3)


def test_a_window_that_was_full_in_the_middle_of_an_answer_is_the_same(provider: FakeOpenAI) -> None:
    provider.answer = lambda request: message("Fine?")
    job = talked("anthropic:claude")
    provider.queue(message("1. Open", stop="model_context_window_exceeded"))
    work()
    assert said(job) == ["Fine?", "Fine?"]
    assert len(json.dumps(provider.requests[2])) < len(json.dumps(provider.requests[1])) * 0.8


# --- Calls of tools --------------------------------------------------------------------------------------------
SEND = {"type": "send_message"}


def test_two_calls_with_one_id_keep_their_own_answers(provider: FakeOpenAI) -> None:
    hosted(agent={"tools": [SEND]})
    asked = completion(calls=[("send_message", {"text": "A"}), ("send_message", {})], ids=["call_0", "call_0"])
    provider.queue(asked)
    work()
    first, second = [entry for entry in provider.requests[1]["messages"] if entry["role"] == "tool"]
    assert first["content"] == "Sent."
    assert "text is required" in second["content"]
    assert first["tool_call_id"] != second["tool_call_id"]
    (made,) = [entry for entry in provider.requests[1]["messages"] if entry.get("tool_calls")]
    assert [entry["id"] for entry in made["tool_calls"]] == [first["tool_call_id"], second["tool_call_id"]]


def test_words_beside_a_call_are_said_before_it_and_once(provider: FakeOpenAI) -> None:
    job = hosted(agent={"tools": [SEND]})
    both = [("respond", {"say": "Wait, please.", "next": "wait"}), ("send_message", {"text": "Found."})]
    provider.queue(completion("Let me look.", calls=both))
    work()
    assert said(job) == ["Let me look.", "Wait, please.", "Found.", "Fine?"]
    assert "has been said" in provider.requests[1]["messages"][-1]["content"]


def test_words_beside_a_call_are_not_said_again_by_the_next_worker(provider: FakeOpenAI) -> None:
    job = hosted(agent={"tools": [SEND]}, max_task_retries=1)
    provider.queue(completion("Let me look.", calls=[("send_message", {"text": "Found."})]), openai.error(500))
    work()
    let_time_pass(job)
    work()
    assert said(job) == ["Let me look.", "Found.", "Fine?"]


def test_at_most_32_calls_of_one_answer_are_made(provider: FakeOpenAI) -> None:
    job = hosted(agent={"tools": [SEND]})
    provider.queue(completion(calls=[("send_message", {"text": str(number)}) for number in range(40)]))
    work()
    assert len(said(job)) == 33
    assert "first 32 of your 40 calls" in provider.requests[1]["messages"][-1]["content"]


def test_null_for_what_is_optional_and_an_object_as_text_are_mended(provider: FakeOpenAI) -> None:
    job = hosted(agent={"tools": [SEND], "result_schema": ITEMS})
    done = {"say": "Here.", "next": "done", "result_data": json.dumps({"items": ["a", "b"], "max": None})}
    provider.queue(completion(calls=[("send_message", {"text": "A", "to": None})]), respond(done))
    work()
    assert again(job).result_data == {"items": ["a", "b"]}
    assert said(job)[-1] == "Here."


@pytest.mark.parametrize("text", [" \n", "", "\u00a0"])
def test_a_blank_message_is_refused_to_the_model(provider: FakeOpenAI, text: str) -> None:
    job = hosted(agent={"tools": [SEND]})
    provider.queue(call({"text": text}, "send_message"))
    work()
    assert said(job) == ["Fine?"]
    assert "do not fit" in provider.requests[1]["messages"][-1]["content"]


def test_a_text_model_ends_the_job_by_a_line_of_its_own(provider: FakeOpenAI) -> None:
    job = hosted()
    provider.queue(completion("Thank you, that is all.\nDONE"))
    work()
    assert (again(job).status, again(job).result) == (JobStatus.COMPLETED, "Thank you, that is all.")
    assert said(job) == ["Thank you, that is all."]


# --- Anything at all -------------------------------------------------------------------------------------------
odd = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters(codec=None), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
written = st.sampled_from(['{"say":"a"', "[1]", "NaN", "", "\x00", "<tool_call>{", "```\n{}\n```", "\ud83d"])
given_arguments = written | st.builds(
    json.dumps,
    st.dictionaries(st.sampled_from(["say", "next", "result", "result_data", "text", "id"]), odd)
    | st.fixed_dictionaries({"say": odd, "next": st.sampled_from(["wait", "done"]), "result_data": odd}),
)
answers = st.builds(
    lambda text, calls, ids, finish: completion(text, calls, ids=ids[: len(calls)], finish=finish),
    st.none() | written | st.text(st.characters(codec=None), max_size=8),
    st.lists(st.tuples(st.sampled_from(["respond", "send_message", "find", "?\x00"]), given_arguments), max_size=3),
    st.lists(st.sampled_from(["a", "", "\x00", "x" * 200]), min_size=3, max_size=3),
    st.sampled_from(["", "", "", "length", "content_filter", "odd"]),
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(answers, min_size=1, max_size=3))
def test_no_answer_breaks_a_turn(provider: FakeOpenAI, several: list[Answer]) -> None:
    job = hosted(agent={"tools": [SEND]})
    provider.queue(*several)
    work()
    ended = again(job)
    assert ended.error_code in ("", "model_answer_invalid", "model_output_cut", "model_refused", "nothing_said")
    assert ended.status != JobStatus.RUNNING or ended.waiting_for == "reply"
    assert len(model_calls(job)) == Step.objects.filter(job=job, kind="model").count() > 0
    provider._queue.clear()
