"""E4: the truth itself goes away: restarted at once, sessions terminated, and reached by nobody for a while."""

import signal
import time

import psycopg

from tests.chaos.agents import AgentLoad
from tests.chaos.checker import Rules, Window
from tests.chaos.stage import Experiment, Scene
from tests.waiting import wait_for

_RECONNECT_SECONDS = 5.0
_BLACK_HOLE_SECONDS = 15.0
_TERMINATE = """
SELECT count(pg_terminate_backend(pid)) FROM (
    SELECT pid FROM pg_stat_activity
    WHERE application_name = ANY(%s) AND backend_type = 'client backend' ORDER BY random() LIMIT 1) chosen
"""


def harm_database(scene: Scene) -> None:
    """Two sessions a second are terminated; and in turn: an immediate restart, and a black hole of 15 s."""
    faults = [_restart, _swallow]
    every = min(25.0, scene.seconds / 4)
    next_at = every / 2
    while scene.pause(0.5):
        terminate_a_session(scene)
        if scene.elapsed > next_at:
            fault = faults.pop(0)
            faults.append(fault)
            fault(scene, min(_BLACK_HOLE_SECONDS, every))
            next_at = scene.elapsed + every


def terminate_a_session(scene: Scene) -> None:
    rig = scene.rig
    try:
        with rig.database(connect_timeout=2) as connection:
            row = connection.execute(_TERMINATE, [[*rig.webs, *rig.workers, *rig.beats]]).fetchone()
    except psycopg.OperationalError:
        return  # it is just being restarted
    scene.did("session terminated", row[0] if row else 0)


def _restart(scene: Scene, _: float) -> None:
    supervisor, since = scene.rig.supervisor, time.time()
    pid = supervisor.pid("postgres")
    # To a postmaster this is `pg_ctl stop -m immediate`: no checkpoint, no goodbye; the next start recovers.
    if pid is not None and supervisor.send("postgres", signal.SIGQUIT):
        supervisor.wait_ended("postgres", pid)
        scene.did("PostgreSQL restarted at once")
        wait_for(scene.rig.postgres.is_ready, what="PostgreSQL answers again")
        _was_away(scene, since)


def _swallow(scene: Scene, seconds: float) -> None:
    link, since = scene.rig.links["postgres"], time.time()
    link.set(is_black_hole=True)
    scene.did(f"PostgreSQL out of reach for {seconds:.0f} s")
    until = time.monotonic() + seconds
    while time.monotonic() < until and scene.pause(0.5):
        pass
    link.set(is_black_hole=False)
    _was_away(scene, since)


def _was_away(scene: Scene, since: float) -> None:
    """Processes need some seconds to connect again, and to notice what they missed."""
    scene.outages.append(Window(since, time.time() + _RECONNECT_SECONDS))


E4 = Experiment(
    "E4",
    "PostgreSQL: immediate restarts, 2 sessions a second terminated, black hole of 15 s",
    "I1 I2 I14",
    harm_database,
    make_load=AgentLoad,
    rules=Rules(start_slack=None),
)
