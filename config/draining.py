"""Closes a web process to new connections, and waits until it has read those that it has. Linux only.

A socket that stops listening resets the connections that it has not yet accepted. granian also closes connections from
which it has read nothing. Both would cut off clients whose request is on its way.

So the listening socket is first bound to a network interface that does not exist (SO_BINDTOIFINDEX). New connections
then go to another process that listens on the port, or are refused before the client has sent anything. Meanwhile
granian accepts and reads the connections that are left. Linux allows this to ordinary users since 5.7. A socket filter
would have the same effect, but newer kernels refuse filters of ordinary users.
"""

import asyncio
import fcntl
import logging
import os
import socket
import stat
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress

log = logging.getLogger(__name__)
# Time for a handshake that has begun to end.
_ROUND_TRIP_SECONDS = 0.3
# For clients that connect and send nothing, and for large bodies (granian waits for their requests in any case).
_MOST_SECONDS = 3.0
_LOOK_SECONDS = 0.05
_SO_BINDTOIFINDEX = 62  # asm-generic/socket.h; the socket module of Python 3.11 does not name it
_NO_INTERFACE = 2**31 - 1
# Fields of `struct tcp_info`. `tcpi_unacked` of a listening socket counts the connections that wait to be accepted.
_STATE, _ESTABLISHED = 0, 1
_UNACKED = slice(24, 28)
_BYTES_RECEIVED = slice(128, 136)


async def drain() -> None:
    """Return when this process accepts no new connection and has read from each that it has, or after _MOST_SECONDS."""
    if sys.platform != "linux":
        return
    ports = {one.getsockname()[1] for one in _tcp_sockets() if _listens(one) and refuse_connections(one)}
    if not ports:
        return
    await asyncio.sleep(_ROUND_TRIP_SECONDS)
    loop = asyncio.get_running_loop()
    end = loop.time() + _MOST_SECONDS
    while is_unread(ports) and loop.time() < end:
        await asyncio.sleep(_LOOK_SECONDS)


def refuse_connections(listener: socket.socket) -> bool:
    """Hide the listening socket from new connections; those that wait to be accepted stay. False if the kernel cannot
    do it.
    """
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, _NO_INTERFACE)
    except OSError as error:
        log.warning("cannot hide the listening socket from new connections (%s): the stop may reset some", error)
        return False
    return True


def is_unread(ports: set[int]) -> bool:
    """Whether a request may be on its way: on a connection that is not accepted, not read, or has sent nothing yet."""
    return any(one.getsockname()[1] in ports and _may_bring_a_request(one) for one in _tcp_sockets())


def _may_bring_a_request(one: socket.socket) -> bool:
    state = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED.stop)
    if _listens(one):
        return any(state[_UNACKED])
    is_silent = state[_STATE] == _ESTABLISHED and not any(state[_BYTES_RECEIVED])
    return is_silent or any(fcntl.ioctl(one.fileno(), termios.FIONREAD, bytes(4)))


def _listens(one: socket.socket) -> bool:
    return bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _tcp_sockets() -> Iterator[socket.socket]:
    """Duplicates of this process's TCP sockets: granian does not hand out its own. Each is open until the next."""
    for number in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # closed meanwhile
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                with socket.socket(fileno=os.dup(number)) as one:
                    if one.family in (socket.AF_INET, socket.AF_INET6) and one.type == socket.SOCK_STREAM:
                        yield one
