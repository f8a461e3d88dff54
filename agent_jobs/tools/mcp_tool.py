"""Tools of MCP servers, by the official SDK over the guarded client of `infra.egress.async_client`.

A server's descriptions of its tools are untrusted. Names and descriptions are bounded, schemas are validated like those
of job types, and invalid tools are left out. The SDK's own validation of results is off: it would fetch the references
in a server's schema and bypass the guard. Each listing and each call is a session of its own. All sessions share one
event loop in its own thread, so that a waiting caller can abort a call.

For a refused request the SDK reports no status, so this module records the statuses of the answers. It retries a call
only if that call surely was not made.
"""

import asyncio
import concurrent.futures
import hashlib
import json
import logging
import re
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
import mcp_types as types
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from agent_jobs.errors import PermanentError, RetryableError, RunError
from agent_jobs.sandbox import json_schema
from agent_jobs.tools.answer_limits import UNKNOWN, cut, retry_after
from agent_jobs.tools.declarations import ARGUMENT, MAX_DESCRIPTION, MAX_PROPERTIES
from agent_jobs.tools.tool_secrets import Filled
from agent_jobs.tools.types import Declared, OnStart, ToolAnswer
from infra.egress import async_client, requests_client

MAX_TOOLS = 128
MAX_PAGES = 10
MAX_SCHEMA = 20_000
# Characters of all schemas that are validated, including refused ones: it bounds the cost of a listing.
MAX_JUDGED = 500_000
MAX_ANSWER_BYTES = 1024 * 1024
LISTED_SECONDS = 60.0
_MOST_LISTED = 500
_PARTING_SECONDS = 1.0
_SPARE_SECONDS = 5.0
_SESSION = "mcp-session-id"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LONGEST_NAME = 64
# Errors that the SDK invents when no answer came, or none that it could read.
_NO_ANSWER = {types.CONNECTION_CLOSED, types.REQUEST_TIMEOUT, types.PARSE_ERROR, types.INVALID_REQUEST}
_FAILURES = (
    *(MCPError, ExceptionGroup, RuntimeError, ValueError, OSError, TimeoutError),
    *(anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, *async_client.FAILURES),
)
_T = TypeVar("_T")

logger = logging.getLogger(__name__)
# The SDK logs the servers' answers, which may echo our secrets.
logging.getLogger("mcp").setLevel(logging.CRITICAL + 1)


# --- Listing ---------------------------------------------------------------------------------------------------
def listed(
    org_id: str, stated: Mapping[str, Any], *, declare: Callable[..., Declared], on_start: OnStart | None = None
) -> tuple[Declared, ...]:
    """The server's tools that may be offered, cached for a minute.

    Raises RetryableError if the server is unavailable, PermanentError if it refuses us.
    """
    key = hashlib.sha256(json.dumps([org_id, stated], sort_keys=True).encode()).hexdigest()
    if (kept := _Kept.get(key)) is not None:
        return kept
    name, seen = stated["name"], _Seen()
    filled = Filled(org_id, stated.get("headers", {}), tool=name, url=stated["url"])
    try:
        mode, found = _run(_asked(stated, filled, seen, _all_tools), stated, on_start)
    except concurrent.futures.CancelledError:
        raise RetryableError(f"the listing of the tools of {name} was given up", code="tool_server_canceled") from None
    except _FAILURES as error:
        raise _not_had(name, error, seen) from None
    _require_listed(stated, found)
    tools: dict[str, Declared] = {}
    judged = 0
    allowed = stated.get("allowed")
    for tool in found:
        if allowed is not None and tool.name not in allowed:
            continue
        if len(tools) >= MAX_TOOLS or judged > MAX_JUDGED:
            logger.warning("left out tools of the server %s of %s: it lists too many", name, org_id)
            break
        judged += len(str(tool.input_schema))
        parameters = _parameters(tool)
        full_name = f"{name}__{tool.name}"
        if parameters is None or not _NAME.fullmatch(tool.name) or len(full_name) > _LONGEST_NAME:
            logger.warning("left out a tool of the server %s of %s: its name or schema does not hold", name, org_id)
            continue
        if full_name in tools:
            continue
        approval = stated.get("requires_approval", False)
        tools[full_name] = declare(
            {
                **stated,
                "description": filled.blotted(_plain(tool.description or tool.title or tool.name))[:MAX_DESCRIPTION],
                "requires_approval": approval if isinstance(approval, bool) else tool.name in approval,
                "tool": tool.name,
                "mode": mode,
            },
            name=full_name,
            parameters=parameters,
        )
    return _Kept.put(key, tuple(tools.values()))


