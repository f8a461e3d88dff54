"""Tools of MCP servers, by the official SDK over the guarded client of `infra.egress.async_client`.

`mcp_listing` judges the tools of a server and reads its results, `mcp_wire` takes both from the wire. The SDK's own
validation of results is off: it would fetch the references in a server's schema and bypass the guard. Each listing and
each call is a session of its own. All sessions share one event loop in its own thread, so that a waiting caller can
abort a call.

For a refused request the SDK reports no status, so this module records the statuses of the answers. It retries a call
only if that call surely was not made.
"""

import asyncio
import concurrent.futures
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import anyio
import mcp_types as types
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from agent_jobs.errors import PermanentError, RetryableError, RunError
from agent_jobs.tools import mcp_listing, mcp_oauth
from agent_jobs.tools.answer_limits import UNKNOWN, cut
from agent_jobs.tools.declarations import MAX_DESCRIPTION
from agent_jobs.tools.mcp_wire import Seen, tapped
from agent_jobs.tools.tool_secrets import Filled
from agent_jobs.tools.types import Declared, Listing, OnStart, ToolAnswer
from infra.bounded_cache import BoundedCache
from infra.egress import async_client, requests_client

MAX_PAGES = 10
MAX_ANSWER_BYTES = 1024 * 1024
LISTED_SECONDS = 60.0
# The tools that MCP servers listed, by the declaration of the server.
_LISTED: BoundedCache[Listing] = BoundedCache(500)
_PARTING_SECONDS = 1.0
_SPARE_SECONDS = 5.0
CANCELED = "tool_server_canceled"
_SESSION = "mcp-session-id"
_FAILURES = (
    *(MCPError, ExceptionGroup, RuntimeError, ValueError, OSError, TimeoutError),
    *(anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream),
    *(*async_client.FAILURES, *mcp_oauth.FAILURES),
)
_T = TypeVar("_T")

logger = logging.getLogger(__name__)
# The SDK logs the servers' answers, which may echo our secrets.
logging.getLogger("mcp").setLevel(logging.CRITICAL + 1)


# --- Listing ---------------------------------------------------------------------------------------------------
def listed(
    org_id: str, stated: Mapping[str, Any], *, declare: Callable[..., Declared], on_start: OnStart | None = None
) -> Listing:
    """The server's tools that may be offered, cached for a minute.

    Raises RetryableError if the server is unavailable, PermanentError if it refuses us.
    """
    key = hashlib.sha256(json.dumps([org_id, stated], sort_keys=True).encode()).hexdigest()
    if (kept := _LISTED.get(key)) is not None:
        return kept
    name, seen = stated["name"], Seen()
    filled = Filled(org_id, stated.get("headers", {}), tool=name, url=stated["url"])
    auth = mcp_oauth.client_credentials(org_id, stated, filled, seen)

    async def ask(session: Client) -> tuple[str, list[Any]]:
        return await _all_tools(session, seen)

    try:
        mode, found = _run(_asked(stated, filled, seen, ask, auth), stated, on_start)
    except concurrent.futures.CancelledError:
        raise RetryableError(f"the listing of the tools of {name} was aborted", code=CANCELED) from None
    except _FAILURES as error:
        raise _not_had(name, error, seen, filled) from None
    _require_listed(stated, found)
    listing = mcp_listing.judged(stated, found, mode=mode, declare=declare, blotted=filled.blotted)
    if listing.left_out:
        logger.info(
            "left out %s tools of the MCP server %s of the organization %s", len(listing.left_out), name, org_id
        )
    _LISTED.put(key, listing, seconds=LISTED_SECONDS)
    return listing


