"""A server that speaks the chat completions of OpenAI, as far as an agent needs them, and misbehaves on demand.

It says what it is told to say, so it does for other providers, too: `message` and `content` are answers of theirs. It
refuses what the provider at that address refuses (`provider_rules`).
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fakes import provider_rules
from tests.fakes.loopback import LoopbackFake, LoopbackHandler


@dataclass(frozen=True)
class Answer:
    """One answer. `body` goes out as it is; `hold` waits for the fake to stop, or for the other side to hang up; `cut`
    resets the connection half-way."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    hold: bool = False
    cut: bool = False


def completion(
    text: str | None = None,
    calls: list[tuple[str, Any]] | None = None,
    *,
    tokens: tuple[int, int] = (12, 5),
    finish: str = "",
    refusal: str | None = None,
    ids: list[str] | None = None,
    usage: Any = "",
) -> Answer:
    """`completion("Hello")`, or `completion(calls=[("respond", {"say": "Hello", "next": "wait"})])`.

    Arguments that are a text go out as they are. `ids` are those of the calls; `usage` stands in for the usual one.
    """
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": refusal}
    if calls:
        message["tool_calls"] = [
            {
                "id": ids[number] if ids else f"call_{number}",
                "type": "function",
                "function": {
                    "name": name,
                    "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments),
                },
            }
            for number, (name, arguments) in enumerate(calls)
        ]
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "fake",
        "choices": [
            {"index": 0, "message": message, "finish_reason": finish or ("tool_calls" if calls else "stop")},
        ],
        "usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)},
    }
    if usage != "":
        body["usage"] = usage
    return Answer(body=json.dumps(body).encode())


def message(
    text: str = "", *, stop: str = "end_turn", blocks: list[dict[str, Any]] | None = None, usage: Any = ""
) -> Answer:
    """Anthropic's. `blocks` stand in for the text."""
    said = [{"type": "text", "text": text}] if text else []
    body = {"id": "msg_1", "type": "message", "role": "assistant", "model": "fake", "stop_reason": stop}
    body |= {"content": said if blocks is None else blocks}
    body |= {"usage": {"input_tokens": 12, "output_tokens": 5} if usage == "" else usage}
    return Answer(body=json.dumps(body).encode())


def content(
    text: str = "", *, stop: str = "STOP", parts: list[dict[str, Any]] | None = None, usage: Any = ""
) -> Answer:
    """Google's. `parts` stand in for the text."""
    said = [{"text": text}] if parts is None else parts
    candidate = {"content": {"role": "model", "parts": said}, "finishReason": stop, "index": 0}
    usage = {"promptTokenCount": 12, "candidatesTokenCount": 5, "totalTokenCount": 17} if usage == "" else usage
    return Answer(body=json.dumps({"candidates": [candidate], "usageMetadata": usage}).encode())


def says(text: str, *, done: bool = False, result: str = "", tokens: tuple[int, int] = (12, 5), **more: Any) -> Answer:
    said = {"say": text, "next": "done" if done else "wait", "result": result, **more}
    return completion(calls=[("respond", said)], tokens=tokens)


def error(status: int, code: str = "", *, kind: str = "", **headers: str) -> Answer:
    body = {"error": {"message": "as asked", "type": kind or "error", "code": code or None}}
    return Answer(status, json.dumps(body).encode(), headers)


class FakeOpenAI(LoopbackFake):
    """Answers what was queued by `queue`, then whatever `answer` makes of a request."""

    def __init__(self, answer: Callable[[dict[str, Any]], Answer] | None = None) -> None:
        self.answer = answer or (lambda request: says("Hello"))
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.headers: list[dict[str, str]] = []  # by names in small letters
        self.paths: list[str] = []
        self.refused: list[str] = []  # why requests broke the provider's rules
        self._queue: deque[Answer] = deque()
        self._lock = threading.Lock()
        self.holding = threading.Semaphore(0)  # released for each request that is held
        self.hung_up = threading.Semaphore(0)  # for each held one whose other side has gone
        super().__init__()

    @property
    def base_url(self) -> str:
        return f"{self._server.url}/v1"

    def queue(self, *answers: Answer) -> None:
        with self._lock:
            self._queue.extend(answers)

    def _take(self, request: dict[str, Any], path: str, headers: dict[str, str]) -> Answer:
        with self._lock:
            self.requests.append(request)
            self.paths.append(path)
            self.headers.append(headers)
            self.keys.append(headers.get("authorization", ""))
            if wrong := provider_rules.refusal(path, request):
                self.refused.append(wrong)
                return Answer(400, json.dumps({"error": {"message": wrong, "type": "invalid_request_error"}}).encode())
            if self._queue:
                return self._queue.popleft()
        return self.answer(request)

    def _handler(self) -> type[LoopbackHandler]:
        fake = self

        class Handler(LoopbackHandler):
            def do_POST(self) -> None:
                answer = fake._take(json.loads(self.read()), self.path, self.small_headers())
                if answer.hold:
                    fake.holding.release()
                    self.connection.settimeout(0.05)
                    while not fake._stop.is_set():
                        with contextlib.suppress(TimeoutError):
                            if not self.connection.recv(1):
                                fake.hung_up.release()
                                break
                    self.close_connection = True
                    return
                headers = {name.replace("_", "-"): value for name, value in answer.headers.items()}
                if answer.cut:
                    half = answer.body[: len(answer.body) // 2]
                    self.send(answer.status, half, {**headers, "Content-Length": str(len(answer.body))})
                    self.wfile.flush()
                    self.reset()
                    return
                self.send(answer.status, answer.body, headers)

        return Handler
