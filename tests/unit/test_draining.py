"""Closing a listening socket cuts off no client that has connected (Linux only)."""

import socket
import sys
from collections.abc import Iterator

import pytest

from config import draining
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="SO_BINDTOIFINDEX and /proc are Linux's")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as listener:
        yield listener


def connect(address: tuple[str, int]) -> None:
    socket.create_connection(address, timeout=PATIENCE).close()


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


def test_a_later_client_is_refused(listener: socket.socket) -> None:
    draining.refuse_connections(listener)
    address = listener.getsockname()
    for _ in range(20):
        with pytest.raises(ConnectionRefusedError):
            connect(address)
    assert not draining.is_unread({address[1]})  # so closing resets nobody


def test_a_later_client_reaches_the_next_process_on_the_port(listener: socket.socket) -> None:
    draining.refuse_connections(listener)
    with socket.create_server(listener.getsockname(), reuse_port=True) as following:
        for _ in range(20):  # none of them is given to the old one
            connect(listener.getsockname())
            following.accept()[0].close()