async def _all_tools(session: Client, seen: Seen) -> tuple[str, list[Any]]:
    """The protocol mode for later requests, and the server's tools as it states them, up to our limits.

    An empty cursor is a cursor, and only its absence ends the list. But servers of older protocols end with an empty
    one, and begin anew if they get it: so a page that repeats an earlier one ends the list, too.
    """
    found: list[Any] = []
    pages: list[list[Any]] = []
    asked: set[str | None] = set()
    cursor: str | None = None
    seen.expected = "tools/list"
    while cursor not in asked and len(pages) < MAX_PAGES:
        asked.add(cursor)
        try:
            page = await session.list_tools(cursor=cursor)
        except MCPError:
            if cursor != "":
                raise
            break
        tools = seen.results[-1]["tools"] if len(seen.results) > len(pages) else []
        if tools in pages:
            break
        pages.append(tools)
        found += tools
        if (cursor := page.next_cursor) is None:
            break
    return "auto" if session.protocol_version in MODERN_PROTOCOL_VERSIONS else "legacy", found


def _require_listed(stated: Mapping[str, Any], found: list[Any]) -> None:
    """Raises if a tool that needs approval is not listed: renamed, it would run without a question to anybody."""
    approval = stated.get("requires_approval", False)
    names = {mcp_listing.name_of(tool) for tool in found}
    if isinstance(approval, list) and (unknown := sorted(set(approval) - names)):
        said = f"the tool server {stated['name']} does not list {unknown[0]!r}, which requires approval"
        raise RetryableError(said, code="tool_server_invalid")


def forget() -> None:
    """Drop the caches of listings and tokens."""
    _LISTED.clear()
    mcp_oauth.forget()


# --- Calling ---------------------------------------------------------------------------------------------------
def call(
    org_id: str, tool: Declared, arguments: Mapping[str, Any], *, key: str, on_start: OnStart | None = None
) -> ToolAnswer:
    """Make one call. `key` is sent as `_meta` "idempotency-key". Raises as `tools.call` does."""
    stated, seen = tool.settings, Seen()
    filled = Filled(org_id, stated.get("headers", {}), tool=tool.name, url=stated["url"])
    auth = mcp_oauth.client_credentials(org_id, stated, filled, seen)
    meta: Any = {"idempotency-key": key}
    names = stated.get("arguments", {})
    given = {names.get(name, name): value for name, value in arguments.items()}
    params = types.CallToolRequestParams(name=stated["tool"], arguments=given, _meta=meta)

    async def do(session: Client) -> Mapping[str, Any]:
        seen.begin_call()
        seen.expected = "tools/call"
        result = await session.session.send_request(types.CallToolRequest(params=params), types.CallToolResult)
        return seen.results[-1] if seen.results else result.model_dump(by_alias=True)

    try:
        result = _run(_asked(stated, filled, seen, do, auth), stated, on_start)
    except concurrent.futures.CancelledError:
        if not seen.is_calling:
            raise RetryableError(f"the call of {tool.name} was aborted", code="tool_call_canceled") from None
        return ToolAnswer(f"The call was given up. {UNKNOWN}", is_error=True)
    except _FAILURES as error:
        if not seen.is_calling or seen.refusal or seen.authorizing:
            raise _not_had(stated["name"], error, seen, filled) from None
        return _failed(tool, error, seen, filled)
    text, is_cut = cut(filled.blotted(mcp_listing.result_text(result)))
    note = f"(These are the first {len(text):,} characters.)\n\n" if is_cut else ""
    is_error = result.get("isError") is True
    failed = "The tool reports an error:\n" if is_error else ""
    return ToolAnswer(failed + note + (text or "(The answer is empty.)"), is_error=is_error)


