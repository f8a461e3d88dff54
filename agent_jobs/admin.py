"""Django's admin for operators: shows all tables, changes only what has no other interface, never a job's status."""

from typing import Any

from django.contrib import admin
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from agent_jobs.audit import audit_log
from agent_jobs.models import (
    Activity,
    AppToken,
    AuditEntry,
    AuditSeal,
    Budget,
    DutyRun,
    Executor,
    Job,
    JobType,
    Membership,
    Message,
    ModelKey,
    Org,
    PlaceHours,
    Profile,
    Reservation,
    Task,
    ToolSecret,
    UsageDay,
    WorkerProcess,
)
from agent_jobs.specs import Actor
from agent_jobs.tenants import app_tokens
from channels_integration.admin import ReadOnly


class Audited(admin.ModelAdmin):  # type: ignore[type-arg]
    """Rows that operators change here. Each change writes an entry into the organisation's audit."""

    word: str

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        with transaction.atomic():
            super().save_model(request, obj, form, change)
            names = form.changed_data
            before = {name: form.initial.get(name) for name in names} if change else None
            after = {name: _plain(form.cleaned_data.get(name)) for name in names}
            if names or not change:
                self._record(request, obj, "updated" if change else "created", before=before, after=after)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        with transaction.atomic():
            self._record(request, obj, "removed")
            super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        with transaction.atomic():
            for obj in queryset:
                self._record(request, obj, "removed")
            super().delete_queryset(request, queryset)

    def _record(self, request: HttpRequest, obj: Any, verb: str, **states: Any) -> None:
        org_id, name = (obj.pk, obj.pk) if isinstance(obj, Org) else (obj.org_id, obj.user.get_username())
        actor = _actor(request)
        audit_log.record(org_id, f"{self.word}.{verb}", name, actor=actor, **states)


def _actor(request: HttpRequest) -> Actor:
    return Actor("user", request.user.get_username(), getattr(request, "request_id", ""))


def _plain(value: Any) -> Any:
    return value.pk if isinstance(value, Model) else value


@admin.register(Org)
class OrgAdmin(Audited):
    word = "org"
    list_display = (
        "id",
        "name",
        "weight",
        "max_time_to_complete",
        "allows_commands",
        "allows_command_network",
        "created_at",
        "closed_at",
        "erased_at",
    )
    search_fields = ("id", "name")

    def get_readonly_fields(self, request: HttpRequest, obj: Org | None = None) -> tuple[str, ...]:
        # Not for a new organisation: it has no values yet, because the database sets these columns' defaults.
        return ("id", "stored_bytes", "created_at", "closed_at", "erased_at") if obj else ()

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # `manage.py close_org` ends an organisation


@admin.register(Membership)
class MembershipAdmin(Audited):
    word = "member"
    list_display = ("user", "org", "role")
    list_filter = ("role",)
    autocomplete_fields = ("org", "user")


@admin.register(AppToken)
class AppTokenAdmin(ReadOnly):
    """`manage.py create_token` makes tokens, because this page could not show the plain token."""

    list_display = ("public_id", "name", "org", "scopes", "created_at", "expires_at", "revoked_at", "last_used_at")
    exclude = ("digest",)
    actions = ("revoke",)

    @admin.action(description="Revoke the selected tokens, for good", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[AppToken]) -> None:
        for token in queryset:
            app_tokens.revoke(token, actor=_actor(request))

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_active and request.user.is_superuser)


@admin.register(JobType, Profile)
class EntryAdmin(ReadOnly):
    list_display = ("key", "org", "name", "version", "active", "updated_at")
    search_fields = ("key", "name")
    exclude = ("sealed_work",)


@admin.register(ToolSecret)
class ToolSecretAdmin(ReadOnly):
    list_display = ("name", "org", "hosts", "created_at", "updated_at")
    exclude = ("sealed_value",)
    search_fields = ("name",)


@admin.register(ModelKey)
class ModelKeyAdmin(ReadOnly):
    list_display = ("org", "provider", "base_url", "updated_at")
    exclude = ("sealed_key",)


@admin.register(Job)
class JobAdmin(ReadOnly):
    list_display = ("id", "org", "status", "job_type_key", "platform", "channel_code", "scheduled_at", "created_at")
    list_filter = ("status", "runner", "platform")
    search_fields = ("id", "job_type_key", "channel_code")


@admin.register(Task)
class TaskAdmin(ReadOnly):
    list_display = ("id", "job", "number", "status", "created_at", "finished_at")
    list_select_related = ("job",)


@admin.register(Activity)
class ActivityAdmin(ReadOnly):
    list_display = ("created_at", "org", "job", "code", "status", "actor", "note")
    list_select_related = ("job",)


@admin.register(Message)
class MessageAdmin(ReadOnly):
    list_display = ("id", "job", "is_human", "author", "created_at", "delivered_at")
    list_select_related = ("job",)


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnly):
    list_display = ("id", "at", "org_id", "actor", "action", "object_type", "object_id", "request_id")
    search_fields = ("=object_id", "=request_id")


@admin.register(AuditSeal)
class AuditSealAdmin(ReadOnly):
    list_display = ("id", "at", "org_id", "seq", "last_id")
    exclude = ("digests", "prev_hash", "hash")


@admin.register(UsageDay)
class UsageDayAdmin(ReadOnly):
    list_display = (
        *("day", "org", "job_type_key", "model", "calls"),
        *("input_tokens", "cached_input_tokens", "output_tokens", "cost"),
    )


@admin.register(Budget)
class BudgetAdmin(ReadOnly):
    list_display = ("day", "org", "scope", "key", "used_tokens", "reserved_tokens", "used_cost", "reserved_cost")


@admin.register(Reservation)
class ReservationAdmin(ReadOnly):
    list_display = ("created_at", "org", "job_id", "model", "status", "reserved_cost", "cost", "closed_at")


admin.site.register([WorkerProcess, DutyRun, Executor, PlaceHours], ReadOnly)
