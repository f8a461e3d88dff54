"""Starts the web processes: `python -m config.serve --port 8000`, for `manage.py up` and the image.

granian serves them; settings.WEB_PROCESSES and WEB_THREADS say how many. granian times out slow request heads. After a
SIGTERM each worker process stops accepting connections, answers what it has (`config.asgi`, `config.draining`), and
ends.
"""

import argparse
import os
import resource
import signal

from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server import Server

from config import garbage_collection, settings

HEAD_SECONDS = 10
STOP_SECONDS = 10  # less than the time after which the supervisor kills
_HEAD_BUFFER_BYTES = 64 * 1024
_BACKLOG = 512
# Per process. A connection takes a file descriptor and no thread, so silent ones are cheap.
_MOST_CONNECTIONS = 10_000


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--port", type=int, required=True)
    given = options.parse_args()
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    garbage_collection.look_rarely()
    os.register_at_fork(before=_hold_term, after_in_parent=_release_term, after_in_child=_end_on_term)
    Server(
        "config.asgi:application",
        given.host,
        given.port,
        interface=Interfaces.ASGI,
        workers=settings.WEB_PROCESSES,
        loop=Loops.asyncio,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=HEAD_SECONDS * 1000, max_buffer_size=_HEAD_BUFFER_BYTES),
        websockets=False,
        backlog=_BACKLOG,
        backpressure=_MOST_CONNECTIONS,
        log_level=LogLevels.warning,
        log_dictconfig=settings.LOGGING,
        respawn_failed_workers=True,
        workers_kill_timeout=STOP_SECONDS,
    ).serve()


def _end_on_term() -> None:
    """A worker process that is still loading ends at once.

    It inherits granian's handler, which stops the main process only: the worker would begin to serve, and be killed
    after STOP_SECONDS. A signal that comes before this is held until here.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _release_term()


def _hold_term() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _release_term() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


if __name__ == "__main__":
    main()
