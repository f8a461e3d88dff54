"""Faults at their place: between the claim of a message and its sending, and between its sending and our mark."""

import threading
from collections.abc import Callable

import psycopg

from tests.chaos.stage import Scene
from tests.fakes.slack import Post

_CHANNEL = "chaos_claims"
# The connection's name tells which worker claimed, once the claim is committed.
_TELL_OF_CLAIMS = f"""
CREATE FUNCTION chaos_tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('{_CHANNEL}', current_setting('application_name'));
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_claims AFTER UPDATE ON channels_integration_outboundmessage
FOR EACH ROW WHEN (NEW.status = 'sending' AND OLD.status <> 'sending') EXECUTE FUNCTION chaos_tell();
"""


class Aim:
    """Armed, it calls `hit(worker)` at the next moment of its kind; if that says False, it stays armed."""

    def __init__(self, hit: Callable[[str], bool]) -> None:
        self._hit = hit
        self._is_armed = False
        self._lock = threading.Lock()

    def arm(self) -> None:
        self._is_armed = True

    def fire(self, worker: str) -> None:
        with self._lock:
            if worker and self._is_armed:
                self._is_armed = not self._hit(worker)


def before_mark(scene: Scene, hit: Callable[[str], bool]) -> Aim:
    """Aims at workers whose message Slack has just accepted, and who have not been answered yet."""
    aim = Aim(hit)

    def watch(_: Post, caller: str) -> None:
        aim.fire(caller)

    scene.rig.slack.before_answer = watch
    return aim


def before_send(scene: Scene, hit: Callable[[str], bool]) -> Aim:
    """Aims at workers who have just committed the claim of a message, and have not connected to Slack yet."""
    aim = Aim(hit)
    connection = scene.rig.database()
    connection.execute(_TELL_OF_CLAIMS)
    connection.execute(f"LISTEN {_CHANNEL}")

    def listen() -> None:
        try:
            for notice in connection.notifies():
                aim.fire(notice.payload)
        except psycopg.Error:
            pass  # the end of the run

    threading.Thread(target=listen, name="claims", daemon=True).start()
    return aim


def working(scene: Scene) -> list[str]:
    """The workers that have taken work since they were started: one that is killed before has nothing to lose."""
    with scene.rig.database() as connection:
        found = connection.execute("SELECT name FROM agent_jobs_workerprocess WHERE worked_at IS NOT NULL").fetchall()
    known = {name for (name,) in found}
    pids = {worker: scene.rig.supervisor.pid(worker) for worker in scene.rig.workers}
    return [
        worker
        for worker, pid in pids.items()
        if pid and any(name.startswith(f"{worker}@") and name.endswith(f":{pid}") for name in known)
    ]
