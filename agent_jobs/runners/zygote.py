"""A process to fork from: a turn in a process of its own then costs a fork, not the start of a Python.

Forked from a worker at its very start, while that has one thread and no connection; it never has a second thread, opens
nothing, and knows nothing of what its children do. It ends with its worker, and they with it. A turn is handed over in
two steps: a child says that it is there, and only then is given what to do. So whoever hears of no child may take the
turn elsewhere, and whoever has given it away never does it again.

    worker ──control: two sockets for each turn──▶ zygote ──fork──▶ child
       ├── speech: the child's pid ◀─, the turn ─▶, its answer ◀─────┘
       └── fate: how the child ended ◀─ zygote; hung up by the worker, the child is killed
"""

import gc
import logging
import os
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)
# Of a zygote that lives: it may read packages before it forks, on a machine that is busy.
_BIRTH_SECONDS = 60.0
_DEATH_SECONDS = 5.0
_CHUNK = 1 << 16
# What the child needs read, as words; always so long, for a stream has no messages.
_NEEDS_BYTES = 64
_NUMBER = struct.Struct("!i")
# What a terminal or a supervisor may send to all of a worker's processes: the worker decides, and ends this one.
_LEFT_TO_THE_WORKER = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True, slots=True)
class Ended:
    """`exit_code` as of `subprocess`: -9 for a SIGKILL; None where the zygote died as well, so nobody knows."""

    exit_code: int | None
    answer: bytes


class Zygote:
    """The worker's side. Its threads may call it at the same time."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self._control = control
        self._asking = threading.Lock()
        self._is_lost = False

    def answer(self, request: bytes, *, until: float, needs: Collection[str] = ()) -> Ended | None:
        """What a child of its own makes of the request. None: no child has got it. Raises TimeoutError when the
        monotonic clock is at `until`, and the child has been killed by then."""
        if self._is_lost:
            return None
        try:
            (speech, theirs), (fate, its) = socket.socketpair(), socket.socketpair()
        except OSError as error:
            log.warning("nothing can be asked of the zygote: %s", error)
            return None
        with speech, fate:
            with theirs, its:
                pid = self._child(speech, [theirs, its], min(until, time.monotonic() + _BIRTH_SECONDS), needs)
            if not pid:
                return None
            ended = None
            try:
                ended = _talk(speech, fate, request, until)
            finally:
                if ended is None or ended.exit_code is None:
                    _kill(pid, fate)
            return ended

    def _child(self, speech: socket.socket, given: list[socket.socket], until: float, needs: Collection[str]) -> int:
        """The pid of a child that waits to be told what to do; 0 where there is none."""
        head = " ".join(needs).encode().ljust(_NEEDS_BYTES)
        try:
            with self._asking:
                self._control.settimeout(max(until - time.monotonic(), 0.001))
                socket.send_fds(self._control, [head], [end.fileno() for end in given])
            for end in given:
                end.close()  # so that it is heard when nobody has them any more
            speech.settimeout(max(until - time.monotonic(), 0.001))
            if said := speech.recv(_NUMBER.size):
                return int(_NUMBER.unpack(said)[0])
            log.warning("the zygote forks no child")
        except (OSError, struct.error) as error:
            log.warning("no child comes from the zygote: %s: %s", type(error).__name__, error)
        self._is_lost = not _lives(self.pid)
        return 0


def start(answer: Callable[[bytes], bytes], read: Callable[[Collection[str]], None]) -> Zygote | None:
    """Fork one off this process, which must have a single thread: None if it has more. `answer` is what a child does
    with a request; `read` imports what a child is going to need, and does nothing else."""
    if (threads := _threads()) > 1:
        log.warning("no zygote: the process has %s threads already", threads)
        return None
    ours, theirs = socket.socketpair()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    worker = os.getpid()
    unmasked = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_THE_WORKER)
    if pid := os.fork():
        signal.pthread_sigmask(signal.SIG_SETMASK, unmasked)
        theirs.close()
        return Zygote(pid, ours)
    try:
        ours.close()
        for number in _LEFT_TO_THE_WORKER:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, unmasked)
        _Forking(theirs, answer, read).serve(worker)
    except BaseException:
        log.exception("the zygote broke")
    finally:
        os._exit(1)


def end_with(parent: int) -> None:
    """Linux ends this process with the thread that started it; elsewhere its sockets tell."""
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # it had died before it could be watched


def _talk(speech: socket.socket, fate: socket.socket, request: bytes, until: float) -> Ended:
    """Every wait is for both, for a child that died may have left others behind that hold its line open."""
    with selectors.PollSelector() as waits:
        speech.setblocking(False)
        waits.register(speech, selectors.EVENT_READ | selectors.EVENT_WRITE)
        waits.register(fate, selectors.EVENT_READ)
        answer, unsent = bytearray(), memoryview(request)
        while True:
            ready = {key.fileobj: events for key, events in waits.select(max(until - time.monotonic(), 0))}
            if not ready:
                raise TimeoutError
            if fate in ready:
                with suppress(OSError):
                    while said := speech.recv(_CHUNK):
                        answer += said
                told = fate.recv(_NUMBER.size)
                return Ended(_NUMBER.unpack(told)[0] if told else None, bytes(answer))
            try:
                if ready[speech] & selectors.EVENT_WRITE:
                    unsent = unsent[speech.send(unsent) :]
                    if not unsent:
                        speech.shutdown(socket.SHUT_WR)
                        waits.modify(speech, selectors.EVENT_READ)
                elif said := speech.recv(_CHUNK):
                    answer += said
                else:
                    waits.unregister(speech)
            except BlockingIOError:
                continue
            except OSError:  # it died, and its fate will be told
                waits.unregister(speech)


def _kill(pid: int, fate: socket.socket) -> None:
    """Returns when the child is dead."""
    fate.settimeout(_DEATH_SECONDS)
    try:
        fate.shutdown(socket.SHUT_WR)
        if fate.recv(_NUMBER.size) or sys.platform == "linux":
            return  # dead by the zygote, or with it
    except OSError:
        log.error("the zygote does not answer")
    # Not reaped by anybody who would have told, so the pid is still its own.
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _threads() -> int:
    """Those that Python knows nothing of among them, where the platform tells."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else threading.active_count()


