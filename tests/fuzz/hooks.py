"""Leads three quarters of the well-formed requests to things that are there; schemathesis loads this by name."""

import json
import os
import zlib
from typing import Any

import schemathesis
from schemathesis.core.parameters import ParameterLocation

_THINGS = json.loads(os.environ["FUZZ_THINGS"])
_JOBS = _THINGS["jobs"]


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    if case.path_parameters and str(case.path_parameters.get("public_id", "")).startswith("ajt_"):
        case.path_parameters["public_id"] = _THINGS["spare"]  # never the run's own tokens
    # By the case itself and not by chance: a seed makes the same requests again.
    number = zlib.crc32(repr((case.path_parameters, case.query, case.body)).encode("utf-8", "replace"))
    if number % 4 == 0 or case.meta is None:
        return
    if case.path_parameters and not case.meta.is_negative_at(ParameterLocation.PATH):
        known = {"org_id": "acme", "job_id": _JOBS[number % len(_JOBS)], "entry_id": "greet", "team_id": "T1"}
        platform = ("web", "webhook", "slack", "null")[number % 4]
        known |= {
            "public_id": _THINGS["spare"],
            "platform": platform,
            "code": {"webhook": "hook"}.get(platform, "lobby"),
        }
        case.path_parameters.update({name: known[name] for name in case.path_parameters if name in known})
    if number % 3 and not case.meta.is_negative_at(ParameterLocation.HEADER):
        # Made-up keys come again and again, and the second time with another body: 422, and nothing is tried out.
        case.headers.pop("Idempotency-Key", None)
    if (
        isinstance(case.query, dict)
        and "org_id" in case.query
        and not case.meta.is_negative_at(ParameterLocation.QUERY)
    ):
        case.query["org_id"] = "acme"
    if isinstance(case.body, dict) and not case.meta.is_negative_at(ParameterLocation.BODY):
        _lead(case.body, number)


def _lead(body: dict[str, Any], number: int) -> None:
    target = body.get("target_channel")
    if isinstance(target, dict):
        target |= {"org_id": "acme"} | ({"platform": "web", "code": f"room{number % 9}"} if number % 3 else {})
    if "job_type_id" in body:
        body["job_type_id"] = "greet"
    if isinstance(body.get("config"), dict):
        body["config"].pop("profile_id", None)
    if "scopes" in body:
        body["scopes"] = ["SERVICES:READ"]
    if "job_id" in body and number % 3:
        body["job_id"] = _JOBS[number % len(_JOBS)]