def _failed(tool: Declared, error: BaseException, seen: Seen, filled: Filled) -> ToolAnswer:
    """The answer for the model after a call that was begun and failed. Raises RetryableError if it surely had no
    effect.
    """
    if seen.status in (429, 503) and seen.retry_after is not None:
        message = f"the tool {tool.name} answered {seen.status} and asks to wait"
        raise RetryableError(message, code="tool_busy", retry_after=seen.retry_after)
    if 400 <= seen.status < 500:
        return ToolAnswer(f"The server refused the call: HTTP {seen.status}.", is_error=True)
    if seen.words:
        said = cut(filled.blotted(seen.words))[0][:MAX_DESCRIPTION]
        return ToolAnswer(f"The server answered with an error: {said}", is_error=True)
    for leaf in _leaves(error):
        if reason := async_client.refused(leaf):
            return ToolAnswer(f"Not sent: the address {filled.blotted(reason)}.", is_error=True)
        if isinstance(leaf, MCPError) and leaf.code == seen.error_code and seen.status < 400:
            said = cut(filled.blotted(leaf.message))[0][:MAX_DESCRIPTION]
            return ToolAnswer(f"The server answered with the error {leaf.code}: {said}", is_error=True)
    if seen.trouble:
        return ToolAnswer(f"The call was sent, and its answer {seen.trouble}. {UNKNOWN}", is_error=True)
    if seen.is_late:
        late = f"no whole answer came within {_seconds(tool.settings):g} seconds"
        return ToolAnswer(f"The call was sent, and {late}. {UNKNOWN}", is_error=True)
    return ToolAnswer(f"The call was sent, and no valid answer came. {UNKNOWN}", is_error=True)


# --- Sessions --------------------------------------------------------------------------------------------------
async def _asked(
    stated: Mapping[str, Any],
    filled: Filled,
    seen: Seen,
    do: Callable[[Client], Awaitable[_T]],
    auth: mcp_oauth.ServerAuthorization | None,
) -> _T:
    """The result of `do` in a session of its own. Errors while the session closes do not matter."""
    rules = requests_client.rules()
    found: list[_T] = []
    async with async_client.client(rules, max_bytes=MAX_ANSWER_BYTES) as client:
        client.headers.update({"User-Agent": "agent-jobs", **filled.headers})
        client.event_hooks = {"response": [seen.note]}
        if auth is not None:
            client.auth = auth
        # We end the session ourselves: the SDK waits for that without a limit, even after an abort.
        transport = streamable_http_client(stated["url"], http_client=client, terminate_on_close=False)
        limit = asyncio.timeout(_seconds(stated))
        try:
            async with (
                limit,
                Client(
                    tapped(transport, seen),
                    mode=stated.get("mode", "auto"),
                    cache=None,
                    client_info=types.Implementation(name="agent-jobs", version="1"),
                ) as session,
            ):
                found.append(await do(session))
        except _FAILURES:
            seen.is_late = limit.expired()
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


def _not_had(name: str, error: BaseException, seen: Seen, filled: Filled) -> RunError:
    """The reason why a server's tools are unavailable, for an error before any tool was called."""
    if seen.refusal is not None:
        return seen.refusal
    who = f"authorization server {seen.authorizing} of {name}" if seen.authorizing else f"tool server {name}"
    for leaf in _leaves(error):
        if reason := async_client.refused(leaf):
            return PermanentError(
                f"the address of the {who} is not allowed: it {filled.blotted(reason)}", code="tool_server_refused"
            )
    if seen.authorizing:
        return RetryableError(f"the {who} was not reached", code="tool_server_unreachable")
    if seen.status in (408, 425, 429) or seen.status >= 500:
        said = f"the tool server {name} answered {seen.status}"
        return RetryableError(said, code="tool_server_unavailable", retry_after=seen.retry_after)
    if 400 <= seen.status < 500:
        return PermanentError(f"the tool server {name} answered {seen.status}", code="tool_server_refused")
    if seen.trouble:
        return RetryableError(f"the answer of the tool server {name} {seen.trouble}", code="tool_server_invalid")
    late = " within its timeout_seconds" if seen.is_late else ""
    if seen.status:
        said = f"the tool server {name} gave no answer that can be read{late}"
        return RetryableError(said, code="tool_server_invalid")
    return RetryableError(f"the tool server {name} was not reached{late}", code="tool_server_unreachable")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