async def _all_tools(session: Client) -> tuple[str, list[types.Tool]]:
    """The protocol mode for later requests, and the server's tools, up to our limits."""
    found: list[types.Tool] = []
    cursor = None
    for _ in range(MAX_PAGES):
        page = await session.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if not cursor:
            break
    return "auto" if session.protocol_version in MODERN_PROTOCOL_VERSIONS else "legacy", found


def _require_listed(stated: Mapping[str, Any], found: list[types.Tool]) -> None:
    """Raises if a tool that needs approval is not listed: renamed, it would run without a question to anybody."""
    approval = stated.get("requires_approval", False)
    names = {tool.name for tool in found}
    if isinstance(approval, list) and (unknown := sorted(set(approval) - names)):
        said = f"the tool server {stated['name']} does not list {unknown[0]!r}, which requires approval"
        raise RetryableError(said, code="tool_server_invalid")


def _parameters(tool: types.Tool) -> Mapping[str, Any] | None:
    """The schema of the arguments, None if we do not accept it."""
    # Servers declare any dialect; we validate the schema by ours.
    schema = {word: value for word, value in tool.input_schema.items() if word != "$schema"}
    properties = schema.get("properties", {})
    if len(json.dumps(schema)) > MAX_SCHEMA or schema.get("type") != "object" or json_schema.check_schema(schema):
        return None
    if len(properties) > MAX_PROPERTIES or not all(ARGUMENT.fullmatch(name) for name in properties):
        return None
    return schema


def _plain(text: str) -> str:
    return cut(" ".join(text.split()))[0]


class _Kept:
    """A cache of what servers listed, by declaration."""

    _found: dict[str, tuple[float, tuple[Declared, ...]]] = {}
    _lock = threading.Lock()

    @classmethod
    def get(cls, key: str) -> tuple[Declared, ...] | None:
        until, tools = cls._found.get(key, (0.0, ()))
        return tools if time.monotonic() < until else None

    @classmethod
    def put(cls, key: str, tools: tuple[Declared, ...]) -> tuple[Declared, ...]:
        with cls._lock:
            cls._found.pop(key, None)
            while len(cls._found) >= _MOST_LISTED:
                cls._found.pop(next(iter(cls._found)))
            cls._found[key] = (time.monotonic() + LISTED_SECONDS, tools)
        return tools

    @classmethod
    def clear(cls) -> None:
        cls._found.clear()


def forget() -> None:
    """Drop the cache of listings."""
    _Kept.clear()


# --- Calling ---------------------------------------------------------------------------------------------------
def call(
    org_id: str, tool: Declared, arguments: Mapping[str, Any], *, key: str, on_start: OnStart | None = None
) -> ToolAnswer:
    """Make one call. `key` is sent as `_meta` "idempotency-key". Raises as `tools.call` does."""
    stated, seen = tool.settings, _Seen()
    filled = Filled(org_id, stated.get("headers", {}), tool=tool.name, url=stated["url"])
    meta: Any = {"idempotency-key": key}
    params = types.CallToolRequestParams(name=stated["tool"], arguments=dict(arguments), _meta=meta)

    async def do(session: Client) -> types.CallToolResult:
        seen.begin_call()
        return await session.session.send_request(types.CallToolRequest(params=params), types.CallToolResult)

    try:
        result = _run(_asked(stated, filled, seen, do), stated, on_start)
    except concurrent.futures.CancelledError:
        if not seen.is_calling:
            raise RetryableError(f"the call of {tool.name} was given up", code="tool_call_canceled") from None
        return ToolAnswer(f"The call was given up. {UNKNOWN}", is_error=True)
    except _FAILURES as error:
        if not seen.is_calling:
            raise _not_had(stated["name"], error, seen) from None
        return _failed(tool, error, seen, filled)
    text, is_cut = cut(filled.blotted(_text(result)))
    note = f"(These are the first {len(text):,} characters.)\n\n" if is_cut else ""
    failed = "The tool reports an error:\n" if result.is_error else ""
    return ToolAnswer(failed + note + (text or "(The answer is empty.)"), is_error=bool(result.is_error))


