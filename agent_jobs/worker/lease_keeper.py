"""The lease keeper: knows which jobs this worker process holds, and renews their leases in the database.

A lease is a row's `lease_until` and its fencing token `lease_token`. It lasts settings.LEASE_SECONDS, and is renewed
every HEARTBEAT_SECONDS. The keeper is one thread per process, with its own connection. It holds a session advisory
lock, which shows others that the process lives. It renews the leases of the jobs in `held` with one UPDATE, and notes
when the process last took work and how many jobs it has ended. A turn that was given up without settlement is no longer
in `held`, so its lease lapses and recovery takes the job back.

On a stop (SIGTERM), the process begins no new turn. Running turns have STOP_GRACE_SECONDS to end. Then the keeper gives
back the other leases, so that another process takes these jobs at once. The process then ends, even if threads still
wait.
"""

import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from uuid import UUID

from django.conf import settings
from django.db import OperationalError, connection
from django.db.models.functions import Now

from agent_jobs import runners
from agent_jobs.duties import recovery
from agent_jobs.models import WorkerProcess
from agent_jobs.turns.calls_in_flight import CALLS
from infra import database, raw_sql, threads

log = logging.getLogger(__name__)
_BEAT_SECONDS = 1.0
_SEEN_SECONDS = 5.0

_RENEW = """
UPDATE agent_jobs_job SET lease_until = now() + make_interval(secs => %s)
FROM unnest(%s::uuid[], %s::bigint[]) AS held(id, token)
WHERE agent_jobs_job.id = held.id AND lease_token = held.token AND lease_until IS NOT NULL
"""


class Keeper:
    """Keeps the leases of this worker process. Start it before the process takes work. `worker_id` is None until the
    process is registered.

    It calls `on_overtime` if the process still runs when STOP_GRACE_SECONDS are over.
    """

    def __init__(self, name: str = "", *, on_overtime: Callable[[], None] = lambda: None) -> None:
        self.name = name or f"{os.environ.get('PGAPPNAME', 'worker')}@{socket.gethostname()}:{os.getpid()}"
        self.worker_id: int | None = None
        self._held: dict[UUID, int] = {}
        self._held_lock = threading.Lock()
        self._done: Counter[str] = Counter()
        self._done_lock = threading.Lock()
        self._worked = self._has_worked = False
        self._on_overtime = on_overtime
        self._stop = threading.Event()
        self._is_over = threading.Event()
        self._is_registered = threading.Event()
        self._thread = threads.vital("lease-keeper", self._keep)

    @property
    def is_stopping(self) -> bool:
        return self._stop.is_set()

    @property
    def stopping(self) -> threading.Event:
        return self._stop

    def start(self) -> None:
        """Start the thread and wait up to 5 s for the registration. Until then the process takes no work."""
        self._thread.start()
        self._is_registered.wait(5)

    def stop_claims(self) -> None:
        """Begin no new turn from now on; keep renewing leases until `close` or until the grace is over.

        Runs in a signal handler, so it must not start a thread or take a lock that the main thread might hold.
        """
        self._stop.set()

    def close(self) -> None:
        """Release the advisory lock. Every turn must have ended."""
        self._stop.set()
        self._is_over.set()
        if self._thread.ident is not None:
            self._thread.join(5)

    def note_work(self) -> None:
        """Note that the process received a doorbell, which shows that it consumes messages."""
        self._worked = True

    def note_done(self, org_id: str) -> None:
        """Note that the process ended a job of this organisation. `_say_seen` stores the numbers, so no job waits."""
        with self._done_lock:
            self._done[org_id] += 1

    def hold(self, job_id: UUID, token: int) -> None:
        with self._held_lock:
            self._held[job_id] = token

    def let_go(self, job_id: UUID, token: int | None = None) -> None:
        """Stop renewing the lease. With a `token`, only that lease: another thread may hold a newer one."""
        with self._held_lock:
            if token is None or self._held.get(job_id) == token:
                self._held.pop(job_id, None)

    @property
    def held(self) -> dict[UUID, int]:
        with self._held_lock:
            return dict(self._held)

    def _keep(self) -> None:
        renewed_at = seen_at = 0.0
        give_back_at = float("inf")
        while not self._is_over.is_set():
            now = time.monotonic()
            if self.is_stopping:
                give_back_at = min(give_back_at, now + settings.STOP_GRACE_SECONDS)
            try:
                if now >= give_back_at:
                    self._give_back()
                    break
                if self.worker_id is None or connection.connection is None:
                    self._register()
                if now - renewed_at >= settings.HEARTBEAT_SECONDS:
                    self.renew()
                    renewed_at = now
                if now - seen_at >= _SEEN_SECONDS or (self._worked and not self._has_worked):
                    self._say_seen()
                    seen_at = now
                elif connection.connection is not None:
                    # Detects within a second that the session, and its lock, is gone.
                    raw_sql.run("SELECT 1")
                CALLS.look()
            except database.Error as error:
                if not database.is_unavailable(error):
                    raise
                log.warning("lease keeper: database unavailable: %s", database.reason(error))
                database.drop_session()
                if now >= give_back_at:
                    break  # the leases lapse
            # While stopping, `_stop` is set and would not wait.
            (self._is_over if self.is_stopping else self._stop).wait(0.2 if self.is_stopping else _BEAT_SECONDS)
        connection.close()
        if not self._is_over.is_set():
            self._on_overtime()

    def _give_back(self) -> None:
        given_back = recovery.give_back(self.held)
        log.warning("stop grace is over: gave back %s jobs in the middle of a turn", given_back)

    def _register(self) -> None:
        """Take the advisory lock on this thread's session, under the same id after a reconnection."""
        if self.worker_id is None:
            self.worker_id = self._insert()
        if not raw_sql.value("SELECT pg_try_advisory_lock(%s, %s)", [WorkerProcess.LOCK_SPACE, self.worker_id]):
            # The old session is not dead yet; the keeper's next round tries again with a new one.
            raise OperationalError("the previous session still holds the advisory lock")
        WorkerProcess.objects.filter(pk=self.worker_id).update(lost_at=None)
        self._is_registered.set()

    def _insert(self) -> int:
        return int(WorkerProcess.objects.create(name=self.name[:200], runners=runners.names()).pk)

    def renew(self) -> int:
        held = self.held
        if not held:
            return 0
        return raw_sql.run(_RENEW, [settings.LEASE_SECONDS, list(held), list(held.values())])

    def _say_seen(self) -> None:
        assert self.worker_id is not None
        with self._done_lock:
            done = dict(self._done)
        columns = {"seen_at": Now(), "jobs_done": done, **({"worked_at": Now()} if self._worked else {})}
        self._has_worked = self._has_worked or self._worked
        self._worked = False
        if not WorkerProcess.objects.filter(pk=self.worker_id).update(**columns):
            # The prune duty deleted the row: register again under a new id.
            self.worker_id = None
            connection.close()
