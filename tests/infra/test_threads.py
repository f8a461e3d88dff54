"""A process ends when a thread fails without which it must not go on."""

import subprocess
import sys
import textwrap
from pathlib import Path

from infra import threads
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_a_vital_thread_that_raises_ends_its_process_and_says_why() -> None:
    ended = run(
        """
        import logging, threading
        from infra import threads
        logging.basicConfig()
        def work():
            raise KeyError("unexpected")
        threads.start_vital("keeper", work)
        threading.Event().wait()
        """
    )
    assert ended.returncode == threads.EXIT_CODE
    assert "thread keeper failed" in ended.stderr
    assert "KeyError: 'unexpected'" in ended.stderr


def test_a_vital_thread_that_returns_leaves_its_process_alone() -> None:
    ended = run(
        """
        from infra import threads
        threads.start_vital("keeper", lambda: None).join()
        print("goes on")
        """
    )
    assert (ended.returncode, ended.stdout) == (0, "goes on\n")
