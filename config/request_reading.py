"""Reads a request: its head as a WSGI environment, and its body, within limits of size and time.

The longest body is settings.MAX_BODY_BYTES, or `max_body_bytes` of a view that states it.
"""

import asyncio
import io
import sys
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from django.conf import settings
from django.urls import Resolver404, resolve

from agent_jobs.api import throttling
from channels_integration import urls

# Limits for clients: send some of the body within BODY_IDLE_SECONDS, and all of it within BODY_SECONDS.
BODY_IDLE_SECONDS = 30.0
BODY_SECONDS = 60.0
# A list's address may name a hundred filters; a header carries one token.
MOST_LINE = MOST_HEADER = 8190
MOST_HEAD = 64 * 1024
# Paths that accept larger bodies than MAX_BODY_BYTES.
_MOST_AT_PREFIXES = {"/admin/": settings.DATA_UPLOAD_MAX_MEMORY_SIZE, "/channels/": urls.MAX_BODY_BYTES}

Receive = Callable[[], Awaitable[dict[str, Any]]]


class ClientGone(Exception):
    """The client has disconnected, or does not read."""


class RequestRefusal(Exception):
    """A refusal before Django: it has the API's error format, and quotes nothing of the request."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def environ_of(scope: dict[str, Any]) -> dict[str, Any]:
    """The WSGI environment, without a body."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    if len(path) + len(query) > MOST_LINE:
        raise RequestRefusal(414, "bad_request", "the request cannot be read: its address is too long")
    client, server = scope.get("client") or ("", 0), scope.get("server") or ("", 0)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": client[0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MOST_HEAD:
        raise RequestRefusal(431, "bad_request", "the request cannot be read: its headers are too long")
    for raw_name, raw_value in scope["headers"]:
        if len(raw_name) + len(raw_value) > MOST_HEADER:
            raise RequestRefusal(431, "bad_request", "the request cannot be read: one of its headers is too long")
        if b"_" in raw_name:
            continue  # else X_Forwarded_For would be taken for X-Forwarded-For
        name, value = raw_name.decode("latin-1").upper().replace("-", "_"), raw_value.decode("latin-1")
        name = name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
        environ[name] = f"{environ[name]},{value}" if name in environ else value
    if environ.get("HTTP_X_FORWARDED_PROTO") == "https" and throttling.is_proxy(client[0]):
        environ["wsgi.url_scheme"] = "https"
    return environ


def length_to_read(environ: dict[str, Any]) -> int:
    """The bytes to read; 0 also for a body that Django refuses by its headers: too long, or chunked."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    is_read = length <= settings.MAX_BODY_BYTES or length <= _most_at(environ["PATH_INFO"])
    return length if is_read and "HTTP_TRANSFER_ENCODING" not in environ else 0


def _most_at(path: str) -> int:
    """The longest body that is read at this address: its view says so."""
    if prefix := next((prefix for prefix in _MOST_AT_PREFIXES if path.startswith(prefix)), None):
        return _MOST_AT_PREFIXES[prefix]
    try:
        found = resolve(path)
    except Resolver404:
        return settings.MAX_BODY_BYTES
    return int(getattr(getattr(found.func, "cls", None), "max_body_bytes", settings.MAX_BODY_BYTES))


async def body_of(receive: Receive) -> bytes:
    parts = []
    try:
        async with asyncio.timeout(BODY_SECONDS):
            is_more = True
            while is_more:
                async with asyncio.timeout(BODY_IDLE_SECONDS):
                    message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                parts.append(message.get("body", b""))
                is_more = message.get("more_body", False)
    except TimeoutError:
        raise RequestRefusal(408, "request_timeout", "the body did not arrive in time") from None
    return b"".join(parts)


async def left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
