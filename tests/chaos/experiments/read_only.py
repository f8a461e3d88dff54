"""E17: the database refuses writes for 20 s, as after a failover, and sessions are terminated meanwhile."""

import time

from tests.chaos.agents import AgentLoad
from tests.chaos.checker import Rules
from tests.chaos.experiments.postgres import terminate_a_session
from tests.chaos.stage import Experiment, Scene

_READ_ONLY_SECONDS = 20.0
_WRITABLE_SECONDS = 20.0


def _harm(scene: Scene) -> None:
    while scene.pause(_WRITABLE_SECONDS / 2):
        _set_read_only(scene, True)
        try:
            until = time.monotonic() + _READ_ONLY_SECONDS
            while time.monotonic() < until and scene.pause(0.5):
                terminate_a_session(scene)
        finally:
            _set_read_only(scene, False)
        scene.did("database read-only for 20 s")
        scene.pause(_WRITABLE_SECONDS / 2)


def _set_read_only(scene: Scene, is_read_only: bool) -> None:
    with scene.rig.database() as connection:
        state = "on" if is_read_only else "off"
        connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {state}")
        connection.execute("SELECT pg_reload_conf()")


def _verify(scene: Scene) -> None:
    """Nothing was restarted, and the service says by itself that it is ready."""
    if not scene.load.answers["POST 503"]:
        scene.breaks(f"no POST was refused: the database was never read-only ({dict(scene.load.answers)})")
    rig = scene.rig
    ended = {name: rig.supervisor.ends[name] for name in (*rig.webs, *rig.workers, *rig.beats)}
    if any(ended.values()):
        scene.breaks(f"processes ended and were started again: {ended}")
    rig.wait_ready()


E17 = Experiment(
    "E17",
    "PostgreSQL read-only for 20 s, and 2 sessions a second terminated meanwhile",
    "I1 I2 I14 I24",
    _harm,
    make_load=AgentLoad,
    # Nothing starts that cannot be written down.
    rules=Rules(start_slack=None),
    verify=_verify,
)
