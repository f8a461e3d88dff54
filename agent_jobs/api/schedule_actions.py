"""Actions on a schedule: pause, resume, run now, backfill, roll back."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from django.http import HttpResponseBase
from rest_framework.request import Request

from agent_jobs.api import schedule_shapes
from agent_jobs.api.docs import operation
from agent_jobs.api.formatting import stamp
from agent_jobs.api.schedule_resource import ScheduleResource, version_number
from agent_jobs.api.schedule_shapes import BackfillItem, BackfillRequest, FiringItem, RunRequest, ScheduleItem
from agent_jobs.reads import schedule_rows
from agent_jobs.schedules import definition as definitions
from agent_jobs.schedules import editing, requested_runs


class _ScheduleChange(ScheduleResource):
    def changed(self, schedule_id: str, change: Callable[..., Any]) -> HttpResponseBase:
        self.asked()
        found = self.read_id(schedule_id)

        def effect() -> tuple[int, Mapping[str, Any]]:
            change(self.org_id, found, actor=self.actor)
            return 200, self.body(found)[0]

        return self.once(effect)


class PauseSchedule(_ScheduleChange):
    @operation("schedules_pause", "Pause a schedule", answers={200: ScheduleItem})
    def post(self, request: Request, schedule_id: str) -> HttpResponseBase:
        return self.changed(schedule_id, editing.pause)


class ResumeSchedule(_ScheduleChange):
    @operation(
        "schedules_resume",
        "Resume a schedule",
        answers={200: ScheduleItem},
        description="It fires from now on. Times that passed while it was paused are not made up for.",
    )
    def post(self, request: Request, schedule_id: str) -> HttpResponseBase:
        return self.changed(schedule_id, editing.resume)


class RunSchedule(ScheduleResource):
    @operation(
        "schedules_run",
        "Run a schedule now",
        answers={200: FiringItem},
        request=RunRequest,
        description="Makes a job now, also while the schedule is paused. `params`, `config` and `work` are laid over"
        " those of the schedule key by key. `overlap` is `allow` unless it is sent. `queue_one` takes no"
        " `work`.",
    )
    def post(self, request: Request, schedule_id: str) -> HttpResponseBase:
        fields = dict(self.asked(body=RunRequest).body)
        overlap = definitions.Overlap(fields.pop("overlap", definitions.Overlap.ALLOW))
        overrides, found = self.job(fields), self.read_id(schedule_id)

        def effect() -> tuple[int, Mapping[str, Any]]:
            made = requested_runs.run_now(self.org_id, found, actor=self.actor, overrides=overrides, overlap=overlap)
            return 200, {"data": schedule_shapes.firing(_row(made)), "meta": self.meta(found)}

        return self.once(effect)


class BackfillSchedule(ScheduleResource):
    @operation(
        "schedules_backfill",
        "Make up for past firings",
        answers={200: BackfillItem},
        request=BackfillRequest,
        description=f"Makes the jobs of the times from `start` to `end` that have no firing, at most"
        f" {requested_runs.MOST_BACKFILLED:,}. With `dry_run` it only lists the times.",
    )
    def post(self, request: Request, schedule_id: str) -> HttpResponseBase:
        fields = self.asked(body=BackfillRequest).body
        found = self.read_id(schedule_id)

        def effect() -> tuple[int, Mapping[str, Any]]:
            made = requested_runs.backfill(
                self.org_id,
                found,
                start=fields["start"],
                end=fields["end"],
                actor=self.actor,
                overlap=definitions.Overlap(fields.get("overlap", definitions.Overlap.ALLOW)),
                is_dry_run=fields.get("dry_run", False),
            )
            data = {
                "times": [stamp(at) for at in made.times],
                "skipped": made.skipped,
                "firings": [schedule_shapes.firing(_row(one)) for one in made.firings],
            }
            return 200, {"data": data, "meta": self.meta(found)}

        return self.once(effect)


class RollBackSchedule(_ScheduleChange):
    @operation(
        "schedules_rollback",
        "Roll a schedule back to a version",
        answers={200: ScheduleItem},
        description="Makes a new version with the configuration and the secrets of the old one.",
    )
    def post(self, request: Request, schedule_id: str, number: str) -> HttpResponseBase:
        return self.changed(schedule_id, partial(editing.roll_back, number=version_number(number)))


def _row(firing: Any) -> dict[str, Any]:
    return {column: getattr(firing, column) for column in schedule_rows.FIRING_COLUMNS}
