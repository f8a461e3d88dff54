"""The door of a web process that stops."""

import socket
import sys

import pytest

from config import gunicorn
from tests.waiting import PATIENCE


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has filters on sockets")
def test_a_closing_door_keeps_who_stands_in_it_and_lets_nobody_else_in():
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname(), timeout=PATIENCE) as early,
        socket.socket() as late,
    ):
        gunicorn.take_no_more(listener)
        late.settimeout(0.3)
        with pytest.raises(TimeoutError):
            late.connect(listener.getsockname())
        served, _ = listener.accept()
        with served:
            early.sendall(b"hello")
            assert served.recv(5) == b"hello"
