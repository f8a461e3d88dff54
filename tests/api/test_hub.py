"""Connections in the hub's hands: who does not read, who goes, who waits, and a database that is away."""

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connections

from agent_jobs.api import feeds, hub, streams
from agent_jobs.models import AppToken
from tests import factories, rows
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.django_db(transaction=True)
HEADERS = {"Content-Type": "text/event-stream", "X-Request-ID": "r1"}


class Client:
    """The other end of a stream that a hub of its own has adopted."""

    def __init__(self, big: int = 0) -> None:
        self.job = rows.job()
        factories.token()
        for number in range(big):
            self.happens(f"big.{number}.", input={"text": "x" * 10_000})
        self.hub = hub.Hub()
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.socket = theirs
        self.socket.settimeout(PATIENCE)
        token = AppToken.objects.get()
        opened = streams.EventStream("acme", self.job.pk, token.pk)
        self.taken = hub._OpenEvents(opened, HEADERS, is_chunked=True)
        self.hub.adopt(self.taken, ours)

    def happens(self, code: str = "x", **columns: Any) -> None:
        factories.activity(self.job, code, **columns)

    def read_until(self, text: bytes) -> bytes:
        read = b""
        while text not in read:
            some = self.socket.recv(65536)
            assert some, read
            read += some
        return read

    def close(self) -> None:
        self.socket.close()
        wait_for(lambda: self.hub.join(0), what="the hub has let it go")
        self.hub._asker.submit(connections.close_all).result(PATIENCE)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """Of a job with as many big activities as the test asks for by parameter."""
    monkeypatch.setattr(streams, "stopping", threading.Event())
    made = Client(getattr(request, "param", 0))
    yield made
    made.close()


def places() -> int:
    return streams.Place._taken.total()


def test_a_client_that_goes_makes_room(client: Client) -> None:
    assert b"retry: 2000" in client.read_until(b"\n\n")
    assert places() == 1
    client.socket.close()
    wait_for(lambda: places() == 0, what="its place is free")


def test_a_client_that_never_stops_talking_is_cut_off(client: Client) -> None:
    client.read_until(b"\n\n")
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        client.socket.sendall(b"x" * 10_000_000)
    wait_for(lambda: places() == 0, what="its place is free")


def test_a_quiet_stream_has_a_comment_now_and_then(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.3)
    client.read_until(b"\r\n:\n\n\r\n")
    client.happens("after.the.comment")
    client.read_until(b"after.the.comment")


@pytest.mark.parametrize("client", [150], indirect=True)
def test_who_does_not_read_is_given_no_more_than_so_much_and_cut_off_in_the_end(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "STALL_SECONDS", 3)
    most = 0

    def is_cut() -> bool:
        nonlocal most
        if client.taken.transport is not None:
            most = max(most, client.taken.transport.get_write_buffer_size())
        return places() == 0

    wait_for(is_cut, what="it is cut off")
    # One page may be on top of what was still allowed.
    assert 0 < most <= hub.MOST_UNSENT + feeds.PAGE * 12_000


@pytest.mark.parametrize("client", [150], indirect=True)
def test_who_reads_gets_everything_however_much_there_is(client: Client) -> None:
    read = client.read_until(b"big.149.")
    assert [number for number in range(150) if b"big.%d." % number not in read] == []


def test_a_database_that_is_away_for_a_while_costs_no_stream(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.read_until(b"\n\n")
    is_back = threading.Event()
    tried = threading.Event()
    look: Callable[..., Any] = streams.look

    def away(opened: Any) -> Any:
        if is_back.is_set():
            return look(opened)
        tried.set()
        raise OperationalError("the connection is closed")

    monkeypatch.setattr(streams, "look", away)
    monkeypatch.setattr(hub, "_PAUSE_SECONDS", 0.1)
    assert tried.wait(PATIENCE)
    client.happens("meanwhile")
    is_back.set()
    client.read_until(b"meanwhile")


def test_a_stop_ends_the_answer_as_a_whole(client: Client) -> None:
    client.read_until(b"\n\n")
    client.hub.stop()
    assert client.read_until(b"0\r\n\r\n").endswith(b"0\r\n\r\n")
    assert client.socket.recv(1) == b""
    assert client.hub.join(PATIENCE)
