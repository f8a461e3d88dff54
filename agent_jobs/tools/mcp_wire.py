"""Reads what MCP servers send, also where it is a little off the protocol.

The SDK judges an answer as a whole: one malformed tool of a page, or one unknown block of a result, spoils all of it.
So this module takes the results out before the SDK judges them, and hands it an empty result. It also mends the bytes
of answers: byte order marks, other charsets, JSON under a type of text, batches of one answer, and streams without a
blank line at their end.
"""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from mcp.shared.message import SessionMessage
from mcp_types import INVALID_REQUEST, PARSE_ERROR, JSONRPCError, JSONRPCResponse

from agent_jobs.errors import RunError
from agent_jobs.tools.answer_limits import decoded
from infra.egress import async_client, retry_after

# Marks a request, in its extensions, that goes to an authorization server or asks for the way to it.
IS_AUTHORIZING = "is_authorizing"
_SESSION = "mcp-session-id"
_LINE_ENDS = re.compile(rb"\r\n|\n|\r")
_NULL_RESULT = re.compile(rb'"result"\s*:\s*null')
_MOST_WORDS = 4_000
# Codes of errors that the SDK's transport invents for answers that it cannot read.
_INVENTED = (INVALID_REQUEST, PARSE_ERROR)


@dataclass(slots=True)
class Seen:
    """Recorded traffic: the last answer to a POST, whether the call itself was begun, and what a server's answer held.

    `results` are the results as they came, for each request whose method is `expected`. `trouble` says why an answer
    was refused on its way, as the end of a sentence. `words` are the data of an `event: error`. `error_code` is that of
    a JSON-RPC error. `authorizing` is the host that is being asked for a token or the way to one, and `refusal` says
    why there is no token.
    """

    is_calling: bool = False
    status: int = 0
    retry_after: float | None = None
    session_id: str = ""
    expected: str = ""
    results: list[dict[str, Any]] = field(default_factory=list)
    trouble: str = ""
    words: str = ""
    error_code: int | None = None
    is_late: bool = False
    authorizing: str = ""
    refusal: RunError | None = None

    def begin_call(self) -> None:
        self.is_calling, self.status, self.retry_after, self.trouble, self.words = True, 0, None, "", ""
        self.error_code = None

    async def note(self, response: async_client.Response) -> None:
        if response.request.method != "POST" or response.request.extensions.get(IS_AUTHORIZING):
            return
        self.status = response.status_code
        self.session_id = response.headers.get(_SESSION, self.session_id)
        self.retry_after = retry_after.seconds(response.headers.get("Retry-After", ""))
        if response.status_code == 200 and isinstance(response.stream, async_client.ByteStream):
            kind = response.headers.get("Content-Type", "")
            if kind.lower().startswith("text/event-stream"):
                response.stream = _Events(response.stream, self)
                return
            if kind.lower().startswith("text/plain"):
                response.headers["Content-Type"] = "application/json"
            response.stream = _Json(response.stream, self, kind)

    def take(self, result: dict[str, Any]) -> dict[str, Any]:
        """Keep the result of an expected request. Returns an empty one that the SDK accepts."""
        if self.expected == "tools/list" and isinstance(result.get("tools"), list):
            self.results.append(result)
            cursor = result.get("nextCursor")
            rest = {key: value for key, value in result.items() if key not in ("tools", "nextCursor")}
            return {**rest, "tools": [], **({"nextCursor": cursor} if isinstance(cursor, str) else {})}
        if self.expected == "tools/call":
            self.results.append(result)
            rest = {"resultType": result["resultType"]} if isinstance(result.get("resultType"), str) else {}
            return {**rest, "content": []}
        return result


@asynccontextmanager
async def tapped(transport: Any, seen: Seen) -> AsyncIterator[tuple[Any, Any]]:
    """The transport, with `seen` between it and the SDK."""
    async with transport as (reading, writing):
        yield _Tap(reading, seen), writing


class _Tap:
    """A stream of messages that hands results to `seen`. Everything else is that of the stream below."""

    def __init__(self, stream: Any, seen: Seen) -> None:
        self._stream, self._seen = stream, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __aiter__(self) -> "_Tap":
        return self

    async def __aenter__(self) -> "_Tap":
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> Any:
        return await self._stream.__aexit__(*error)

    async def __anext__(self) -> Any:
        return self._taken(await self._stream.__anext__())

    async def receive(self) -> Any:
        return self._taken(await self._stream.receive())

    def _taken(self, item: Any) -> Any:
        if isinstance(item, SessionMessage) and isinstance(item.message, JSONRPCResponse):
            item.message.result = self._seen.take(item.message.result)
        elif isinstance(item, SessionMessage) and isinstance(item.message, JSONRPCError):
            code = item.message.error.code
            self._seen.error_code = None if code in _INVENTED else code
        return item


class _Watched(async_client.ByteStream):
    """The bytes of an answer. Notes why they were refused: the SDK swallows that error."""

    def __init__(self, stream: async_client.ByteStream, seen: Seen) -> None:
        self._stream, self._seen = stream, seen

    async def _chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._stream:
                yield chunk
        except async_client.FAILURES as error:
            self._seen.trouble = async_client.unfit(error) or ""
            raise

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Json(_Watched):
    """A whole JSON answer, as the UTF-8 of one message."""

    def __init__(self, stream: async_client.ByteStream, seen: Seen, content_type: str) -> None:
        super().__init__(stream, seen)
        self._content_type = content_type

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body = b"".join([chunk async for chunk in self._chunks()])
        yield _one_message(decoded(body, self._content_type).encode())


def _one_message(body: bytes) -> bytes:
    is_batch = body.lstrip()[:1] == b"["
    if not is_batch and not _NULL_RESULT.search(body):
        return body
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return body
    messages = [one for one in (said if is_batch else [said]) if isinstance(one, dict)]
    answers = [one for one in messages if "result" in one or "error" in one]
    if len(answers) != 1:
        return body
    if "result" in answers[0] and answers[0]["result"] is None:
        answers[0]["result"] = {}
    return json.dumps(answers[0]).encode()


class _Events(_Watched):
    """An event stream. It ends after an `event: error`, whose data is kept."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        rest, kind, data, was_return = b"", b"", [], False
        async for chunk in self._chunks():
            yield chunk
            # A carriage return ends its line at once; a line feed behind it belongs to the same end.
            fresh = chunk.removeprefix(b"\n") if was_return else chunk
            was_return = chunk.endswith(b"\r") if chunk else was_return
            *lines, rest = _LINE_ENDS.split(rest + fresh)
            for line in lines:
                name, _, value = line.partition(b":")
                if name == b"event":
                    kind = value.strip()
                elif name == b"data":
                    data.append(value.strip())
                elif not line:
                    if kind == b"error":
                        self._seen.words = _words(b"\n".join(data))
                        return
                    kind, data = b"", []
        if kind == b"error":
            self._seen.words = _words(b"\n".join(data))
        yield b"\n\n"


def _words(data: bytes) -> str:
    """The message of an error event, which is JSON or plain text."""
    text = data.decode("utf-8", "replace")[:_MOST_WORDS]
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for key in ("error", "message"):
        if isinstance(said, dict) and key in said:
            said = said[key]
    return said if isinstance(said, str) else text
