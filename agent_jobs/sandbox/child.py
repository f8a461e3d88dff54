"""The child process: answers one request at a time, until its parent closes the socket.

Before each request it sets a CPU timer whose signal ends the process. That also stops code that never returns to
Python. The kernel limits memory. A frame is a length and JSON. A request may get several answers; each but the last
reports what is known so far.
"""

import json
import resource
import signal
import socket
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from agent_jobs.sandbox import templates, validators

CPU_SECONDS = 0.25
MEMORY_MB = 64
_HEAD = struct.Struct("!I")
# The parent replaces a child that has grown by this much, or has served this many requests.
_WORN_MB = MEMORY_MB // 2
_WORN_REQUESTS = 1_000
_compiled = lru_cache(maxsize=20)(templates.compiled)


def send(connection: socket.socket, message: Any) -> None:
    text = json.dumps(message).encode()
    connection.sendall(_HEAD.pack(len(text)) + text)


def receive(connection: socket.socket) -> Any:
    """Read one frame. Raises EOFError if the other side has closed the socket."""
    (size,) = _HEAD.unpack(_exactly(connection, _HEAD.size))
    return json.loads(_exactly(connection, size))


def _exactly(connection: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        chunk = connection.recv(min(size - len(found), 1 << 16))
        if not chunk:
            raise EOFError
        found += chunk
    return bytes(found)


def _answers(request: dict[str, Any]) -> Iterator[Any]:
    match request:
        case {"do": "compile", "schema": schema, "at": at}:
            yield validators.compile_fault(schema, at)
        case {"do": "validate", "schema": schema, "instance": instance, "at": at}:
            if validators.is_valid(schema, json.loads(instance)):
                yield []
            else:
                yield None  # invalid: building the errors may exceed the CPU limit
                yield validators.faults(schema, json.loads(instance), at)
        case {"do": "check", "template": template}:
            yield templates.complaint(template)
        case {"do": "render", "template": template, "params": params}:
            try:
                yield {"text": templates.render(_compiled(template), json.loads(params))}
            except templates.TemplateFault as fault:
                yield {"fault": str(fault)}


def _serve(connection: socket.socket) -> None:
    served, first_mb = 0, _peak_mb()
    while True:
        try:
            request = receive(connection)
        except (EOFError, ConnectionError):
            return
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        served += 1
        try:
            for answer in _answers(request):
                send(connection, {"answer": answer, "is_last": False})
        except (MemoryError, RecursionError, ValueError):
            return  # the parent treats this like any other death
        is_worn = served >= _WORN_REQUESTS or _peak_mb() - first_mb > _WORN_MB
        send(connection, {"is_last": True, "is_worn": is_worn})
        signal.setitimer(signal.ITIMER_PROF, 0)


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _limit_memory() -> None:
    """RLIMIT_DATA counts writable private memory. On other systems than Linux only the CPU timer applies."""
    try:
        with open("/proc/self/statm") as statm:
            now = int(statm.read().split()[5]) * resource.getpagesize()
    except OSError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = now + MEMORY_MB * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    # A terminal or supervisor signals all processes of a group; this one ends only when its parent closes the socket.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    connection = socket.socket(fileno=0)
    _limit_memory()
    send(connection, {"answer": "ready", "is_last": True})
    _serve(connection)
