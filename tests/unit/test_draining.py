"""Closing a listening socket cuts off no client that has connected (Linux only)."""

import socket
import sys
import threading
from collections.abc import Iterator

import pytest

from config import draining
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="socket filters and /proc are Linux's")
# A client whose first segment is dropped repeats it after a second.
UNHEARD_SECONDS = 0.4


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as listener:
        yield listener


class Client(threading.Thread):
    """Connects, and says what came of it."""

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__()
        self.address, self.outcome = address, ""
        self.start()

    def run(self) -> None:
        try:
            socket.create_connection(self.address, timeout=PATIENCE).close()
        except OSError as error:
            self.outcome = type(error).__name__
        else:
            self.outcome = "connected"


def test_a_connection_that_waits_to_be_accepted_is_still_answered(listener: socket.socket) -> None:
    address = listener.getsockname()
    ports = {address[1]}
    with socket.create_connection(address, timeout=PATIENCE) as client:
        assert draining.refuse_connections(listener)
        assert draining.is_unread(ports)
        accepted, _ = listener.accept()
        listener.close()
        with accepted:
            assert draining.is_unread(ports)  # nothing has come yet
            client.sendall(b"question")
            wait_for(lambda: len(accepted.recv(100, socket.MSG_PEEK)) == 8, what="the question arrives")
            assert draining.is_unread(ports)
            assert accepted.recv(100) == b"question"
            assert not draining.is_unread(ports)
            accepted.sendall(b"answer")
            assert client.recv(100) == b"answer"


def test_a_later_client_is_refused_once_the_listener_is_closed(listener: socket.socket) -> None:
    draining.refuse_connections(listener)
    address = listener.getsockname()
    client = Client(address)
    client.join(UNHEARD_SECONDS)
    assert client.outcome == ""
    assert not draining.is_unread({address[1]})  # so closing resets nobody
    listener.close()
    client.join(PATIENCE)
    assert client.outcome == "ConnectionRefusedError"


def test_a_later_client_reaches_the_next_process_on_the_port(listener: socket.socket) -> None:
    draining.refuse_connections(listener)
    address = listener.getsockname()
    client = Client(address)
    client.join(UNHEARD_SECONDS)
    assert client.outcome == ""
    with socket.create_server(address, reuse_port=True):
        listener.close()
        client.join(PATIENCE)
        assert client.outcome == "connected"
