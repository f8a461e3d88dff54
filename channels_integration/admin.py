"""Admin pages for operators: they show all columns but the secrets, and change nothing."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from channels_integration.models import Channel, InboundEvent, Installation, Lane, OutboundMessage


class ReadOnly(admin.ModelAdmin):  # type: ignore[type-arg]
    """Rows that only our services may write, because they apply the rules."""

    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Installation)
class InstallationAdmin(ReadOnly):
    list_display = ["org_id", "team_id", "name", "updated_at"]
    search_fields = ["org_id", "team_id"]
    exclude = ["sealed_bot_token", "sealed_signing_secret"]


@admin.register(Channel)
class ChannelAdmin(ReadOnly):
    list_display = ["org_id", "platform", "code", "name", "address"]
    list_filter = ["platform"]
    search_fields = ["org_id", "code", "name"]
    exclude = ["sealed_secret", "sealed_previous_secret"]


@admin.register(OutboundMessage)
class OutboundMessageAdmin(ReadOnly):
    list_display = ["id", "org_id", "platform", "code", "status", "error_code", "created_at", "sent_at"]
    list_filter = ["status", "platform"]
    search_fields = ["id", "org_id", "owner_key", "code"]


@admin.register(InboundEvent)
class InboundEventAdmin(ReadOnly):
    list_display = ["id", "org_id", "platform", "code", "author", "status", "is_matched", "received_at"]
    list_filter = ["status", "is_matched", "platform"]
    search_fields = ["org_id", "code", "event_id", "owner_key"]


@admin.register(Lane)
class LaneAdmin(ReadOnly):
    list_display = ["lane", "org_id", "opens_at", "look_at", "holder"]
    search_fields = ["lane"]
