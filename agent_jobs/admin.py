"""The tables for operators: to look at everything, to change what no other door changes, never a job's status."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from agent_jobs.models import (
    Activity,
    AppToken,
    DutyRun,
    Job,
    JobType,
    Membership,
    Message,
    Org,
    Profile,
    Task,
    WorkerProcess,
)
from agent_jobs.services import tokens
from agent_jobs.specs import Actor


class ReadOnly(admin.ModelAdmin):  # type: ignore[type-arg]
    """Rows that services write by their own rules."""

    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Org)
class OrgAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("id", "name", "weight", "max_time_to_complete", "created_at")
    search_fields = ("id", "name")

    def get_readonly_fields(self, request: HttpRequest, obj: Org | None = None) -> tuple[str, ...]:
        return ("id", "created_at") if obj else ("created_at",)


@admin.register(Membership)
class MembershipAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("user", "org", "role")
    list_filter = ("role",)
    autocomplete_fields = ("org", "user")


@admin.register(AppToken)
class AppTokenAdmin(ReadOnly):
    """Made by `manage.py create_token`: the plain token could not be shown here."""

    list_display = ("public_id", "name", "org", "scopes", "created_at", "expires_at", "revoked_at", "last_used_at")
    exclude = ("digest",)
    actions = ("revoke",)

    @admin.action(description="Revoke the selected tokens, for good", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[AppToken]) -> None:
        for token in queryset:
            tokens.revoke(token, actor=Actor("user", request.user.get_username()))

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_active and request.user.is_superuser)


@admin.register(JobType, Profile)
class EntryAdmin(ReadOnly):
    list_display = ("key", "org", "name", "version", "active", "updated_at")
    search_fields = ("key", "name")


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


admin.site.register([WorkerProcess, DutyRun], ReadOnly)
