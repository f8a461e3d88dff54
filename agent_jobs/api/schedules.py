"""Schedules: `/services/agent-schedules[/{id}]`. Recurring jobs: lists, creates, shows, changes and deletes them."""

from collections.abc import Mapping
from typing import Any

from django.http import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs.api import paging, schedule_shapes
from agent_jobs.api.docs import operation
from agent_jobs.api.filters import ScheduleFilters
from agent_jobs.api.schedule_resource import ScheduleResource
from agent_jobs.api.schedule_shapes import (
    EXAMPLES,
    NewSchedule,
    RemovedSchedule,
    ScheduleItem,
    ScheduleKey,
    SchedulePage,
    SchedulePatch,
    ScheduleRequest,
)
from agent_jobs.errors import FieldError, Invalid
from agent_jobs.reads import schedule_rows
from agent_jobs.reads.queries import Row
from agent_jobs.schedules import editing

SORTING = paging.Sorting(
    "schedules",
    {"created_at": "created_at", "updated_at": "updated_at", "name": "name", "next_run_at": "next_at"},
    default="created_at:desc",
    not_first=frozenset({"next_run_at"}),
)


class Schedules(ScheduleResource):
    @operation(
        "schedules_list",
        "List schedules",
        answers={200: SchedulePage},
        sorting=SORTING,
        filtered=ScheduleFilters,
    )
    def get(self, request: Request) -> Response:
        found = schedule_rows.schedules(self.org_id)
        asked = self.asked(sorting=SORTING, rows=found, filtered=ScheduleFilters)

        def shown(rows: list[Row]) -> list[dict[str, Any]]:
            last = schedule_rows.last_firings(self.org_id, [row["id"] for row in rows])
            return [schedule_shapes.shown(row, last.get(row["id"])) for row in rows]

        return self.listed(asked, asked.rows, schedule_rows.COLUMNS, shown)

    @operation(
        "schedules_create",
        "Create a schedule",
        answers={201: ScheduleItem},
        refused=(404, 409),
        request=NewSchedule,
        examples=EXAMPLES,
        description="An expression that is invalid, or that never fires, is a 400 that says so. The answer shows the"
        " next five firings.",
    )
    def post(self, request: Request) -> HttpResponseBase:
        fields = self.asked(body=NewSchedule).body
        stated = self.definition(fields)

        def effect() -> tuple[int, Mapping[str, Any]]:
            made = editing.create(
                self.org_id,
                stated,
                key=fields.get("key"),
                is_paused=fields.get("is_paused", False),
                actor=self.actor,
            )
            return 201, self.body(made.pk)[0]

        return self.once(effect)


class ScheduleByKey(ScheduleResource):
    @operation(
        "schedules_put_by_key",
        "Create or replace a schedule by its key",
        answers={200: ScheduleItem, 201: ScheduleItem},
        refused=(409,),
        request=ScheduleRequest,
        description="Creates the schedule (201), or replaces its definition (200). Equal definitions change nothing.",
    )
    def put(self, request: Request, key: str) -> Response:
        stated = self.definition(self.asked(body=ScheduleRequest).body)
        if not ScheduleKey.FORM.fullmatch(key):
            raise Invalid(FieldError("key", "invalid", ScheduleKey.COMPLAINT))
        known = schedule_rows.by_key(self.org_id, key)
        if known is None:
            return self.item(editing.create(self.org_id, stated, key=key, actor=self.actor).pk, status=201)
        editing.replace(self.org_id, known, stated, actor=self.actor, if_version=self.wanted_version())
        return self.item(known)


class ScheduleDetail(ScheduleResource):
    @operation("schedules_retrieve", "Get a schedule", answers={200: ScheduleItem})
    def get(self, request: Request, schedule_id: str) -> Response:
        self.asked()
        return self.item(self.read_id(schedule_id))

    @operation(
        "schedules_replace",
        "Replace a schedule",
        answers={200: ScheduleItem},
        refused=(409,),
        request=ScheduleRequest,
        description="Fields that are left out return to their defaults. A value `******` keeps the stored secret."
        " With `If-Match`, a 409 tells that the schedule is at another version.",
    )
    def put(self, request: Request, schedule_id: str) -> Response:
        stated = self.definition(self.asked(body=ScheduleRequest).body)
        found = self.read_id(schedule_id)
        editing.replace(self.org_id, found, stated, actor=self.actor, if_version=self.wanted_version())
        return self.item(found)

    @operation(
        "schedules_update",
        "Change a schedule",
        answers={200: ScheduleItem},
        refused=(409,),
        request=SchedulePatch,
        description="Changes the fields that are sent. `job`, `dst` and `misfire` are merged; `cron`, `every_seconds`"
        " and `run_at` replace each other.",
    )
    def patch(self, request: Request, schedule_id: str) -> Response:
        fields = self.asked(body=SchedulePatch, partial=True).body
        found = self.read_id(schedule_id)
        editing.change(
            self.org_id,
            found,
            self.definition(fields),
            actor=self.actor,
            is_paused=fields.get("is_paused"),
            if_version=self.wanted_version(),
        )
        return self.item(found)

    @operation(
        "schedules_delete",
        "Delete a schedule",
        answers={200: RemovedSchedule},
        description="Its jobs stay, and those that run go on.",
    )
    def delete(self, request: Request, schedule_id: str) -> Response:
        self.asked()
        removed = editing.delete(self.org_id, self.read_id(schedule_id), actor=self.actor)
        return Response({"meta": self.meta(removed.pk), "message": f"Schedule with ID '{removed.pk}' deleted"})
