"""A server that speaks the chat completions of OpenAI, as far as an agent needs them, and misbehaves on demand.

It says what it is told to say, so it does for other providers, too: `message` and `content` are answers of theirs. It
refuses what the provider at that address refuses (`provider_rules`).
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.fakes import provider_rules


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


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is nothing to tell of: tests kill them."""


class FakeOpenAI:
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
        self._stop = threading.Event()
        self._server = QuietServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def queue(self, *answers: Answer) -> None:
        with self._lock:
            self._queue.extend(answers)

    def __enter__(self) -> FakeOpenAI:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()

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

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # as servers do; else each answer waits 40 ms for an acknowledgement

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = fake._take(
                    json.loads(body), self.path, {name.lower(): value for name, value in self.headers.items()}
                )
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
                self.send_response(answer.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer.body)))
                for name, value in answer.headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                if answer.cut:
                    self.wfile.write(answer.body[: len(answer.body) // 2])
                    self.wfile.flush()
                    linger = struct.pack("ii", 1, 0)  # closing sends a reset
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.close_connection = True
                    self.connection.close()
                    return
                self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
