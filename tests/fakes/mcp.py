"""A server that speaks MCP over streamable HTTP, as far as tools need it, and misbehaves on demand."""

from __future__ import annotations

import json
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.fakes import limits
from tests.fakes.loopback import LoopbackFake, LoopbackHandler

VERSION = "2025-06-18"
SESSION = "session-1"


@dataclass(frozen=True)
class Answer:
    """One answer to one method. `result` and `error` become JSON-RPC, unless `body` goes out as it is.

    `hold` waits for the fake to stop, `cut` resets the connection, `sse` sends the result as an event of a stream, and
    `open` leaves that stream open afterwards. In `body`, `ID` stands for the id of the request; `pack` encodes it.
    """

    result: Any = None
    error: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    pack: Callable[[bytes], bytes] = bytes
    hold: bool = False
    cut: bool = False
    sse: bool = False
    open: bool = False


def says(text: str, **more: Any) -> Answer:
    return Answer({"content": [{"type": "text", "text": text}]}, **more)


def tool(name: str, description: str = "Does.", **schema: Any) -> dict[str, Any]:
    given = {"type": "object", "properties": {"id": {"type": "string"}}, **schema}
    return {"name": name, "description": description, "inputSchema": given}


class FakeMcp(LoopbackFake):
    """Answers what was queued for a method, then the usual. `requests` are (method, params, headers)."""

    def __init__(self, *tools: dict[str, Any]) -> None:
        self.tools = list(tools) or [tool("find"), tool("delete")]
        self.page = 1_000
        self.requests: list[tuple[str, Any, dict[str, str]]] = []
        self.tokens: set[str] | None = None  # the access tokens that it takes; without a set it wants none
        self.has_session = False  # whether it has given out the id of one; then requests have to bring it
        self.authorized_by: list[str] = []  # the issuers that its metadata names
        self.calls: Callable[[Any], Answer] = lambda params: says(f"{params['name']} {json.dumps(params['arguments'])}")
        self.holding = threading.Semaphore(0)  # released for each request that is held
        self.hung_up = threading.Event()  # set when the other side has closed the connection of one
        self._queues: dict[str, deque[Answer]] = {}
        super().__init__()

    @property
    def url(self) -> str:
        return f"{self._server.url}/mcp"

    @property
    def metadata_url(self) -> str:
        return self.url.replace("/mcp", "/.well-known/oauth-protected-resource/mcp")

    def queue(self, method: str, *answers: Answer) -> None:
        self._queues.setdefault(method, deque()).extend(answers)

    def asked(self, method: str) -> list[Any]:
        return [params for name, params, _ in self.requests if name == method]

    def _wait_for_the_end(self, connection: socket.socket) -> None:
        while not self._stop.wait(0.02):
            if select.select([connection], [], [], 0)[0] and not connection.recv(1, socket.MSG_PEEK):
                self.hung_up.set()
                return

    def _answer(self, method: str, params: Any) -> Answer:
        if queued := self._queues.get(method):
            return queued.popleft()
        if method == "initialize":
            info = {"name": "fake", "version": "1"}
            result = {"protocolVersion": VERSION, "capabilities": {"tools": {}}, "serverInfo": info}
            return Answer(result, headers={"Mcp-Session-Id": SESSION})
        if method == "tools/list":
            start = int((params or {}).get("cursor") or 0)
            more = {"nextCursor": str(start + self.page)} if start + self.page < len(self.tools) else {}
            return Answer({"tools": self.tools[start : start + self.page], **more})
        if method == "tools/call":
            return self.calls(params)
        if method.startswith("notifications/"):
            return Answer(status=202, body=b"")
        return Answer(error={"code": -32601, "message": "Method not found"})

    def _handler(self) -> type[LoopbackHandler]:
        fake = self

        class Handler(LoopbackHandler):
            def do_POST(self) -> None:
                asked, headers = json.loads(self.read()), self.small_headers()
                fake.requests.append((asked["method"], asked.get("params"), headers))
                if wrong := self._refusal(asked["method"], headers):
                    self._send_json(wrong, {})
                    return
                if (
                    fake.tokens is not None
                    and headers.get("authorization", "").removeprefix("Bearer ") not in fake.tokens
                ):
                    self._send_json(401, {}, **{"WWW-Authenticate": f'Bearer resource_metadata="{fake.metadata_url}"'})
                    return
                answer = fake._answer(asked["method"], asked.get("params"))
                if answer.hold:
                    fake.holding.release()
                    fake._wait_for_the_end(self.connection)
                    self.close_connection = True
                    return
                if answer.cut:
                    self.reset()
                    return
                self._send(asked, answer)

            def _refusal(self, method: str, headers: dict[str, str]) -> int:
                """The status of a refusal by the protocol; 0 if there is none."""
                if any(kind not in headers.get("accept", "") for kind in limits.MCP_ACCEPT[0]):
                    return 406
                if not headers.get("content-type", "").startswith("application/json"):
                    return 415
                session = headers.get("mcp-session-id")
                if session is None:
                    return 400 if fake.has_session and method not in ("initialize", "server/discover") else 0
                return 0 if session == SESSION else 404

            def _send(self, asked: Any, answer: Answer) -> None:
                fake.has_session = fake.has_session or "Mcp-Session-Id" in answer.headers
                said = {"error": answer.error} if answer.error is not None else {"result": answer.result}
                text = json.dumps({"jsonrpc": "2.0", "id": asked.get("id"), **said})
                named = (answer.body or b"").replace(b'"id":ID', b'"id":%d' % asked.get("id", 0))
                body = text.encode() if answer.body is None else answer.pack(named)
                kind = "application/json"
                if answer.sse:
                    note = json.dumps(
                        {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info"}}
                    )
                    body = f"event: message\ndata: {note}\n\nevent: message\ndata: {text}\n\n".encode()
                    kind = "text/event-stream"
                headers = {"Content-Type": kind, **answer.headers}
                if answer.open:
                    self.send_open(answer.status, body, {"Connection": "close", **headers})
                else:
                    self.send(answer.status, body, headers)
                self.wfile.flush()
                if answer.open:
                    fake._stop.wait(60)
                    self.close_connection = True

            def do_GET(self) -> None:
                if fake.authorized_by and self.path == urlsplit(fake.metadata_url).path:
                    self._send_json(200, {"resource": fake.url, "authorization_servers": fake.authorized_by})
                else:
                    self.send_error(405 if self.path == "/mcp" else 404)

            def _send_json(self, status: int, said: Any, **headers: str) -> None:
                self.send(status, json.dumps(said).encode(), headers)

            def do_DELETE(self) -> None:
                fake.requests.append(("DELETE", None, self.small_headers()))
                if fake._queues.get("DELETE") and fake._queues["DELETE"].popleft().hold:
                    fake._wait_for_the_end(self.connection)
                self.send(200)

        return Handler
