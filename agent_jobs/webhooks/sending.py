"""Sends claimed deliveries: one thread talks to the database, and a bounded pool of threads to the receivers.

A receiver that hangs keeps one thread of the pool busy, for the seconds that a request may take. The end of a slice
does not wait for it: the thread of the attempt then settles it.
"""

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from django.db import connection

from agent_jobs.models import WebhookEndpoint
from agent_jobs.webhooks import delivery_claims, retry_plan
from agent_jobs.webhooks.delivery_claims import AttemptResult, ClaimedDelivery
from infra import database, sealing
from infra.egress import addresses, requests_client, retry_after, standard_webhooks
from infra.sealing import SealingError
from infra.storable_text import storable

log = logging.getLogger(__name__)
THREADS = 32
_LOOK_SECONDS = 0.2
_CHANCE = random.SystemRandom()
_LATER = (429, 503)

Clock = Callable[[], datetime]


class DeliverySender:
    """The attempts in flight of this process. One thread at a time uses it.

    `clock` is the database's, so that a process with a wrong clock sends nothing too early.
    """

    def __init__(self, *, clock: Clock = database.now, rng: random.Random = _CHANCE) -> None:
        self._clock = clock
        self._rng = rng
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="webhook")
        self._left: set[Future[AttemptResult]] = set()
        self._flying: dict[Future[AttemptResult], tuple[ClaimedDelivery, datetime]] = {}

    @property
    def is_idle(self) -> bool:
        return not self._flying

    def round(self) -> int:
        """Claim what is due, start it, and settle what has ended. Returns how many were started or settled.

        Waits for a fraction of a second if attempts are in flight.
        """
        started = 0
        if room := max(THREADS - len(self._flying) - len(self._left), 0):
            now = self._clock()
            for claimed in delivery_claims.claim(most=room, now=now):
                self._flying[self._pool.submit(attempt, claimed, now)] = (claimed, now)
                started += 1
        ended, _ = wait(self._flying, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED) if self._flying else ((), ())
        for future in ended:
            self._settle(future)
        return started + len(ended)

    def leave(self) -> None:
        """End a slice: the attempts in flight are settled by their own threads, whoever serves the next slice."""
        for future, flight in list(self._flying.items()):
            if future.done():
                self._settle(future)
                continue
            self._left.add(future)
            del self._flying[future]
            future.add_done_callback(partial(self._settle_left, *flight))

    def finish(self) -> None:
        """Wait for the attempts in flight and settle them: at most the time of one request."""
        for future in list(self._flying):
            wait([future])
            self._settle(future)

    def _settle_left(self, claimed: ClaimedDelivery, began_at: datetime, future: Future[AttemptResult]) -> None:
        try:
            delivery_claims.settle(claimed, future.result(), began_at=began_at, now=self._clock(), rng=self._rng)
        except Exception:  # its lease ends, and it is sent again
            log.exception("could not settle the webhook delivery %s", claimed.id)
        finally:
            self._left.discard(future)
            connection.close()

    def _settle(self, future: Future[AttemptResult]) -> None:
        claimed, began_at = self._flying.pop(future)
        delivery_claims.settle(claimed, future.result(), began_at=began_at, now=self._clock(), rng=self._rng)


def deliver(
    sender: DeliverySender, *, expand: Callable[[], int], until: float, stop: threading.Event
) -> tuple[int, bool]:
    """Expand and send until nothing is due, or until `until` (time.monotonic()) or `stop`.

    Returns how much was done, and whether work is left.
    """
    done = 0
    while time.monotonic() < until and not stop.is_set():
        now_done = expand() + sender.round()
        if not now_done and sender.is_idle:
            return done, False
        done += now_done
    if stop.is_set():
        sender.finish()
    sender.leave()
    return done, True


def attempt(claimed: ClaimedDelivery, now: datetime) -> AttemptResult:
    """POST once. Never raises: an error of ours counts as a failed attempt, and is logged."""
    began = time.monotonic()
    try:
        answer = _post(claimed, now)
    except (requests_client.HttpError, SealingError) as error:
        return AttemptResult(_milliseconds(began), error=_text(error))
    except Exception as error:  # around a delivery: one must not stop the others
        log.exception("could not send the webhook delivery %s", claimed.id)
        return AttemptResult(_milliseconds(began), error=_text(repr(error)))
    if 200 <= answer.status < 300:
        return AttemptResult(_milliseconds(began), answer.status)
    stated = answer.headers.get("Retry-After", "") if answer.status in _LATER else ""
    wait = retry_after.seconds(stated, at_most=retry_plan.LONGEST_RETRY_AFTER)
    return AttemptResult(_milliseconds(began), answer.status, f"the receiver answered {answer.status}", wait)


def body_of(event: str, at: datetime, payload: Any) -> dict[str, Any]:
    """The body of a delivery, in the form of Standard Webhooks.

    `{"type": "job.completed", "timestamp": "2026-01-31T09:00:00.000000Z", "data": …}`
    """
    stamp = at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {"type": event, "timestamp": stamp, "data": payload}


def _post(claimed: ClaimedDelivery, now: datetime) -> requests_client.Answer:
    body = json.dumps(body_of(claimed.event, claimed.announced_at, claimed.payload), ensure_ascii=False)
    signature = standard_webhooks.headers(str(claimed.announcement_id), body, _secrets(claimed), now=now)
    headers = {"Content-Type": "application/json", **signature}
    with addresses.asking_for(claimed.org_id):
        return requests_client.post(claimed.url, body=body.encode(), headers=headers, is_guarded=True)


def _secrets(claimed: ClaimedDelivery) -> Sequence[str]:
    table = WebhookEndpoint._meta.db_table
    place = {"org_id": claimed.org_id, "table": table, "key": str(claimed.endpoint_id)}
    return [sealing.open_sealed(sealed, column=column, **place) for column, sealed in claimed.sealed_secrets.items()]


def _milliseconds(began: float) -> int:
    return round(timedelta(seconds=time.monotonic() - began) / timedelta(milliseconds=1))


def _text(error: object) -> str:
    return str(storable(str(error)))[:500]
