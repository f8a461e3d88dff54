"""The command line of `manage.py up`. It reports a failed start in one sentence, without a traceback."""

import argparse
import errno
import os
import socket
import sys
from pathlib import Path

from config.devstack.data_folder import DataFolder
from config.devstack.stack import ROOT, Stack
from config.embedded import CannotStart


def main(arguments: list[str]) -> int:
    options = _parse(arguments)
    data_dir = Path(options.data_dir).resolve()
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        folder = DataFolder(data_dir)
        with folder.held():
            return Stack(folder, port=_claimed(options.port), with_demo=not options.no_demo).run()
    except CannotStart as error:
        print(f"manage.py up: {error}", file=sys.stderr)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EROFS, errno.EEXIST, errno.ENOTDIR):
            raise
        print(f"manage.py up: {error.filename or data_dir}: {os.strerror(error.errno)}", file=sys.stderr)
    return 1


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="manage.py up",
        description="Run the whole service in this terminal: PostgreSQL, Redis, web, two workers and beat. "
        "DATABASE_URL and REDIS_URL, where set, are used instead of servers of its own.",
        epilog="Lines without a prefix are the demo's, and for you. Ctrl-C stops everything.",
    )
    parser.add_argument("--port", type=_port, default=8000, help="of the web process, 8000; 0 takes a free one")
    parser.add_argument(
        "--data-dir",
        default=os.environ.get("AGENT_JOBS_DATA_DIR") or ROOT / ".dev",
        help="where databases and secrets are kept; AGENT_JOBS_DATA_DIR, else .dev beside manage.py",
    )
    parser.add_argument("--no-demo", action="store_true", help="make no organisation and no job")
    return parser.parse_args(arguments)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


def _claimed(port: int) -> int:
    """The given port, or a free one for 0. Raises CannotStart if another program uses it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError as error:
            raise CannotStart(
                f"port {port} cannot be used ({os.strerror(error.errno or 0)}): give another --port"
            ) from None
        claimed: int = probe.getsockname()[1]
        return claimed
