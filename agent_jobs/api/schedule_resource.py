"""The base of the views of schedules: reading ids and bodies, and the answer that shows one schedule."""

import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from rest_framework.response import Response

from agent_jobs.api import schedule_shapes
from agent_jobs.api.base import Resource, read_id
from agent_jobs.errors import FieldError, Invalid
from agent_jobs.reads import schedule_rows
from infra import database

_PREVIEWED_IN_ANSWERS = 5
_VERSION = re.compile(r'(?:W/)?"?([0-9]{1,9})"?')


class ScheduleResource(Resource):
    def read_id(self, text: str) -> UUID:
        return read_id(text, schedule_rows.not_found)

    def item(self, schedule_id: UUID, *, status: int = 200) -> Response:
        body, version = self.body(schedule_id)
        response = Response(body, status=status)
        response["ETag"] = f'"{version}"'
        return response

    def body(self, schedule_id: UUID) -> tuple[dict[str, Any], int]:
        row = schedule_rows.schedule(self.org_id, schedule_id)
        shown = schedule_shapes.shown(row, schedule_rows.last_firings(self.org_id, [schedule_id]).get(schedule_id))
        if row["next_at"] is not None:
            shown["next_runs"] = previewed(row, _PREVIEWED_IN_ANSWERS)
        return {"data": shown, "meta": self.meta(schedule_id)}, row["version"]

    def definition(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a body as a definition. The channel's `org_id` is checked and not kept."""
        stated = {name: value for name, value in fields.items() if name not in ("key", "is_paused")}
        if "job" in stated:
            stated["job"] = self.job(stated["job"])
        return stated

    def job(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        channel = fields.get("target_channel")
        if channel is None:
            return dict(fields)
        self.require_org(channel["org_id"])
        return {**fields, "target_channel": {name: value for name, value in channel.items() if name != "org_id"}}

    def wanted_version(self) -> int | None:
        """The version of an If-Match header; None without one, or for `*`."""
        text = self.request.META.get("HTTP_IF_MATCH", "*").strip()
        if text == "*":
            return None
        found = _VERSION.fullmatch(text)
        if found is None:
            raise Invalid(
                FieldError("If-Match", "invalid", 'must be the ETag of an earlier answer for it, such as "3", or *')
            )
        return int(found[1])


def previewed(row: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    return schedule_shapes.previewed(
        row["definition"], anchor=row["created_at"], after=database.now(), count=count, key=str(row["id"])
    )


def version_number(text: str) -> int:
    """A version's number; 0, which no version has, for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
