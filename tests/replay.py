"""Every request that a test makes with a token, again with a stranger's, in the state that the test left (promise I13).

The stranger is an organisation of its own. It has nothing but a token that may do everything, and an admin, who signs
in where people do. So whatever else is in the database is not the stranger's: no answer may tell of it, no request that
names it may succeed, no row may change. What a request tells the service itself (the id in its path, say) may come back
to it.
"""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any
from unittest import mock
from urllib.parse import parse_qs

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.test import Client
from django.test.client import FakePayload

from agent_jobs import dialects
from agent_jobs.models import AppToken, Membership, Org
from agent_jobs.tenants import app_tokens, login_tokens, members
from infra import prepared_sql

STRANGER = "stranger"
_PARTS = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "CONTENT_TYPE", "CONTENT_LENGTH")
_TOKEN_HEADERS = ("HTTP_AUTHORIZATION", "HTTP_X_API_KEY")
_WAIT = re.compile(r"\bwait=\d+")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Names that are no UUIDs.
_NAMES = {Org._meta.db_table: "id", AppToken._meta.db_table: "public_id"}
# Shorter texts may be anybody's, and so is a day; words like `process_module` are the service's own.
_LONG = 10
_WORD = re.compile(r"\w+([.:]\w+)*|\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class Request:
    """`environ`: the parts of it that say what is asked for, without the token, which was in `token_header`."""

    environ: tuple[tuple[str, str], ...]
    body: bytes
    token_header: str = "HTTP_AUTHORIZATION"

    def __str__(self) -> str:
        parts = dict(self.environ)
        query = f"?{parts['QUERY_STRING']}" if parts.get("QUERY_STRING") else ""
        return (
            f"{parts['REQUEST_METHOD']} {parts['PATH_INFO']}{query} {self.body[:200].decode(errors='replace')}".strip()
        )

    @property
    def text(self) -> str:
        return f"{self.environ}{self.body.decode(errors='replace')}"

    @property
    def is_a_persons(self) -> bool:
        """Whether people sign in at the address; elsewhere programs have app tokens."""
        owner = dialects.owner(dict(self.environ)["PATH_INFO"])
        return owner is not None and owner.name == "workspace"

    def names(self) -> set[str]:
        """The objects that a request names: parts of its path, and the organisation in its query or target."""
        parts = dict(self.environ)
        found = {*parts["PATH_INFO"].split("/"), *parse_qs(parts.get("QUERY_STRING", "")).get("org_id", [])}
        with suppress(ValueError, TypeError, LookupError):
            found.add(str(json.loads(self.body)["target_channel"]["org_id"]))
        return found


class _Stranger(Client):
    """A client whose requests are not recorded."""


@dataclass(frozen=True, slots=True)
class _World:
    """The data that the stranger must not see: rows, their ids and their texts."""

    rows: tuple[tuple[str, str], ...]
    ids: frozenset[str]
    texts: frozenset[str]


@contextmanager
def recording() -> Iterator[list[Request]]:
    """Keeps each different request that is made with a token by Django's test client, wherever it was made from."""
    asked: list[Request] = []
    send = Client.request

    def request(self: Client, **environ: Any) -> Any:
        body = environ.get("wsgi.input", FakePayload())
        header = next((name for name in _TOKEN_HEADERS if name in environ), "")
        if header and isinstance(body, FakePayload) and not isinstance(self, _Stranger):
            content = body.read()
            environ["wsgi.input"] = FakePayload(content)
            parts = {name: str(part) for name, part in environ.items() if name in _PARTS or name.startswith("HTTP_")}
            parts = {name: part for name, part in parts.items() if name not in _TOKEN_HEADERS}
            # The stranger does not wait for messages: nobody will write any.
            parts["QUERY_STRING"] = _WAIT.sub("wait=0", parts.get("QUERY_STRING", ""))
            asked.append(Request(tuple(sorted(parts.items())), content, header))
        return send(self, **environ)

    with mock.patch.object(Client, "request", request):
        yield asked


def replay(asked: Iterable[Request]) -> list[str]:
    """Make each different request as the stranger, and list the broken promises. Everything is rolled back."""
    different = list(dict.fromkeys(asked))
    found: list[str] = []
    if different:
        with _undone():
            token = _moved_in()
            login = _login() if any(request.is_a_persons for request in different) else ""
            world, client = _world(), _Stranger(raise_request_exception=False)
            for request in different:
                plain = login if request.is_a_persons else token
                found += [f"{request}: {breach}" for breach in _replayed(request, plain, world, client)]
    return found


def _moved_in() -> str:
    """Adds the stranger's rows. Returns its token."""
    token, org_row, token_row = _stranger(tuple(settings.TOKEN_PEPPERS.items()))
    prepared_sql.run(_MOVE_IN, {"org": org_row, "token": token_row})
    return token


@cache
def _stranger(peppers: tuple[tuple[int, str], ...]) -> tuple[str, str, str]:
    """The stranger's token, and its rows as the service makes them; each test then adds the same, in one statement."""
    with _undone():
        org = Org.objects.create(pk=STRANGER, name="Stranger")
        row, token = app_tokens.issue(org, name="stranger", scopes=["SERVICES:ADMIN"])
        return token, *prepared_sql.first(_MADE, {"org": org.pk, "token": row.pk})


_MADE = f"""SELECT to_jsonb(o)::text, to_jsonb(t)::text FROM {Org._meta.db_table} o, {AppToken._meta.db_table} t
    WHERE o.id = %(org)s AND t.id = %(token)s"""
_MOVE_IN = f"""WITH org AS (INSERT INTO {Org._meta.db_table}
        SELECT o.* FROM jsonb_populate_record(NULL::{Org._meta.db_table}, %(org)s::jsonb) o)
    INSERT INTO {AppToken._meta.db_table}
        SELECT t.* FROM jsonb_populate_record(NULL::{AppToken._meta.db_table}, %(token)s::jsonb) t"""


def _login() -> str:
    """The access token of an admin of the stranger."""
    user = get_user_model()._default_manager.create(username=STRANGER)
    Membership.objects.create(org_id=STRANGER, user=user, role=members.ADMIN)
    return login_tokens.issue(user, login_tokens.ACCESS, now=datetime.now(UTC))


def _replayed(request: Request, token: str, world: _World, client: Client) -> list[str]:
    environ = {**dict(request.environ), "wsgi.input": FakePayload(request.body)}
    environ[request.token_header] = f"Bearer {token}" if request.token_header == "HTTP_AUTHORIZATION" else token
    with _undone():
        client.cookies.clear()
        answer = client.request(**environ)
        return [*_breaches(request, answer, world), *_changes(world)]


@contextmanager
def _undone() -> Iterator[None]:
    """So that no answer has in it what the stranger did before."""
    block = transaction.atomic()
    block._from_testcase = True  # what a request does stays the outermost of its transactions
    with block:
        yield
        transaction.set_rollback(True)


def _breaches(request: Request, answer: Any, world: _World) -> Iterator[str]:
    shown = f"{answer.content.decode(errors='replace')}{dict(answer.headers)}"
    told = request.text
    for mark in world.ids | world.texts:
        if mark in shown and mark not in told:
            yield f"{answer.status_code} shows {mark!r}"
    if answer.status_code == 500:
        yield f"{answer.status_code} {shown[:500]}"
    if answer.status_code < 400:
        for name in request.names() & world.ids:
            yield f"{answer.status_code}, though it names {name!r}"


def _changes(world: _World) -> Iterator[str]:
    after = _rows()
    if after != world.rows:
        for table, row in sorted({*after} ^ {*world.rows}):
            yield f"changed {table}: {row}"


@cache
def _owned() -> tuple[tuple[str, str], ...]:
    """Tables that hold something of an organisation's, and how to tell the stranger's rows of them."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT table_name, array_agg(column_name::text) FROM information_schema.columns
               WHERE table_schema = 'public' GROUP BY table_name ORDER BY table_name"""
        )
        columns = {table: set(found) for table, found in cursor.fetchall()}
    above = {"job_id": "agent_jobs_job", "channel_id": "channels_integration_channel"}
    owned = {Org._meta.db_table: "r.id <> %(stranger)s"}
    for table, found in columns.items():
        if "org_id" in found:
            owned[table] = "r.org_id <> %(stranger)s"
        for column, parent in above.items():
            if column in found and "org_id" not in found:
                owned[table] = f"EXISTS (SELECT FROM {parent} p WHERE p.id = r.{column} AND p.org_id <> %(stranger)s)"
    return tuple(owned.items())


def _rows() -> tuple[tuple[str, str], ...]:
    # Prepared: to plan it takes longer than to run it.
    statement = " UNION ALL ".join(
        f"SELECT '{table}', to_jsonb(r)::text FROM {table} r WHERE {condition}" for table, condition in _owned()
    )
    return tuple(sorted(prepared_sql.all_rows(statement, {"stranger": STRANGER})))


def _world() -> _World:
    rows = _rows()
    ids: set[str] = set()
    texts: set[str] = set()
    for table, row in rows:
        columns = json.loads(row)
        if name := _NAMES.get(table):
            ids.add(columns[name])
        for text in _texts(columns):
            if _UUID.fullmatch(text):
                ids.add(text)
            elif len(text) >= _LONG and not _WORD.fullmatch(text):
                texts.add(text)
    return _World(rows, frozenset(ids), frozenset(texts))


def _texts(found: Any) -> Iterator[str]:
    if isinstance(found, str):
        yield found
    elif isinstance(found, dict | list):
        for inner in found.values() if isinstance(found, dict) else found:
            yield from _texts(inner)
