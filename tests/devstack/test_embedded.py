"""The servers that `manage.py up` and the tests start for themselves."""

import os

import psycopg
import redis


def test_the_run_has_a_postgresql_of_its_own() -> None:
    with psycopg.connect(os.environ["DATABASE_URL"].replace("/agent_jobs", "/postgres")) as connection:
        row = connection.execute("SELECT current_setting('server_version_num')::int").fetchone()
    assert row is not None
    assert row[0] >= 150000


def test_the_run_has_a_redis_of_its_own() -> None:
    client = redis.Redis.from_url(os.environ["REDIS_URL"])
    assert client.ping()
