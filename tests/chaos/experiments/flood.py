"""E14: a stranger's 50,000 jobs, and ours, one a second."""

from typing import Any

from tests.chaos.checker import Rules
from tests.chaos.ledgers import Sent
from tests.chaos.load import Load
from tests.chaos.rig import ORG, Rig
from tests.chaos.stage import Experiment, Scene

_STRANGER = "rival"
_FLOOD = 50_000
_CHANNEL = "flood"
_MOST_LATE = 5.0
# As the service itself writes them, from a job that it has made, and may be at work on: half short messages, half
# conversations.
_COPY = """
WITH made AS (
    INSERT INTO agent_jobs_job ({columns})
    SELECT {values} FROM agent_jobs_job template, generate_series(1, %(jobs)s) number
    WHERE template.org_id = %(org)s AND template.job_type_key = %(type)s
    RETURNING id, org_id, status, tags
), told AS (
    INSERT INTO agent_jobs_activity (org_id, job_id, code, note, actor, moved_from, moved_to, life, processed_at)
    SELECT org_id, id, 'job.created', 'WAITING', 'system:flood', '', status, 0, now() FROM made
)
SELECT id::text, tags[1] FROM made
"""
_DIFFERENT = {
    "id": "uuidv7()",
    "tags": "ARRAY[template.job_type_key || '-' || number]",
    "status": "'WAITING'",
    "created_at": "clock_timestamp()",
    "updated_at": "clock_timestamp()",
    "scheduled_at": "clock_timestamp()",
    "queue_at": "clock_timestamp()",
    **dict.fromkeys(("started_at", "finished_at", "deadline_at", "wake_at", "result", "result_data"), "NULL"),
    **dict.fromkeys(("lease_until", "worker_id", "timer_message_id", "timer_seconds"), "NULL"),
    **dict.fromkeys(("attempt", "lease_token", "turn", "inbox_count", "inbox_seen"), "0"),
    **dict.fromkeys(("follow_ups_sent", "follow_ups_total"), "0"),
    "waiting_for": "''",
    "thread": "''",
}


class TrickleLoad(Load):
    """Ours: conversations, and short messages beside them, in both lanes of the flood."""

    def __init__(self, rig: Rig, **options: Any) -> None:
        super().__init__(rig, **options)
        self.rig.add_org(_STRANGER, team="T0RIVAL")
        self.stranger = rig.client(_STRANGER)

    def prepare(self) -> None:
        super().prepare()
        types = f"/services/organizations/{_STRANGER}/agent-jobs-type"
        with self.rig.database() as connection:
            connection.execute(
                """INSERT INTO channels_integration_channel
                    (id, org_id, platform, code, name, address, sealed_secret, last_position, updated_at)
                VALUES (uuidv7(), %s, 'null', %s, '', '', '', 0, now())""",
                [_STRANGER, _CHANNEL],
            )
        for kind, config in (
            ("message", {"start_prompt": "Flood {{ n }}"}),
            ("conversation", {"start_prompt": "Flood {{ n }}?", "max_follow_ups": 0, "follow_up_interval": 0.05}),
        ):
            body = {"id": kind, "name": kind, "runner": kind, "default_config": config}
            self.stranger.ok("POST", types, body)


def _flood(scene: Scene) -> None:
    load = scene.load
    assert isinstance(load, TrickleLoad)
    for kind in ("message", "conversation"):
        _one(scene, load, kind)
    for kind in ("message", "conversation"):
        _copies(scene, kind, _FLOOD // 2)
    scene.did("job of a stranger", _FLOOD)
    while scene.pause(1):
        pass


def _one(scene: Scene, load: TrickleLoad, kind: str) -> None:
    body = {
        "job_type_id": kind,
        "params": {"n": "first"},
        "tags": [f"{kind}-0"],
        "target_channel": {"org_id": _STRANGER, "platform": "null", "code": _CHANNEL},
    }
    answer = load.stranger.request("POST", "/services/agent-jobs", body, Idempotency_Key=f"{kind}-0")
    assert answer.status == 201, answer
    job_id = str(answer.body["data"]["job_id"])
    scene.sent.append(Sent(f"{kind}-0", _STRANGER, _CHANNEL, (answer.as_try,), job_id))


def _copies(scene: Scene, kind: str, jobs: int) -> None:
    with scene.rig.database() as connection:
        names = [
            column.name
            for column in connection.execute("SELECT * FROM agent_jobs_job LIMIT 0").description or ()
            if not column.name.startswith("_")
        ]
        values = ", ".join(_DIFFERENT.get(name, f"template.{name}") for name in names)
        statement = _COPY.format(columns=", ".join(names), values=values)
        parameters = {"jobs": jobs, "org": _STRANGER, "type": kind}
        made = connection.execute(statement, parameters).fetchall()  # type: ignore[call-overload]
    scene.sent += [Sent(name, _STRANGER, _CHANNEL, (), job_id) for job_id, name in made]


def _verify(scene: Scene) -> None:
    """Ours were measured while the flood stood, not only after it."""
    with scene.rig.database() as connection:
        row = connection.execute(
            """SELECT extract(epoch FROM max(started_at) - min(created_at))::float8 FROM agent_jobs_job
               WHERE org_id = %s""",
            [_STRANGER],
        ).fetchone()
    assert row is not None
    scene.did(f"second that the flood stood: {row[0]:.0f}")
    ours = sum(1 for job in scene.load.ledger())
    if row[0] < 10 or ours < 20:
        scene.breaks(f"the flood stood for {row[0]:.1f} s and met {ours} jobs of ours: that shows nothing")


E14 = Experiment(
    "E14",
    "50,000 jobs of one organisation, one a second of another",
    "I15",
    _flood,
    rules=Rules(start_slack=None, lateness_max={ORG: _MOST_LATE}),
    make_load=TrickleLoad,
    load={"rate": 1.0, "canceled": 0.0},
    quiet_seconds=420.0,
    verify=_verify,
)
