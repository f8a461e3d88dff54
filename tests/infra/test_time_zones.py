"""Time zones come from the pinned package and not from the operating system."""

import os
import subprocess
import sys
import zoneinfo
from datetime import UTC, datetime
from pathlib import Path

import pytest
import tzdata

from infra import time_zones

ROOT = Path(__file__).resolve().parents[2]


def test_no_file_of_the_system_is_read() -> None:
    assert zoneinfo.TZPATH == ()
    assert time_zones.version() == tzdata.IANA_VERSION


@pytest.mark.parametrize("module", ["agent_jobs.hours.calendar", "agent_jobs.recurrence", "config.settings"])
def test_each_process_pins_them_even_if_its_environment_names_other_files(module: str) -> None:
    """Havana has no second 00:30 on 2026-11-01 by the pinned rules; older files of a system have one."""
    program = (
        "from zoneinfo import ZoneInfo; import datetime as d; ZoneInfo('America/Havana')\n"
        f"import {module}, zoneinfo; assert zoneinfo.TZPATH == ()\n"
        "print(d.datetime(2026, 11, 2, tzinfo=ZoneInfo('America/Havana')).utcoffset())"
    )
    environment = {**os.environ, "PYTHONTZPATH": "/usr/share/zoneinfo", "DJANGO_SETTINGS_MODULE": "config.settings"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    expected = datetime(2026, 11, 2, tzinfo=zoneinfo.ZoneInfo("America/Havana")).utcoffset()
    assert done.stdout.strip() == str(expected) == "-1 day, 20:00:00"


@pytest.mark.parametrize("name", sorted(time_zones.names())[::40])
def test_a_zone_is_found_in_any_case(name: str) -> None:
    for spelled in (name, name.lower(), name.upper()):
        zone = time_zones.find(spelled)
        assert zone is not None
        assert zone.key == name


@pytest.mark.parametrize(
    "name", ["", ".", "../x", "America", "tzdata.zi", "localtime", "Factory", "right/UTC", "a\x00"]
)
def test_anything_else_is_no_zone(name: str) -> None:
    assert time_zones.find(name) is None


def test_utc_is_among_the_names() -> None:
    assert {"UTC", "Europe/Berlin", "Etc/GMT+3"} <= time_zones.names()
    assert datetime(2026, 1, 1, tzinfo=time_zones.find("utc")) == datetime(2026, 1, 1, tzinfo=UTC)
