"""The locks in `requirements/` pin all that their packages require, since they are installed without resolving."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("requirements_in_step", ROOT / ".ci" / "requirements_in_step.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _pins(check: ModuleType) -> dict[str, str]:
    pins: dict[str, str] = check._pins(ROOT / "requirements" / "base.txt")
    return pins


def test_a_complete_lock_has_nothing_to_complain_about(check: ModuleType) -> None:
    assert check.missing(check._stated("base"), _pins(check), "base") == []


@pytest.mark.parametrize(
    ("package", "required_by"),
    [("sqlparse", "django"), ("pyasn1-modules", "google-auth"), ("urllib3", "requests")],
)
def test_a_lock_that_lacks_a_package_is_not_complete(check: ModuleType, package: str, required_by: str) -> None:
    pins = _pins(check)
    del pins[package]
    assert any(
        complaint.startswith(f"{required_by} requires {package}")
        for complaint in check.missing(check._stated("base"), pins, "base")
    )


def test_what_only_an_extra_requires_is_looked_for(check: ModuleType) -> None:
    stated = [Requirement("google-auth[requests]")]
    pins = {name: version for name, version in _pins(check).items() if name != "requests"}
    assert [complaint.split(",")[0] for complaint in check.missing(stated, pins, "base")] == [
        "google-auth requires requests<3.0.0"
    ]


def test_a_pin_that_a_package_refuses_is_told(check: ModuleType) -> None:
    complaints = check.missing(check._stated("base"), {**_pins(check), "kombu": "1.0"}, "base")
    assert any("base.txt has 1.0" in complaint for complaint in complaints)