def _lives(pid: int) -> bool:
    """Of a child; a dead one is reaped."""
    try:
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        return False


# --- In the forking process, and in its children ---------------------------------------------------------------
class _Forking:
    def __init__(
        self,
        control: socket.socket,
        answer: Callable[[bytes], bytes],
        read: Callable[[Collection[str]], None],
    ) -> None:
        self._control = control
        self._answer = answer
        self._read = read
        self._has_read: set[str] = set()
        self._fates: dict[int, socket.socket] = {}
        self._pids: dict[socket.socket, int] = {}
        self._waits = selectors.PollSelector()
        self._woken, self._wakes = socket.socketpair()

    def serve(self, worker: int) -> None:
        """Until the worker has gone."""
        end_with(worker)
        for end in (self._woken, self._wakes):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for end in (self._control, self._woken):
            self._waits.register(end, selectors.EVENT_READ)
        gc.disable()
        while True:
            for key, _ in self._waits.select():
                if key.fileobj is self._control:
                    self._hear()
                elif key.fileobj is self._woken:
                    with suppress(BlockingIOError):
                        self._woken.recv(_CHUNK)
                    self._reap()
                elif pid := self._pids.pop(key.fileobj, None):  # type: ignore[call-overload]
                    # Hung up: nobody waits for this child any more.
                    self._waits.unregister(key.fileobj)
                    os.kill(pid, signal.SIGKILL)

    def _hear(self) -> None:
        head, given, _, _ = socket.recv_fds(self._control, _NEEDS_BYTES, 2)
        if not head:
            for pid in self._fates:
                os.kill(pid, signal.SIGKILL)
            os._exit(0)
        speech, fate = (socket.socket(fileno=number) for number in given)
        if needs := set(head.decode().split()) - self._has_read:
            self._has_read |= needs
            try:
                self._read(needs)
            except (ImportError, MemoryError) as error:
                log.warning("what a turn needs is not read beforehand: %s", error)
        gc.freeze()  # so that no collection writes to pages that all children share
        forking = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            log.error("no child can be forked: %s", error)
            speech.close()
            fate.close()
            return
        if not pid:
            fate.close()
            self._be(speech, forking)
        speech.close()
        self._fates[pid], self._pids[fate] = fate, pid
        self._waits.register(fate, selectors.EVENT_READ)

    def _reap(self) -> None:
        while self._fates:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            fate = self._fates.pop(pid)
            if self._pids.pop(fate, None):
                self._waits.unregister(fate)
            with fate, suppress(OSError):
                fate.send(_NUMBER.pack(os.waitstatus_to_exitcode(status)))

    def _be(self, speech: socket.socket, forking: int) -> None:
        """The child: one request, and no more. Does not return."""
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, *_LEFT_TO_THE_WORKER):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            end_with(forking)
            for end in (self._control, self._woken, self._wakes, *self._fates.values()):
                end.close()
            gc.enable()
            speech.sendall(_NUMBER.pack(os.getpid()))
            with speech.makefile("rb") as heard:
                request = heard.read()
            if request:  # else nobody waits any more
                speech.sendall(self._answer(request))
                os._exit(0)
        except BaseException:
            log.exception("a turn in a process of its own broke")
        finally:
            os._exit(1)
