"""A pytest plugin that gives the whole run one PostgreSQL and one Redis, started and stopped here.

Loaded by `addopts` in pyproject.toml, so that `pytest tests/anything` needs no preparation. DATABASE_URL and REDIS_URL
from the environment are used instead, where they are set. The servers start before pytest-django reads the settings;
with xdist only the controller starts them and the workers inherit the addresses (pytest-django then gives each worker
a database, this plugin gives each a Redis number).

Tests marked chaos, bench or browser run only when `-m` asks for them; those marked live also when their file is named.

It also saves work that every process of a run would do again: see `_keep_bytecode` and `config.garbage_collection`.
"""

import atexit
import base64
import fcntl
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from config import embedded, garbage_collection

garbage_collection.look_rarely()
ON_DEMAND = ("chaos", "bench", "browser")
PREFIX = "aj-test-"


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    _keep_bytecode()
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None:
        number = int(worker.removeprefix("gw"))
        os.environ["REDIS_URL"] = embedded.redis_url_with_number(os.environ["REDIS_URL"], number)
        return
    if early_config.known_args_namespace.help or early_config.known_args_namespace.version:
        return
    os.environ.update(_secrets())
    try:
        _start_servers()
    except embedded.CannotStart as error:
        raise pytest.UsageError(str(error)) from None


def pytest_configure(config: pytest.Config) -> None:
    # Nobody runs collectstatic for tests.
    config.addinivalue_line("filterwarnings", "ignore:No directory at:UserWarning")
    if not config.option.markexpr:
        is_whole = config.args_source is not pytest.Config.ArgsSource.ARGS
        config.option.markexpr = " and ".join(f"not {mark}" for mark in (*ON_DEMAND, *(["live"] if is_whole else [])))


def pytest_collection_finish() -> None:
    garbage_collection.leave_what_is_loaded()


def _keep_bytecode() -> None:
    """Keep compiled modules, also where the environment says not to: images do so for the one process they are for.
    The processes of a run, and those that tests start, would compile the project and rewrite all assertions anew."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def _secrets() -> dict[str, str]:
    """The secrets that a deployment states; new for every run, so that no test depends on a value."""
    return {
        "AGENT_JOBS_SECRET_KEY": secrets.token_urlsafe(48),
        "AGENT_JOBS_TOKEN_PEPPER": secrets.token_urlsafe(48),
        "AGENT_JOBS_SEALING_KEYS": f"k1:{base64.b64encode(secrets.token_bytes(32)).decode()}",
        "AGENT_JOBS_ALLOW_PRIVATE_ADDRESSES": "1",
        "AGENT_JOBS_RATE_ORG": "off",  # tests about limits state their own
    }


def _start_servers() -> None:
    _sweep()
    home = _make_home()
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    home.chmod(0o711)  # as root, PostgreSQL runs as another account and has to pass through
    # The data folder of a running `manage.py up` is none of the tests' business.
    os.environ["AGENT_JOBS_DATA_DIR"] = str(home)
    if not os.environ.get("DATABASE_URL"):
        postgres = embedded.Postgres(home, durable=False)
        _start(postgres, home / "postgres.log")
        os.environ["DATABASE_URL"] = postgres.url("agent_jobs")
        os.environ["AGENT_JOBS_TEST_TEMPLATE_LOCK"] = str(home / "template.lock")
    if not os.environ.get("REDIS_URL"):
        redis = embedded.Redis(home)
        _start(redis, home / "redis.log")
        os.environ["REDIS_URL"] = redis.url()


def _make_home() -> Path:
    """A new folder, locked for as long as this process lives: one whose lock is free is a killed run's."""
    while True:
        home = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
        lock = os.open(home, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if home.exists():  # else another run's sweep came between the two calls
            return home
        os.close(lock)


def _start(server: embedded.Postgres | embedded.Redis, log: Path) -> None:
    server.prepare()
    with log.open("wb") as output:
        process = server.spawn(output)
    atexit.register(embedded.stop, process, server.stop_signal)
    try:
        embedded.wait_ready(server, process)
    except embedded.CannotStart as error:
        raise embedded.CannotStart(f"{error}\n{log.read_text()[-2000:]}") from None


def _sweep() -> None:
    """Remove the folders of runs that were killed. Their servers died with them, except on macOS."""
    for home in Path("/tmp").glob(f"{PREFIX}*"):
        try:
            lock = os.open(home, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
        except OSError:
            continue  # another user's
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if sys.platform != "linux" and (home / "postgres").exists():
                embedded.Postgres(home).prepare()
                embedded.Redis(home).prepare()
            shutil.rmtree(home, ignore_errors=True)
        except (BlockingIOError, embedded.CannotStart):
            continue
        finally:
            os.close(lock)
