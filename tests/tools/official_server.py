"""Serves an application of the official MCP SDK on loopback."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from tests.waiting import PATIENCE, wait_for


def listening() -> tuple[socket.socket, str]:
    """A socket for `serving`, and its address: some applications have to know it before they are made."""
    bound = socket.create_server(("127.0.0.1", 0))
    return bound, f"http://127.0.0.1:{bound.getsockname()[1]}"


@contextmanager
def serving(app: Any, bound: socket.socket) -> Iterator[None]:
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    wait_for(lambda: server.started, what="the server has started")
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
