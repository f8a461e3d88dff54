"""Judges the tools that an MCP server lists, one at a time.

A server's descriptions of its tools are untrusted. Names and schemas are fitted to what providers take, descriptions
are bounded, and a malformed tool is left out with its reason. The other tools stay.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mcp.shared.inbound import find_invalid_x_mcp_header

from agent_jobs.tools import foreign_schemas
from agent_jobs.tools.answer_limits import cut
from agent_jobs.tools.declarations import MAX_DESCRIPTION
from agent_jobs.tools.types import Declared, LeftOut, Listing

MAX_TOOLS = 127
# Characters of all schemas that are validated, including refused ones: it bounds the cost of a listing.
MAX_JUDGED = 500_000
_NAME = re.compile(r"[\x20-\x7e]{1,128}")
_LONGEST_NAME = 64
_MOST_LEFT_OUT = 100


def judged(
    stated: Mapping[str, Any],
    found: Sequence[Any],
    *,
    mode: str,
    declare: Callable[..., Declared],
    blotted: Callable[[str], str],
) -> Listing:
    """The tools of a listing that may be offered, and those that are left out. `blotted` replaces our own secrets by a
    mask.
    """
    server, allowed = stated["name"], stated.get("allowed")
    tools: dict[str, Declared] = {}
    left_out: list[LeftOut] = []
    seen: set[str] = set()
    judged_size = 0

    def leave_out(name: str, reason: str) -> None:
        if len(left_out) < _MOST_LEFT_OUT:
            left_out.append(LeftOut(server, blotted(_plain(name))[:128], reason))

    longest = _LONGEST_NAME - len(server) - 2
    names = {name for name in map(name_of, found) if re.fullmatch(rf"[A-Za-z0-9_-]{{1,{longest}}}", name)}
    for tool in found:
        name = name_of(tool)
        if allowed is not None and name not in allowed:
            continue
        if len(tools) >= MAX_TOOLS or judged_size > MAX_JUDGED:
            leave_out(name, "the server lists too many tools, or too large ones")
            break
        if not _NAME.fullmatch(name):
            leave_out(name, "its name is not 1 to 128 printable ASCII characters")
            continue
        if name in seen:
            leave_out(name, "the server lists another tool with this name")
            continue
        seen.add(name)
        judged_size += len(str(tool.get("inputSchema")))
        try:
            if mode == "auto" and find_invalid_x_mcp_header(tool.get("inputSchema")):
                raise foreign_schemas.Malformed("its inputSchema has an invalid x-mcp-header")
            parameters, arguments = foreign_schemas.fitted(tool.get("inputSchema"))
        except foreign_schemas.Malformed as error:
            leave_out(name, str(error))
            continue
        taken = (names | {one.removeprefix(f"{server}__") for one in tools}) - {name}
        full_name = f"{server}__{foreign_schemas.unique_name(name, taken, longest=longest)}"
        approval = stated.get("requires_approval", False)
        tools[full_name] = declare(
            {
                **stated,
                "description": blotted(_description(tool, name))[:MAX_DESCRIPTION],
                "requires_approval": approval if isinstance(approval, bool) else name in approval,
                "tool": name,
                "mode": mode,
                "arguments": arguments,
            },
            name=full_name,
            parameters=parameters,
        )
    for name in sorted(set(allowed or ()) - {name_of(tool) for tool in found}):
        leave_out(name, "the server does not list it")
    return Listing(tuple(tools.values()), tuple(left_out))


def name_of(tool: Any) -> str:
    """The name of a listed tool; empty if it has none."""
    name = tool.get("name") if isinstance(tool, Mapping) else None
    return name if isinstance(name, str) else ""


def _description(tool: Mapping[str, Any], name: str) -> str:
    for key in ("description", "title"):
        if isinstance(tool.get(key), str) and tool[key].strip():
            return _plain(tool[key])
    return name


def _plain(text: str) -> str:
    return cut(" ".join(text.split()))[0]


def result_text(result: Mapping[str, Any]) -> str:
    """The content of a result of `tools/call`, as text for the model: of an odd one, as much as can be read."""
    content = result.get("content")
    blocks = content if isinstance(content, list) else [content] if content is not None else []
    texts = [text for text in map(_block_text, blocks) if text.strip()]
    structured = result.get("structuredContent")
    if structured is not None and not _says(texts, structured):
        texts.append(json.dumps(structured, ensure_ascii=False))
    return "\n".join(texts)


_LONGEST_ODD_BLOCK = 2_000


def _block_text(block: Any) -> str:
    if isinstance(block, str):
        return block
    if not isinstance(block, Mapping):
        return json.dumps(block, ensure_ascii=False)[:_LONGEST_ODD_BLOCK]
    if isinstance(block.get("text"), str):
        return str(block["text"])
    kind = str(block.get("type"))[:40]
    resource = block.get("resource")
    if kind == "resource" and isinstance(resource, Mapping):
        if isinstance(resource.get("text"), str):
            return str(resource["text"])
        return f"(resource {_named(resource)}, not shown)"
    if kind == "resource_link":
        return f"(link: {_named(block)})"
    if kind in ("image", "audio"):
        return f"({kind}, not shown)"
    return f"({kind}) {json.dumps(block, ensure_ascii=False)[:_LONGEST_ODD_BLOCK]}"


def _named(block: Mapping[str, Any]) -> str:
    words = [str(block[key]) for key in ("uri", "title", "name", "mimeType", "description") if block.get(key)]
    return ", ".join(dict.fromkeys(words))[:_LONGEST_ODD_BLOCK]


def _says(texts: Sequence[str], structured: Any) -> bool:
    """Whether the texts hold the structured content already. Servers wrap what is no object as `{"result": …}`."""
    read = [_read(text) for text in texts]
    wrapped = structured["result"] if isinstance(structured, Mapping) and set(structured) == {"result"} else structured
    if any(value in read for value in (structured, wrapped)):
        return True
    return wrapped in texts or (isinstance(wrapped, list) and wrapped in (read, list(texts)))


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
