"""The tools of an agent: its job type declares them, its profile allows them, and this package calls them, one at a
time.

`declarations` validates declarations, `http_tool` calls tools of the kind `http`, `mcp_tool` calls MCP servers, and
`tool_secrets` stores credentials. The journal records calls with their outcomes. It also performs the two tools without
an outside server, `send_message` and `ask_approval`.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from agent_jobs.audit import audit_log
from agent_jobs.errors import RunError, Unsupported
from agent_jobs.sandbox import json_schema
from agent_jobs.tools import http_tool, tool_secrets
from agent_jobs.tools.declarations import allowed_complaint, check, without_nulls
from agent_jobs.tools.types import Declared, LeftOut, OnStart, ToolAnswer
from infra.egress import addresses

__all__ = [
    "Declared",
    "LeftOut",
    "OnStart",
    "ToolAnswer",
    "allowed_complaint",
    "argument_errors",
    "blotted",
    "call",
    "check",
    "offered",
    "without_nulls",
]

MAX_ARGUMENTS = 100_000
# OpenAI takes 128 tools, and one of them ends the turn.
MAX_OFFERED = 127
_BUILT_IN: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "send_message": (
        "Say something in the channel now, and go on working.",
        {
            "type": "object",
            "properties": {"text": {"type": "string", "minLength": 1, "maxLength": 10_000, "pattern": r"\S"}},
            "required": ["text"],
            "additionalProperties": False,
        },
    ),
    "ask_approval": (
        "Ask a person to approve what you are about to do, and wait for the decision.",
        {
            "type": "object",
            "properties": {
                "question": {"type": "string", "minLength": 1, "maxLength": 1_000, "pattern": r"\S"},
                "details": {"type": "string", "maxLength": 4_000, "description": "What the person has to know."},
            },
            "required": ["question"],
            "additionalProperties": False,
        },
    ),
}


def offered(
    org_id: str,
    declared: Sequence[Mapping[str, Any]],
    *,
    allowed: Sequence[str] | None,
    on_start: OnStart | None = None,
    leave_out: Callable[[LeftOut], object] = lambda left_out: None,
) -> tuple[Declared, ...]:
    """The tools that the model may call, in the order of the declarations. `allowed` are names; None allows all.

    Lists the tools of MCP servers, cached for a minute. Raises RetryableError if a server is unavailable,
    PermanentError if it refuses us. `leave_out` is called for each tool of a server that cannot be offered, and for a
    server with `optional: true` that is unavailable.
    """
    found: dict[str, Declared] = {}
    with addresses.asking_for(org_id):
        for stated in declared:
            for tool in _offered(org_id, stated, allowed, on_start, leave_out):
                if _is_allowed(tool, allowed):
                    found.setdefault(tool.name, tool)
    for tool in list(found.values())[MAX_OFFERED:]:
        leave_out(LeftOut("", tool.name, f"the agent has more than {MAX_OFFERED} tools"))
    return tuple(found.values())[:MAX_OFFERED]


def argument_errors(tool: Declared, arguments: Mapping[str, Any]) -> str:
    """The errors in a call's arguments as a sentence for the model; empty if there are none."""
    try:
        size = len(json.dumps(arguments, allow_nan=False))
    except (TypeError, ValueError):
        return "The arguments are not JSON."
    if size > MAX_ARGUMENTS:
        return f"The arguments are too long: at most {MAX_ARGUMENTS:,} characters."
    errors = json_schema.params_errors(tool.parameters, arguments, at="arguments")
    told = "; ".join(f"{error.field} {error.message}" for error in errors[:5])
    return f"The arguments do not fit: {told}." if told else ""


def call(
    org_id: str, tool: Declared, arguments: Mapping[str, Any], *, key: str, on_start: OnStart | None = None
) -> ToolAnswer:
    """Call the tool once. `key` is sent as Idempotency-Key: the same for the same step of a turn.

    If the call may have taken effect, the answer says so. Raises RetryableError if it surely did not (not reached,
    asked to wait) and PermanentError if it is impossible (a missing secret). `on_start` receives a function that aborts
    the call from any thread.
    """
    if complaint := argument_errors(tool, arguments):
        return ToolAnswer(complaint, is_error=True)
    with addresses.asking_for(org_id):
        if tool.kind == "http":
            return http_tool.call(org_id, tool, arguments, key=key, on_start=on_start)
        if tool.kind == "mcp":
            from agent_jobs.tools import mcp_tool  # on the first call: the SDK takes seconds to load

            return mcp_tool.call(org_id, tool, arguments, key=key, on_start=on_start)
    raise AssertionError(f"no code calls tools of the kind {tool.kind}")


def blotted(org_id: str, tool: Declared, arguments: Mapping[str, Any]) -> Any:
    """The arguments as activities show them: the tool's own secrets and texts under secret-like names are masked."""
    shown = audit_log.masked(dict(arguments))
    oauth = tool.settings.get("oauth", {})
    named = {**tool.settings.get("headers", {}), "oauth": oauth.get("client_secret", "")}
    blotter = tool_secrets.blotter(org_id, named)
    try:
        return json.loads(blotter.blotted(json.dumps(shown))) if blotter else shown
    except ValueError:
        return audit_log.MASK


def _offered(
    org_id: str,
    stated: Mapping[str, Any],
    allowed: Sequence[str] | None,
    on_start: OnStart | None,
    leave_out: Callable[[LeftOut], object],
) -> Iterator[Declared]:
    kind = stated["type"]
    if kind == "mcp":
        if allowed is not None and not any(re.split(r"__|\.", name)[0] == stated["name"] for name in allowed):
            return  # no tool of this server is allowed, so skip the listing
        from agent_jobs.tools import mcp_tool

        try:
            listing = mcp_tool.listed(org_id, stated, declare=_declared, on_start=on_start)
        except RunError as error:
            is_away = error.code.startswith("tool_server_") and error.code != mcp_tool.CANCELED
            if not (stated.get("optional") and is_away):
                raise
            leave_out(LeftOut(stated["name"], "", error.message))
            return
        yield from listing.tools
        for one in listing.left_out:
            if allowed is None or stated["name"] in allowed or f"{one.server}.{one.tool}" in allowed:
                leave_out(one)
    if kind == "http":
        yield _declared(stated, name=stated["name"], parameters=http_tool.parameters(stated))
    elif kind in _BUILT_IN:
        description, parameters = _BUILT_IN[kind]
        yield _declared({"description": description, **stated}, name=kind, parameters=parameters)
    elif kind != "mcp":
        raise Unsupported(f"this worker knows no tools of the type {kind!r}")


def _declared(stated: Mapping[str, Any], *, name: str, parameters: Mapping[str, Any]) -> Declared:
    return Declared(
        name=name,
        kind=stated["type"],
        description=stated["description"],
        parameters=parameters,
        requires_approval=bool(stated.get("requires_approval", False)),
        approvers=tuple(stated.get("approvers", ())),
        approval_minutes=stated.get("approval_minutes", 60),
        on_timeout=stated.get("on_timeout", "deny"),
        is_idempotent=stated.get("is_idempotent", False),
        timeout_seconds=stated.get("timeout_seconds", 10),
        settings=stated,
    )


def _is_allowed(tool: Declared, allowed: Sequence[str] | None) -> bool:
    """`server.tool` allows one tool of a server, `server` all of them."""
    if allowed is None:
        return True
    server, _, rest = tool.name.partition("__")
    if tool.kind != "mcp":
        return tool.name in allowed
    names = (tool.name, server, f"{server}.{rest}", f"{server}.{tool.settings['tool']}")
    return any(name in allowed for name in names)
