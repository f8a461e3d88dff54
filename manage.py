#!/usr/bin/env python3
"""Every command of the project, on a machine that has only Python 3.11.

    python3 manage.py up        the whole service in this terminal, with its own PostgreSQL and Redis, and a demo
    python3 manage.py test      the test suite, with its own PostgreSQL and Redis
    python3 manage.py run_executor --help    the program that runs jobs on another machine
    python3 manage.py help      Django's commands, and the service's own

If the libraries are missing or out of date, this file makes `.venv` beside itself from `requirements/` and restarts in
it. Until then it may use only the standard library.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "agent-jobs-requirements.json"
# All of them together mean that an interpreter has our libraries (an image, somebody's own venv), and not merely
# Django.
NEEDED = ("django", "rest_framework", "celery", "psycopg")
TEST_USAGE = """\
usage: manage.py test [pytest arguments]

Runs pytest against a PostgreSQL and a Redis that are started for the run, in parallel (`-n`, by default one process
more than cores, because many tests wait for other processes). DATABASE_URL and REDIS_URL are used instead where they
are set. Without `-m` everything runs but the tests marked live, chaos, bench and browser; name them to run them:
`manage.py test -m live`.
"""


def main(arguments: list[str]) -> int:
    command = arguments[0] if arguments else "help"
    if sys.version_info < (3, 11):  # noqa: UP036 - a clear message, before an older Python fails on something else
        found = ".".join(map(str, sys.version_info[:3]))
        return complain(f"Agent Jobs needs Python 3.11 or later, and {sys.executable} is {found}.")
    if command == "bootstrap":
        wanted = arguments[1] if len(arguments) > 1 else "embedded"
        if wanted not in {"embedded", "dev"} or len(arguments) > 2:
            return complain("usage: manage.py bootstrap [embedded|dev]")
    else:
        wanted = "dev" if command == "test" else "embedded"
    try:
        enter_environment(wanted)
    except PermissionError as error:
        return complain(
            f"{error.filename} cannot be written: run this as the owner of {ROOT}, or in a clone of your own."
        )
    except subprocess.CalledProcessError as error:
        return complain(f"`{' '.join(map(str, error.cmd))}` failed with exit code {error.returncode}; see above.")
    if command == "bootstrap":
        return 0
    if command == "test":
        return run_tests(arguments[1:])
    if command == "up":
        from config import devstack

        return devstack.main(arguments[1:])
    if command == "run_executor":
        from agent_jobs.executor_program import command_line

        return command_line.main(arguments[1:])
    return run_django()


# --- The environment -----------------------------------------------------------------------------------------------
def enter_environment(wanted: str) -> None:
    """Continue in an interpreter that has the libraries: this one, or that of `.venv`, made or refreshed first."""
    is_ours = Path(sys.prefix).resolve() == VENV.resolve()
    has_libraries = all(importlib.util.find_spec(name) for name in NEEDED)
    if has_libraries and (not is_ours or is_current(wanted)):
        os.environ.pop("AGENT_JOBS_BOOTSTRAPPED", None)
        return
    # Normally once. Twice if another process installs the larger set right afterwards.
    attempts = int(os.environ.get("AGENT_JOBS_BOOTSTRAPPED") or 0)
    if attempts >= 3:
        sys.exit(complain(f"{VENV} stays incomplete: remove it and start again."))
    make_environment(wanted, rebuild=is_ours and not has_libraries)
    os.environ["AGENT_JOBS_BOOTSTRAPPED"] = str(attempts + 1)
    python = str(VENV / "bin" / "python")  # absolute, also as argv[0]: by that it finds its libraries
    os.execv(python, [python, str(ROOT / "manage.py"), *sys.argv[1:]])  # noqa: S606


def is_current(wanted: str) -> bool:
    """Whether `.venv` was made from today's requirements file of the wanted set. The set `dev` will also do, since it
    contains `embedded`.
    """
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return False
    if not (VENV / "bin" / "python").exists():  # also if it links to a Python that an upgrade removed
        return False
    return stamp["set"] in {wanted, "dev"} and stamp["sha256"] == fingerprint(stamp["set"])


def fingerprint(wanted: str) -> str:
    return hashlib.sha256((ROOT / "requirements" / f"{wanted}.txt").read_bytes()).hexdigest()


def make_environment(wanted: str, *, rebuild: bool) -> None:
    """Make or refresh `.venv`. If several processes call this at once, one works and the others wait."""
    import fcntl

    lock = os.open(ROOT / "requirements", os.O_RDONLY)  # locks an existing folder, so no lock file stays behind
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"waiting for another process that is making {VENV}")
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        if is_current(wanted) and not rebuild:
            return
        try:
            has_dev = json.loads(STAMP.read_text())["set"] == "dev"
        except (OSError, ValueError, KeyError):
            has_dev = False
        install("dev" if has_dev else wanted, rebuild=rebuild)
    finally:
        os.close(lock)


def install(wanted: str, *, rebuild: bool) -> None:
    requirements = ROOT / "requirements" / f"{wanted}.txt"
    python = VENV / "bin" / "python"
    uv = shutil.which("uv") or (str(VENV / "bin" / "uv") if (VENV / "bin" / "uv").exists() and not rebuild else None)
    base = getattr(sys, "_base_executable", None) or sys.executable
    if rebuild or not runs(python):
        if not uv:
            refuse_without_venv(base)
        say(f"making {VENV} with {base}")
        if uv:
            subprocess.run([uv, "venv", "--quiet", "--clear", "--python", base, VENV], check=True)
        else:
            subprocess.run([base, "-m", "venv", "--clear", VENV], check=True)
    STAMP.unlink(missing_ok=True)  # an interrupted installation counts as none
    if uv:
        say(f"installing requirements/{wanted}.txt with {uv}")
        pip: list[str | Path] = [uv, "pip"]
        options: list[str | Path] = ["--quiet", "--compile-bytecode", "--python", python]
    else:
        say(f"installing requirements/{wanted}.txt with pip; the first time this takes about half a minute")
        if subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode:
            refuse_without_venv(base)
            subprocess.run([python, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
        pip = [python, "-m", "pip", "--disable-pip-version-check"]
        options = ["--quiet", "--no-input"]
    # The lock file is complete, so skip resolving: old versions of pip resolve an extra again and then miss its hash.
    subprocess.run([*pip, "install", *options, "--no-deps", "--require-hashes", "-r", requirements], check=True)
    where: list[str | Path] = ["--quiet", "--python", python] if uv else []
    subprocess.run([*pip, "check", *where], check=True, stdout=sys.stderr)
    unfinished = STAMP.with_suffix(".new")
    unfinished.write_text(json.dumps({"set": wanted, "sha256": fingerprint(wanted)}))
    unfinished.rename(STAMP)
    say("ready")


def runs(python: Path) -> bool:
    """Whether this interpreter has a supported version, in a virtual environment of the same version."""
    question = "import sys, encodings; sys.exit(sys.version_info < (3, 11) or sys.prefix == sys.base_prefix)"
    try:
        if subprocess.run([python, "-c", question], capture_output=True).returncode:
            return False
        version = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
        )
    except OSError:
        return False
    return Path(version.stdout.strip()).is_dir()


def refuse_without_venv(base: str) -> None:
    if importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip"):
        return
    version = ".".join(map(str, sys.version_info[:2]))
    sys.exit(
        complain(
            f"{base} cannot make a virtual environment, because its modules venv or ensurepip are missing. "
            f"On Debian and Ubuntu they are in a package of their own: apt-get install python{version}-venv "
            "(or python3-venv). Having uv on PATH does as well."
        )
    )


# --- The commands --------------------------------------------------------------------------------------------------
def run_tests(arguments: list[str]) -> int:
    if arguments in (["--help"], ["-h"]):
        print(TEST_USAGE, end="")
        return 0
    if not importlib.util.find_spec("pytest"):
        return complain(
            f"{sys.executable} has no pytest: install requirements/dev.txt, or use a Python without Django."
        )
    os.chdir(ROOT)
    if not any(argument.startswith(("-n", "--numprocesses", "--pdb", "no:xdist")) for argument in arguments):
        arguments = ["-n", str((os.cpu_count() or 1) + 1), "--dist", "loadfile", "--no-loadscope-reorder", *arguments]
    return os.execv(sys.executable, [sys.executable, "-m", "pytest", *arguments])  # noqa: S606


def run_django() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    sys.path.insert(0, str(ROOT))
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    from infra import database

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        return complain(str(error))
    except database.Error as error:
        if not database.is_unavailable(error):
            raise
        reason = database.reason(error)
        return complain(f"the database does not answer ({reason}): start `manage.py up`, or set DATABASE_URL.")
    return 0


def say(sentence: str) -> None:
    print(f"manage.py: {sentence}", file=sys.stderr, flush=True)


def complain(sentence: str) -> int:
    say(sentence)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
