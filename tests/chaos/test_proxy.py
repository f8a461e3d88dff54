"""The proxy harms as it is told, and only then."""

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from tests.chaos.proxy import STRETCH_BYTES, Proxy
from tests.waiting import PATIENCE, wait_for

SILENCE = 0.3  # seconds in which an unharmed echo has long come back


class _Echo(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    class _Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                while data := self.request.recv(65536):
                    self.request.sendall(data)

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self._Handler)


@pytest.fixture
def echo() -> Iterator[_Echo]:
    with _Echo() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def proxy(echo: _Echo) -> Iterator[Proxy]:
    with Proxy(("127.0.0.1", echo.server_address[1]), seed=7) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with _connected(proxy) as connection:
        assert _asked(connection, b"first") == b"first"
        yield connection


def _connected(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE)


def _asked(connection: socket.socket, question: bytes) -> bytes:
    connection.sendall(question)
    return _read(connection, len(question))


def _read(connection: socket.socket, size: int) -> bytes:
    answer = b""
    while len(answer) < size:
        piece = connection.recv(65536)
        if not piece:
            break
        answer += piece
    return answer


def _ask_until_it_ends(connection: socket.socket, *, times: int) -> None:
    for _ in range(times):
        if not _asked(connection, b"x" * 100):
            raise AssertionError("a FIN, not a reset")


def _is_silent(connection: socket.socket) -> bool:
    connection.settimeout(SILENCE)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(PATIENCE)
    return False


def test_unharmed_bytes_come_through_whole_and_in_order(client: socket.socket):
    question = bytes(range(256)) * 40_000  # 10 MB: more than any buffer between holds
    asking = threading.Thread(target=client.sendall, args=(question,))
    asking.start()
    assert _read(client, len(question)) == question
    asking.join()


def test_an_end_is_passed_on_after_what_was_said_before(client: socket.socket, proxy: Proxy):
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    assert _read(client, 100) == b"last words"
    wait_for(lambda: proxy.counts().open == 0, what="the connection is forgotten")


def test_latency_is_added_to_a_round_trip_and_keeps_the_order(client: socket.socket, proxy: Proxy):
    proxy.set(latency=0.2)
    began = time.monotonic()
    assert _asked(client, b"slow") == b"slow"
    assert time.monotonic() - began >= 0.2
    client.sendall(b"one ")
    proxy.set(latency=0)
    client.sendall(b"two")
    assert _read(client, 7) == b"one two"


def test_every_stretch_is_cut_at_a_share_of_one(client: socket.socket, proxy: Proxy):
    proxy.set(resets=1.0)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        _ask_until_it_ends(client, times=2 * STRETCH_BYTES // 100)
    assert proxy.counts().resets == 1


def test_resets_are_of_about_the_share_that_was_asked_for(proxy: Proxy):
    proxy.set(resets=0.5)
    cut = 0
    for _ in range(60):
        with _connected(proxy) as connection:
            try:
                # The draw is for a whole stretch, both ways together.
                _asked(connection, b"x" * (STRETCH_BYTES // 2))
            except (ConnectionResetError, BrokenPipeError):
                cut += 1
    assert 15 <= cut <= 45
    assert proxy.counts().resets == cut


def test_no_connection_is_reset_at_a_share_of_nought(client: socket.socket, proxy: Proxy):
    for _ in range(200):
        assert _asked(client, b"x" * 1000)
    assert proxy.counts().resets == 0


def test_a_black_hole_takes_connections_and_gives_nothing_until_it_is_over(client: socket.socket, proxy: Proxy):
    proxy.set(is_black_hole=True)
    client.sendall(b"old")
    with _connected(proxy) as newcomer:
        newcomer.sendall(b"new")
        assert _is_silent(client)
        assert _is_silent(newcomer)
        proxy.set(is_black_hole=False)
        assert _read(client, 3) == b"old"
        assert _read(newcomer, 3) == b"new"


def test_half_open_connections_stay_silent_and_new_ones_work(client: socket.socket, proxy: Proxy):
    assert proxy.half_open() == 1
    client.sendall(b"anybody?")
    assert _is_silent(client)
    with _connected(proxy) as newcomer:
        assert _asked(newcomer, b"new") == b"new"
        assert proxy.counts().silent == 1
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert _asked(newcomer, b"still") == b"still"


def test_refusing_lets_the_old_ones_live_and_nobody_else_take_the_port(client: socket.socket, proxy: Proxy):
    for _ in range(3):
        proxy.set(is_refusing=True)
        with pytest.raises(ConnectionRefusedError):
            _connected(proxy)
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", proxy.port))
        assert _asked(client, b"old") == b"old"
        proxy.heal()
        with _connected(proxy) as newcomer:
            assert _asked(newcomer, b"new") == b"new"


def test_cut_resets_every_connection_of_the_moment(client: socket.socket, proxy: Proxy):
    assert proxy.cut() == 1
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with _connected(proxy) as newcomer:
        assert _asked(newcomer, b"new") == b"new"
    assert proxy.counts().resets == 1


def test_a_target_that_refuses_resets_the_client():
    def talk(proxy: Proxy) -> None:
        with _connected(proxy) as client:
            _ask_until_it_ends(client, times=100)

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen: nobody else can take the port meanwhile
        # The reset may come even before the connection counts as made.
        with Proxy(closed.getsockname()) as proxy, pytest.raises((ConnectionResetError, BrokenPipeError)):
            talk(proxy)


def test_it_is_steered_from_many_threads(proxy: Proxy):
    def steer() -> None:
        for _ in range(50):
            proxy.set(latency=0.001)
            assert proxy.counts().opened == 0

    threads = [threading.Thread(target=steer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with _connected(proxy) as client:
        assert _asked(client, b"alive") == b"alive"


def test_an_unknown_harm_is_refused(proxy: Proxy):
    with pytest.raises(ValueError, match="latencies"):
        proxy.set(latencies=1)
