"""Tools of the kind `http`: one guarded request for each call.

Either the declaration has the address, with placeholders for arguments in path and query, or the model gives the
address and the declaration limits the hosts. Nothing from the model reaches a header, and no header reaches the model.
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from agent_jobs.errors import RetryableError
from agent_jobs.tools.answer_limits import MAX_TEXT, UNKNOWN, cut, decoded
from agent_jobs.tools.declarations import NO_ARGUMENTS, PLACEHOLDER, is_covered
from agent_jobs.tools.tool_secrets import Filled
from agent_jobs.tools.types import Declared, OnStart, ToolAnswer
from infra.egress import requests_client, retry_after, unpacking

_SAFE = ("GET",)
_WITHOUT_BODY = ("GET", "DELETE")


def parameters(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of the arguments that the model sees, from a declaration."""
    methods = list(tool.get("methods", ()))
    method = {"method": {"enum": methods, "description": "The method of the request."}} if len(methods) > 1 else {}
    if "url" in tool:
        schema = dict(tool.get("parameters", NO_ARGUMENTS))
        if not method:
            return schema
        schema["properties"] = {**schema.get("properties", {}), **method}
        return {**schema, "required": [*schema.get("required", []), "method"]}
    hosts = ", ".join(tool["allowed_hosts"])
    properties: dict[str, Any] = {
        "url": {"type": "string", "maxLength": 2_000, "description": f"An https address; hosts: {hosts}."},
        **method,
    }
    if any(word not in _WITHOUT_BODY for word in methods or [tool.get("method", "GET")]):
        properties["body"] = {"type": "object", "description": "Sent as JSON."}
    return {
        "type": "object",
        "properties": properties,
        "required": ["url", *method],
        "additionalProperties": False,
    }


def call(
    org_id: str, tool: Declared, arguments: Mapping[str, Any], *, key: str, on_start: OnStart | None = None
) -> ToolAnswer:
    """Make one call. Raises RetryableError if the request surely had no effect, PermanentError if a secret is
    unavailable.
    """
    settings = tool.settings
    given = dict(arguments)
    method = _method(settings, given)
    try:
        url = _filled(settings["url"], given) if "url" in settings else _chosen(settings, given)
    except _Unfit as error:
        return ToolAnswer(f"Not sent: {error}.", is_error=True)
    body: bytes | None = None
    headers = {"Accept": "application/json, text/plain;q=0.9, */*;q=0.5", "Idempotency-Key": key}
    if "url" not in settings:
        given = given.get("body", {})
    if settings.get("body", "query" if method in _WITHOUT_BODY else "arguments") == "query":
        url = _with_query(url, given)
    elif method not in _WITHOUT_BODY or given:
        body = json.dumps(given).encode()
        headers["Content-Type"] = "application/json"
    filled = Filled(org_id, settings.get("headers", {}), tool=tool.name, url=url)
    try:
        answer = requests_client.request(
            method,
            url,
            body=body,
            headers={**headers, **filled.headers},
            seconds=tool.timeout_seconds,
            on_start=on_start,
        )
    except requests_client.Refused as error:
        return ToolAnswer(f"Not sent: the address {error}.", is_error=True)
    except requests_client.NotConnected as error:
        # The model can correct an address that it chose.
        if "url" not in settings:
            return ToolAnswer(f"Not sent: {error}.", is_error=True)
        raise RetryableError(f"the tool {tool.name} was not reached: {error}", code="tool_unreachable") from None
    except requests_client.NoAnswer:
        what = "No answer came." if method in _SAFE else f"The request was sent, and no answer came. {UNKNOWN}"
        return ToolAnswer(what, is_error=True)
    return _told(tool, method, answer, filled)


# --- The request -----------------------------------------------------------------------------------------------
class _Unfit(Exception):
    """The model's arguments make no valid request."""


def _method(settings: Mapping[str, Any], given: dict[str, Any]) -> str:
    methods = settings.get("methods") or [settings.get("method", "GET")]
    return str(given.pop("method")) if len(methods) > 1 else str(methods[0])


