"""The options of `manage.py run_executor`, and the start of the program."""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from agent_jobs.executor_program.binary_cache import BinaryCache
from agent_jobs.executor_program.binary_run import Equipment
from agent_jobs.executor_program.claim_loop import ClaimLoop
from agent_jobs.executor_program.progress_lines import say
from agent_jobs.executor_program.service_calls import Service
from infra import commands
from infra.egress.addresses import Rules

_MIB = 1024 * 1024
_USAGE_EXIT = 2
DESCRIPTION = """\
Claims jobs of the external runner that have a binary, runs the binaries and reports how they ended. It needs no
database. SIGTERM or Ctrl-C lets running jobs end; a second one gives them back at once.
"""


def main(arguments: list[str]) -> int:
    given = parser().parse_args(arguments)
    token = os.environ.get(given.token_env, "").strip()
    if not token:
        return _complain(f"the variable {given.token_env} has no app token with the scope SERVICES:EXECUTE.")
    parts = urlsplit(given.server)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return _complain(f"{given.server!r} is not an address as https://jobs.example.com.")
    mode = commands.Mode(given.mode)
    able = commands.probe(mode)
    if not able.ok:
        return _complain(f"this machine cannot run jobs in the mode {mode}. {able.reason}")
    name = given.name or f"{socket.gethostname()}-{secrets.token_hex(4)}"[-255:]
    service = Service(given.server, token)
    try:
        cache = BinaryCache(
            Path(given.cache).expanduser(),
            rules=Rules(allow_private=given.allow_private),
            max_bytes=given.max_binary_mib * _MIB,
            max_kept_bytes=given.max_cache_mib * _MIB,
        )
    except OSError as error:
        return _complain(f"the cache {given.cache} cannot be used: {error.strerror}.")
    equipment = Equipment(service, name, cache, mode, given.allow_network, given.attempt_seconds)
    asks = {
        "executor_id": name,
        "address": socket.gethostname()[:255],
        "labels": given.labels,
        "job_types": given.types,
        "binary_only": True,
    }
    loop = ClaimLoop(service, equipment, asks, slots=given.concurrency)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.stop())
    wants = f"labels {', '.join(given.labels) or 'none'}; types {', '.join(given.types) or 'any'}"
    say("ready", text=f"{name} at {given.server}: {given.concurrency} at once, mode {mode}, {wants}")
    return loop.run(grace_seconds=given.grace)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="manage.py run_executor", description=DESCRIPTION)
    parser.add_argument("--server", required=True, help="the service, as https://jobs.example.com")
    parser.add_argument("--token-env", required=True, help="the environment variable that holds the app token")
    parser.add_argument("--name", default="", help="the executor's id; default: the host's name and a random part")
    parser.add_argument("--concurrency", type=_whole(1, 100), default=2, help="jobs at once (default 2)")
    parser.add_argument(
        "--cache", default="~/.cache/agent-jobs-executor", help="the folder that keeps binaries (default %(default)s)"
    )
    parser.add_argument("--labels", type=_words, default=[], help="labels that jobs may require, with commas")
    parser.add_argument("--types", type=_words, default=[], help="the types of jobs to claim, with commas; default any")
    parser.add_argument(
        "--mode",
        choices=[str(mode) for mode in commands.Mode],
        default=str(commands.Mode.SANDBOX),
        help="sandbox: without a view of this machine (default); trusted: as an ordinary account",
    )
    parser.add_argument("--allow-network", action="store_true", help="let jobs in the sandbox use the network")
    parser.add_argument(
        "--allow-private", action="store_true", help="fetch binaries also over http and from private addresses"
    )
    parser.add_argument("--max-binary-mib", type=_whole(1, 1 << 20), default=512, help="the largest binary (512)")
    parser.add_argument("--max-cache-mib", type=_whole(1, 1 << 30), default=10_240, help="all kept binaries (10240)")
    parser.add_argument(
        "--attempt-seconds",
        type=_whole(1, 604_800),
        default=3_600,
        help="the time limit of an attempt whose job states none (3600)",
    )
    parser.add_argument("--grace", type=_whole(0, 86_400), default=30, help="seconds for running jobs at a stop (30)")
    return parser


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return read


def _words(text: str) -> list[str]:
    found = [word.strip() for word in text.split(",")]
    if not all(found) or any(len(word.split()) != 1 for word in found):
        raise argparse.ArgumentTypeError(f"{text!r} must be words with commas between them")
    return found


def _complain(sentence: str) -> int:
    sys.stderr.write(f"run_executor: {sentence}\n")
    return _USAGE_EXIT
