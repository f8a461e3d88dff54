"""What every test may ask for. The servers of the run are `services_plugin.py`'s."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def make_home() -> Iterator[Callable[[], Path]]:
    """Makes folders for servers of a test's own, which PostgreSQL's account can reach also as root.

    Folders of pytest's (`tmp_path`) cannot be used so: every other run on the machine closes them to other accounts
    again, and what then goes to /var/tmp instead stays there.
    """
    made: list[Path] = []

    def make() -> Path:
        folder = Path(tempfile.mkdtemp(prefix="aj-home-", dir="/tmp"))
        folder.chmod(0o711)
        made.append(folder)
        return folder

    yield make
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def home(make_home: Callable[[], Path]) -> Path:
    """One such folder."""
    return make_home()
