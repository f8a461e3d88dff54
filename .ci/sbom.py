"""Writes what the service is made of, as CycloneDX: the pinned requirements/base.txt with its hashes, and with what the
installed packages say of themselves (licences, a description). Needs no network.

The environment alone would not do: it has the tools of development as well, and no hashes. What is not installed on
this machine (requirements for other systems) and what names no licence in a form that can be read is said at the end.
"""
# ruff: noqa: T201

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
TOLD = ("licenses", "description")


def main(target: Path) -> int:
    bom = _generated("requirements", "requirements/base.txt")
    installed = {_name(component): component for component in _generated("environment", sys.executable)["components"]}
    for component in bom["components"]:
        found = installed.get(_name(component), {})
        # Without it, it is the line of the requirements, with all its hashes.
        component.pop("description", None)
        component.update({name: found[name] for name in TOLD if name in found})
    text = json.dumps(bom, indent=2, sort_keys=True) + "\n"
    if errors := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        print(f"sbom: {errors}", file=sys.stderr)
        return 1
    target.write_text(text)
    unknown = sorted(" ".join(_name(component)) for component in bom["components"] if "licenses" not in component)
    print(f"{target}: {len(bom['components'])} components; without a licence: {', '.join(unknown) or 'none'}")
    return 0


def _generated(*source: str) -> dict[str, Any]:
    options = ("--pyproject", "pyproject.toml", "--output-reproducible", "--spec-version", "1.6", "--of", "JSON")
    command = [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", *source, *options]
    made = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)  # noqa: S603 - our own words
    bom: dict[str, Any] = json.loads(made.stdout)
    return bom


def _name(component: dict[str, Any]) -> tuple[str, str]:
    return canonicalize_name(component["name"]), component["version"]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
