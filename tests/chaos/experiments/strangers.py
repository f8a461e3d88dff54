"""E15: every request of ours, and one to every route there is, again with a stranger's token."""

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tests.chaos import records
from tests.chaos.checker import Rules
from tests.chaos.client import Answer, Client
from tests.chaos.load import Load
from tests.chaos.rig import ORG, TEAM, Rig
from tests.chaos.stage import Experiment, Scene
from tests.waiting import wait_for

_STRANGER = "rival"
# In everything of ours that anybody writes or reads: names of jobs are in params, tags, messages and results.
_CANARIES = ("canary-of-acme", f"{ORG}-0000")
_MOST_REPLAYED = 1500
# What a denied request may add to: it is written down who tried.
_MAY_GROW = {"agent_jobs_audit", "agent_jobs_auditentry", "agent_jobs_auditlink", "agent_jobs_auditseal"}


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    body: Any = None
    headers: tuple[tuple[str, str], ...] = ()


class RecordingClient(Client):
    """Keeps what it was asked for, each different request once."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.asked: dict[str, Request] = {}
        self._noting = threading.Lock()

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        request = Request(method, path, body, tuple(headers.items()))
        with self._noting:
            self.asked.setdefault(repr(request), request)
        return super().request(method, path, body, **headers)


class RecordedLoad(Load):
    def __init__(self, rig: Rig, **options: Any) -> None:
        super().__init__(rig, **options)
        rig.add_org(_STRANGER, team="T0RIVAL")
        self.client = RecordingClient([rig.links[name].port for name in rig.webs], rig.tokens[ORG])


def _replay(scene: Scene) -> None:
    """Ours works and looks at everything; when all is quiet, the stranger says the same. Ours must be as before."""
    load = scene.load
    assert isinstance(load, RecordedLoad)
    ours = load.client
    assert isinstance(ours, RecordingClient)
    _furnish(scene, ours)
    while scene.elapsed < scene.seconds / 3 and scene.pause(1):
        pass
    load.stop()
    with scene.rig.database() as connection:
        wait_for(
            lambda: not load.unanswered and records.still_open(connection).is_quiet,
            seconds=120,
            what="ours are done",
        )
        seen = _tour(scene, ours)
        before = _ours(connection)
        stranger = Client(ours.ports, scene.rig.tokens[_STRANGER])
        requests = [*ours.asked.values(), *_every_route(connection, ours)]
        answers = Counter(_ask(scene, stranger, request) for request in requests[:_MOST_REPLAYED])
        after = _ours(connection)
    scene.faults |= Counter({f"replayed, answered {status}": count for status, count in answers.items()})
    scene.did("of ours that show a canary to us", seen)
    if seen < 5:
        scene.breaks("our own answers show no canaries: the replay could not have found any")
    if not answers[404] or not answers[403]:
        scene.breaks(f"the stranger was refused nothing: {dict(answers)}")
    for table in before:
        if before[table] != after[table]:
            scene.breaks(f"the stranger changed {table} of ours")


def _furnish(scene: Scene, ours: Client) -> None:
    canary = _CANARIES[0]
    profile = {"id": "helper", "name": canary, "instructions": f"Say {canary}."}
    ours.ok("POST", f"/services/organizations/{ORG}/profiles", profile)
    secret = {"id": "secret", "name": canary, "runner": "message", "default_config": {"start_prompt": canary}}
    ours.ok("POST", f"/services/organizations/{ORG}/agent-jobs-type", secret)
    channel = {"platform": "webhook", "code": "hook", "name": canary, "address": "http://127.0.0.1:9/hook"}
    admin = scene.rig.manage("create_token", "--org", ORG, "--scope", "SERVICES:ADMIN", "--name", "admin").strip()
    Client(ours.ports, admin).ok("POST", "/services/channels", channel)


def _tour(scene: Scene, ours: RecordingClient) -> int:
    """Reads everything of ours, so that it is replayed. Returns how many answers had a canary in them."""
    with scene.rig.database() as connection:
        routes = [route for route in _every_route(connection, ours) if route.method == "GET"]
    return sum(_canary(ours.request(route.method, route.path)) is not None for route in routes)


def _every_route(connection: psycopg.Connection[Any], ours: Client) -> Iterator[Request]:
    """One request a method of each path that the schema names, with things of ours where a path wants one."""
    schema = ours.request("GET", "/schema?format=json").body
    job_id, web_code = connection.execute(
        "SELECT max(id::text), max(channel_code) FROM agent_jobs_job WHERE org_id = %s", [ORG]
    ).fetchone() or ("", "")
    found: Mapping[str, str] = {"job_id": job_id, "org_id": ORG, "team_id": TEAM, "platform": "slack", "code": web_code}
    for path, methods in schema["paths"].items():
        entry = "helper" if "profile" in path else "ask"
        for method in methods:
            if method not in ("get", "post", "put", "patch", "delete"):
                continue
            filled = path
            for parameter, value in {**found, "entry_id": entry, "job_type_id": entry}.items():
                filled = filled.replace("{" + parameter + "}", value)
            if "{" in filled:
                filled = _with_first(ours, path, filled)
            body = None if method in ("get", "delete") else _body(path, entry)
            yield Request(method.upper(), filled, body)
            if method == "get" and "?" not in filled:
                yield Request("GET", f"{filled}?limit=1000")
                yield Request("GET", f"{filled}?include=activities,stats")
                yield Request("GET", f"{filled}?org_id={ORG}")


def _with_first(ours: Client, path: str, filled: str) -> str:
    """A parameter that we do not know is the id of the first of ours in the list above it."""
    above = filled.partition("{")[0].rstrip("/")
    listed = ours.request("GET", above).body.get("data")
    first = listed[0] if isinstance(listed, list) and listed else {}
    return filled.partition("{")[0] + str(first.get("id", "none")) + filled.partition("}")[2]


def _body(path: str, entry: str) -> Any:
    if path.endswith("agent-jobs"):
        target = {"org_id": ORG, "platform": "slack", "code": "C0000ACME", "data": {"team_id": TEAM}}
        return {"job_type_id": entry, "target_channel": target, "params": {"n": "stolen"}, "tags": ["stolen"]}
    return {"name": "stolen", "id": entry}


def _ask(scene: Scene, stranger: Client, request: Request) -> int | None:
    # What the stranger makes of his own may not look like ours.
    body = json.loads(json.dumps(request.body).replace(_CANARIES[0], "stolen"))
    answer = stranger.request(request.method, request.path, body, **dict(request.headers))
    if canary := _canary(answer):
        scene.breaks(f"{request.method} {request.path} of a stranger's: {answer.status} shows {canary}")
    if answer.status is None or answer.status >= 500:
        scene.breaks(f"{request.method} {request.path} of a stranger's was answered {answer.status}")
    return answer.status


def _canary(answer: Answer) -> str | None:
    shown = json.dumps([dict(answer.body), dict(answer.headers)])
    return next((canary for canary in _CANARIES if canary in shown), None)


def _ours(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """A sum of every row of ours, by table."""
    tables = connection.execute(
        """SELECT table_name FROM information_schema.columns
           WHERE column_name = 'org_id' AND table_schema = 'public' ORDER BY table_name"""
    ).fetchall()
    sums = {}
    for (table,) in tables:
        if table in _MAY_GROW or "audit" in table:
            continue
        statement = sql.SQL(
            "SELECT md5(coalesce(string_agg(row::text, chr(10) ORDER BY row::text), '')) FROM {} row WHERE org_id = %s"
        ).format(sql.Identifier(table))
        found = connection.execute(statement, [ORG]).fetchone()
        assert found is not None
        sums[table] = str(found[0])
    return sums


E15 = Experiment(
    "E15",
    "every request of ours and one to every route, with a stranger's token",
    "I13",
    _replay,
    rules=Rules(canaries={ORG: _CANARIES[0]}),
    make_load=RecordedLoad,
    load={"rate": 5.0},
)
