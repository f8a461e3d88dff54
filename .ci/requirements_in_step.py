"""Fails where a requirements/*.txt is not what its *.in says. Changes no file and needs no network.

First, alone: every requirement that a *.in states is pinned in the *.txt at a version that it allows, with hashes, and
a set that contains another pins the same versions. Each lock is complete: it pins all that its packages require, with
their extras, because `manage.py` installs it with --no-deps. Then uv resolves anew with the present pins as its
preference; where the package index cannot be reached, that last part is left out and said so.
"""
# ruff: noqa: T201

import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
SETS = ("base", "embedded", "dev", "container")
INSTALLED = ("base", "embedded", "dev")  # in .venv, so that the metadata of their packages can be read
UNREACHABLE = re.compile(r"request|connect|dns|network|timed? ?out|offline|fetch", re.IGNORECASE)


def main() -> int:
    pins = {name: _pins(ROOT / "requirements" / f"{name}.txt") for name in SETS}
    complaints = [complaint for name in SETS for complaint in _against_stated(name, pins[name])]
    for larger, smaller in (("embedded", "base"), ("dev", "embedded")):
        for package, version in pins[smaller].items():
            if pins[larger].get(package) != version:
                complaints.append(f"{larger}.txt has {package} {pins[larger].get(package)}, {smaller}.txt {version}")
    complaints += [complaint for name in INSTALLED for complaint in missing(_stated(name), pins[name], name)]
    if not complaints:
        complaints = _against_resolution()
    for complaint in complaints:
        print(f"requirements: {complaint}; run `make lock`")
    return 1 if complaints else 0


def _pins(path: Path) -> dict[str, str]:
    blocks = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)(.*(?:\n    --hash=.*)*)", path.read_text(), re.M)
    for package, _, rest in blocks:
        if "--hash=sha256:" not in rest:
            sys.exit(f"requirements: {path.name} pins {package} without a hash; run `make lock`")
    return {canonicalize_name(package): version for package, version, _ in blocks}


def _stated(name: str) -> list[Requirement]:
    stated = []
    for line in (ROOT / "requirements" / f"{name}.in").read_text().splitlines():
        line = line.partition(" #")[0].strip()
        if line.startswith("-r "):
            stated += _stated(line.removeprefix("-r ").removesuffix(".in"))
        elif line and not line.startswith("#"):
            stated.append(Requirement(line))
    return stated


def _against_stated(name: str, pins: dict[str, str]) -> list[str]:
    complaints = []
    for requirement in _stated(name):
        pinned = pins.get(canonicalize_name(requirement.name))
        if pinned is None:
            complaints.append(f"{name}.in wants {requirement}, which {name}.txt does not have")
        elif not requirement.specifier.contains(pinned, prereleases=True):
            complaints.append(f"{name}.in wants {requirement}, and {name}.txt has {pinned}")
    return complaints


def missing(stated: list[Requirement], pins: dict[str, str], name: str) -> list[str]:
    """A complaint for each package that the installed ones require, and that `pins` lacks or has too old or too new.

    Extras are followed too; `pip check` does not look at them.
    """
    complaints = []
    seen: set[tuple[str, str]] = set()
    queue = [(f"{name}.in", requirement, "") for requirement in stated]
    while queue:
        wanted_by, requirement, extra = queue.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        package = canonicalize_name(requirement.name)
        if package not in pins:
            complaints.append(f"{wanted_by} requires {requirement}, which {name}.txt does not have")
            continue
        if not requirement.specifier.contains(pins[package], prereleases=True):
            complaints.append(f"{wanted_by} requires {requirement}, and {name}.txt has {pins[package]}")
        for wanted in {"", *requirement.extras}:
            if (package, wanted) not in seen:
                seen.add((package, wanted))
                queue += [(package, Requirement(line), wanted) for line in metadata.requires(package) or ()]
    return complaints


def _against_resolution() -> list[str]:
    uv = shutil.which("uv", path=f"{ROOT / '.venv' / 'bin'}:{os.environ.get('PATH', '')}")
    if uv is None:
        print("requirements: in step as far as can be seen without uv")
        return []
    with tempfile.TemporaryDirectory() as copy:
        requirements = Path(copy) / "requirements"
        shutil.copytree(ROOT / "requirements", requirements)
        for name in SETS:
            command = [uv, "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
            files = ["-o", f"requirements/{name}.txt", f"requirements/{name}.in"]
            done = subprocess.run([*command, *files], cwd=copy, capture_output=True, text=True)  # noqa: S603
            if done.returncode:
                if UNREACHABLE.search(done.stderr):
                    print("requirements: in step as far as can be seen without the package index")
                    return []
                return [f"{name}.in cannot be resolved: {done.stderr.strip()[-500:]}"]
            if _pins(requirements / f"{name}.txt") != _pins(ROOT / "requirements" / f"{name}.txt"):
                return [f"{name}.txt is not what uv makes of {name}.in"]
    return []


if __name__ == "__main__":
    sys.exit(main())
