"""Polls the database for news for all open answers of a web process (`streams`), four times a second.

It polls instead of using LISTEN: a NOTIFY takes a server-wide lock at each commit, which would slow workers down.
"""

import asyncio
import contextlib
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor

from agent_jobs.api import streams
from agent_jobs.api.streams import Found, OpenAnswer
from infra import database
from infra.threads import EXIT_CODE

log = logging.getLogger(__name__)
_PAUSE_SECONDS = 1.0  # after a failed poll


class Watch:
    """The open answers of one event loop, and the poll for their news. Call every method in the loop's thread."""

    def __init__(self) -> None:
        self._asking: dict[OpenAnswer, asyncio.Future[Found]] = {}
        # Open answers to check without waiting for the next poll: new ones, and those that have more to send.
        self._fresh: set[OpenAnswer] = set()
        self._news = asyncio.Event()
        self._looker = ThreadPoolExecutor(1, "watch")
        self._is_stopping = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def ask(self, opened: OpenAnswer, *, at_once: bool = True) -> "asyncio.Future[Found]":
        """Return a future for the next news of an open answer. `Found.end` is "time" after its time limit, "stopped" if
        the process stops.

        Do not cancel the future: news found for a stream already counts as sent. Call `leave` instead.
        """
        answer: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        if self._is_stopping:
            answer.set_result(Found(end="stopped"))
            return answer
        self._asking[opened] = answer
        if at_once:
            self._fresh.add(opened)
        self._news.set()  # also without `at_once`: with no open answers, no poll was scheduled
        return answer

    def leave(self, opened: OpenAnswer) -> None:
        self._asking.pop(opened, None)
        self._fresh.discard(opened)

    def stop(self) -> None:
        """End all open answers at once, and each later one as it comes."""
        self._is_stopping = True
        for opened in list(self._asking):
            self._tell(opened, Found(end="stopped"))

    def close(self) -> None:
        self._task.cancel()
        self._looker.shutdown(wait=False)

    def _tell(self, opened: OpenAnswer, found: Found) -> None:
        answer = self._asking.pop(opened, None)
        if answer is not None and not answer.done():
            answer.set_result(found)

    async def _run(self) -> None:
        try:
            await self._look_for_ever()
        except Exception:
            log.critical("polling for open answers failed, ending this process", exc_info=True)
            logging.shutdown()
            os._exit(EXIT_CODE)

    async def _look_for_ever(self) -> None:
        next_look = 0.0
        while True:
            left = next_look - time.monotonic() if self._asking else None
            if left is None or left > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), left)
            self._news.clear()
            due, self._fresh = self._fresh, set()
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + streams.LOOK_SECONDS
                due = set(self._asking)
            if due and not await self._look(list(due)):
                next_look = time.monotonic() + _PAUSE_SECONDS

    async def _look(self, due: list[OpenAnswer]) -> bool:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._looker, _look, due)
        except database.Error as error:
            if not database.is_unavailable(error):
                raise
            log.warning(
                "database unavailable, no news for open streams and waiting requests: %s", database.reason(error)
            )
            found = [Found() for _ in due]
            is_done = False
        else:
            is_done = True
        now = time.monotonic()
        for opened, new in zip(due, found, strict=True):
            if not new.end and not new.has_more and now >= opened.until:
                new.end = "time"
            if new.frames or new.end:
                self._tell(opened, new)
        return is_done


def _look(due: list[OpenAnswer]) -> list[Found]:
    try:
        return streams.look(due)
    except database.Error:
        database.drop_session()
        raise