def _filled(template: str, given: dict[str, Any]) -> str:
    """The declared address with arguments in its placeholders. Removes these arguments from `given`."""
    taken: set[str] = set()

    def value(found: Any) -> str:
        taken.add(found[1])
        return quote(_written(found[1], given.get(found[1])), safe="")

    path, mark, query = template.partition("?")
    path, query = PLACEHOLDER.sub(value, path), PLACEHOLDER.sub(value, query)
    # HTTP clients normalise paths: `/users/../admin` would become another address.
    if any(segment in (".", "..") for segment in path.split("/")):
        raise _Unfit("an argument would lead to another address")
    for name in taken:
        if given.get(name) == "" and f"{{{name}}}" in template.partition("?")[0]:
            raise _Unfit(f"{name} may not be empty")
        given.pop(name, None)
    return path + mark + query


def _chosen(settings: Mapping[str, Any], given: dict[str, Any]) -> str:
    """The address that the model chose, if its host is allowed."""
    url = str(given.pop("url"))
    if reason := requests_client.refusal_of_shape(url):
        raise _Unfit(f"the address {reason}")
    host = (urlsplit(url).hostname or "").lower()  # the guard has refused ambiguous addresses
    if is_covered(host, settings["allowed_hosts"]):
        return url
    raise _Unfit(f"the host {host[:100]} is not one of {', '.join(settings['allowed_hosts'])}")


def _with_query(url: str, given: Mapping[str, Any]) -> str:
    pairs = [
        (name, _written(name, one))
        for name, value in given.items()
        for one in (value if isinstance(value, list) else [value])
        if one is not None
    ]
    if not pairs:
        return url
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(pairs)}"


def _written(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        try:
            str(value).encode()
        except UnicodeEncodeError:
            raise _Unfit(f"{name} is not valid text") from None
        return str(value)
    raise _Unfit(f"{name} must be a text, a number, or true or false: it goes into the address")


# --- The answer ------------------------------------------------------------------------------------------------
def _told(tool: Declared, method: str, answer: requests_client.Answer, filled: Filled) -> ToolAnswer:
    wait = retry_after.seconds(answer.headers.get("Retry-After", "")) if answer.status in (429, 503) else None
    if wait is not None:
        message = f"the tool {tool.name} answered {answer.status} and asks to wait"
        raise RetryableError(message, code="tool_busy", retry_after=wait)
    lines = [f"HTTP {answer.status}"]
    if 300 <= answer.status < 400:
        lines.append("(Redirects are not followed.)")
    if answer.status >= 500 and method not in _SAFE:
        lines.append(UNKNOWN)
    written, is_whole = _text(answer)
    text, is_cut = cut(filled.blotted(written))
    if not is_whole:
        lines.append("(The answer is incomplete or too long: this is its beginning.)")
    elif is_cut:
        lines.append(f"(These are the first {MAX_TEXT:,} characters.)")
    return ToolAnswer("\n".join([*lines, "", text]).rstrip(), is_error=not 200 <= answer.status < 300)


def _text(answer: requests_client.Answer) -> tuple[str, bool]:
    """The answer as text, and whether it is whole. Unpacks it, and reads it by the charset that it names."""
    kind, _, options = answer.headers.get("Content-Type", "").partition(";")
    kind = kind.strip().lower()
    coding = answer.headers.get("Content-Encoding", "").strip().lower()
    body, is_whole = answer.body, answer.is_whole
    is_text = not kind or kind.startswith("text/") or kind.endswith(("json", "xml", "x-www-form-urlencoded", "yaml"))
    if body and is_text and unpacking.is_supported(coding):
        try:
            body, is_all = unpacking.unpacked(body, at_most=requests_client.MAX_ANSWER_BYTES)
            is_whole = is_whole and is_all
        except unpacking.Damaged:
            is_text = False
    elif coding not in unpacking.IDENTITY:
        is_text = False
    if body and not is_text:
        return f"({len(body):,} bytes that are not text)", is_whole
    return decoded(body, options), is_whole