def _failed(tool: Declared, error: BaseException, seen: "_Seen", filled: Filled) -> ToolAnswer:
    """The answer for the model after a call that was begun and failed. Raises RetryableError if it surely had no
    effect.
    """
    if seen.status in (429, 503) and seen.retry_after is not None:
        message = f"the tool {tool.name} answered {seen.status} and asks to wait"
        raise RetryableError(message, code="tool_busy", retry_after=seen.retry_after)
    if 400 <= seen.status < 500:
        return ToolAnswer(f"The server refused the call: HTTP {seen.status}.", is_error=True)
    for leaf in _leaves(error):
        if reason := async_client.refused(leaf):
            return ToolAnswer(f"Not sent: the address {reason}.", is_error=True)
        if isinstance(leaf, MCPError) and leaf.code not in _NO_ANSWER and seen.status < 400:
            said = cut(filled.blotted(leaf.message))[0][:MAX_DESCRIPTION]
            return ToolAnswer(f"The server answered with the error {leaf.code}: {said}", is_error=True)
    return ToolAnswer(f"The call was sent, and no valid answer came. {UNKNOWN}", is_error=True)


def _text(result: types.CallToolResult) -> str:
    parts = []
    for block in result.content:
        if isinstance(block, types.TextContent):
            parts.append(block.text)
        elif isinstance(block, types.EmbeddedResource) and isinstance(block.resource, types.TextResourceContents):
            parts.append(block.resource.text)
        else:
            parts.append(f"({block.type}, not shown)")
    if not parts and result.structured_content is not None:
        parts.append(json.dumps(result.structured_content, ensure_ascii=False))
    return "\n".join(parts)


# --- Sessions --------------------------------------------------------------------------------------------------
@dataclass(slots=True)
class _Seen:
    """Recorded traffic: the last answer to a POST, and whether the call itself was begun."""

    is_calling: bool = False
    status: int = 0
    retry_after: float | None = None
    session_id: str = ""

    def begin_call(self) -> None:
        self.is_calling, self.status, self.retry_after = True, 0, None

    async def note(self, response: Any) -> None:
        if response.request.method == "POST":
            self.status = response.status_code
            self.session_id = response.headers.get(_SESSION, self.session_id)
            self.retry_after = retry_after(response.headers.get("Retry-After", ""))


async def _asked(stated: Mapping[str, Any], filled: Filled, seen: _Seen, do: Callable[[Client], Awaitable[_T]]) -> _T:
    """The result of `do` in a session of its own. Errors while the session closes do not matter."""
    rules = requests_client.rules()
    found: list[_T] = []
    async with async_client.client(rules, max_bytes=MAX_ANSWER_BYTES) as client:
        client.headers.update({"User-Agent": "agent-jobs", **filled.headers})
        client.event_hooks = {"response": [seen.note]}
        # We end the session ourselves: the SDK waits for that without a limit, even after an abort.
        transport = streamable_http_client(stated["url"], http_client=client, terminate_on_close=False)
        try:
            async with (
                asyncio.timeout(_seconds(stated)),
                Client(
                    transport,
                    mode=stated.get("mode", "auto"),
                    cache=None,
                    client_info=types.Implementation(name="agent-jobs", version="1"),
                ) as session,
            ):
                found.append(await do(session))
        except _FAILURES:
            if not found:
                raise
        if seen.session_id:
            with suppress(*_FAILURES):
                async with asyncio.timeout(_PARTING_SECONDS):
                    await client.delete(stated["url"], headers={_SESSION: seen.session_id})
    return found[0]


def _run(asking: Coroutine[Any, Any, _T], stated: Mapping[str, Any], on_start: OnStart | None) -> _T:
    running = asyncio.run_coroutine_threadsafe(asking, async_client.loop())

    def give_up() -> None:
        running.cancel()

    try:
        if on_start:
            on_start(give_up)
        return running.result(_seconds(stated) + _SPARE_SECONDS)
    finally:
        running.cancel()


def _seconds(stated: Mapping[str, Any]) -> float:
    return float(stated.get("timeout_seconds", 10))


def _not_had(name: str, error: BaseException, seen: _Seen) -> RunError:
    """The reason why a server's tools are unavailable, for an error before any tool was called."""
    for leaf in _leaves(error):
        if reason := async_client.refused(leaf):
            return PermanentError(
                f"the address of the tool server {name} is not allowed: it {reason}", code="tool_server_refused"
            )
    if seen.status in (408, 425, 429) or seen.status >= 500:
        said = f"the tool server {name} answered {seen.status}"
        return RetryableError(said, code="tool_server_unavailable", retry_after=seen.retry_after)
    if 400 <= seen.status < 500:
        return PermanentError(f"the tool server {name} answered {seen.status}", code="tool_server_refused")
    if seen.status:
        said = f"the tool server {name} gave no answer that can be read"
        return RetryableError(said, code="tool_server_invalid")
    return RetryableError(f"the tool server {name} was not reached", code="tool_server_unreachable")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
