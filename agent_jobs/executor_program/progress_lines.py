"""The lines that the program writes in its terminal: time, what happened, which job, and a few words."""

from __future__ import annotations

import sys
import threading
import time
from typing import TextIO

_lock = threading.Lock()


def say(event: str, job_id: str = "", text: str = "", *, to: TextIO | None = None) -> None:
    """`09:15:02  claimed    …4e7c2f3a9b10  render, attempt 1`. Characters that a terminal could obey become "?"."""
    job = f"…{job_id[-12:]}" if job_id else ""
    line = f"{time.strftime('%H:%M:%S')}  {event:<10} {job:<13}  {text}".rstrip()
    shown = "".join(letter if letter.isprintable() else "?" for letter in line)
    with _lock:
        print(shown, file=to or sys.stderr, flush=True)


def size(count: int) -> str:
    """A number of bytes for people, such as `3.4 MB`."""
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"
