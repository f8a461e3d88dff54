"""The servers that `manage.py up` and the tests start for themselves."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis

from config import embedded
from config.embedded import child_processes, postgres_server
from tests.waiting import PATIENCE, wait_for

ROOT = Path(__file__).resolve().parents[2]


def test_the_run_has_a_postgresql_of_its_own() -> None:
    with psycopg.connect(os.environ["DATABASE_URL"].replace("/agent_jobs", "/postgres")) as connection:
        row = connection.execute("SELECT current_setting('server_version_num')::int").fetchone()
    assert row is not None
    assert row[0] >= 150000


def test_the_run_has_a_redis_of_its_own() -> None:
    assert redis.Redis.from_url(os.environ["REDIS_URL"]).ping()


def test_a_redis_url_keeps_everything_but_its_number() -> None:
    assert embedded.redis_url_with_number("redis://:p%40ss@h:1/0", 3) == "redis://:p%40ss@h:1/3"


def test_a_redis_that_was_left_behind_is_stopped_by_the_next_start(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_processes, "tied_to_parent", lambda *_, **__: None)  # as on macOS
    left = embedded.Redis(home)
    left.prepare()
    process = left.spawn(subprocess.DEVNULL)
    embedded.wait_ready(left, process)

    embedded.Redis(home).prepare()

    assert process.wait(PATIENCE) == 0


def test_a_postgresql_that_was_left_behind_is_stopped_by_the_next_start(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_processes, "tied_to_parent", lambda *_, **__: None)  # as on macOS
    left = embedded.Postgres(home, durable=False)
    left.prepare()
    process = left.spawn(subprocess.DEVNULL)
    embedded.wait_ready(left, process)

    embedded.Postgres(home, durable=False).prepare()

    assert process.wait(PATIENCE) == 0


def test_a_pid_file_that_names_a_stranger_stops_nobody(home: Path) -> None:
    server = embedded.Postgres(home, durable=False)
    server.prepare()
    with subprocess.Popen(["sleep", "600"]) as stranger:
        (server.files / "postmaster.pid").write_text(f"{stranger.pid}\n{server.files}\n")

        server.prepare()

        assert stranger.poll() is None
        assert not (server.files / "postmaster.pid").exists()
        stranger.kill()


def test_a_folder_of_another_version_of_postgresql_is_refused_in_words(home: Path) -> None:
    server = embedded.Postgres(home, durable=False)
    server.prepare()
    (server.files / "PG_VERSION").write_text("9\n")

    with pytest.raises(embedded.CannotStart, match="was made by PostgreSQL 9"):
        server.prepare()


def test_a_long_data_folder_gets_a_short_socket_folder(home: Path) -> None:
    deep = home / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)

    server = embedded.Postgres(deep, durable=False)

    assert len(str(server.sockets)) <= postgres_server.LONGEST_SOCKET_DIR


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_servers_end_with_a_test_run_that_is_killed(tmp_path: Path) -> None:
    probe = tmp_path / "test_probe.py"
    probe.write_text("import os, signal\ndef test_it():\n    os.kill(os.getpid(), signal.SIGKILL)\n")
    environment = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "REDIS_URL"}}
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
    before = set(Path("/tmp").glob("aj-test-*"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}", "-c"]

    killed = subprocess.run([*command, str(ROOT / "pyproject.toml"), str(probe)], cwd=ROOT, env=environment)

    assert killed.returncode == -signal.SIGKILL
    left = [home for home in set(Path("/tmp").glob("aj-test-*")) - before if _servers_of(home)]
    wait_for(lambda: not any(_servers_of(home) for home in left), what="its servers have ended")


def _servers_of(home: Path) -> list[int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if str(home) in child_processes.command_line(pid)]
