"""The catalogue of an organisation: reads and writes its job types and profiles."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

from django.http import HttpResponseBase
from drf_spectacular.utils import extend_schema_view
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs import tools
from agent_jobs.api import paging, parsing
from agent_jobs.api.base import Resource, each
from agent_jobs.api.docs import item_of, operation, page_of, removal
from agent_jobs.api.fields import Config, Flag, Money, Name, Object, Objects, StrictSerializer, Tags, Text, Whole
from agent_jobs.api.formatting import shown
from agent_jobs.catalog import entries
from agent_jobs.errors import FieldError, Invalid
from agent_jobs.reads import queries
from agent_jobs.specs import MAX_TOKENS

SORTING = paging.Sorting(
    "catalog",
    {"id": "key", "name": "name", "created_at": "created_at", "updated_at": "updated_at", "version": "version"},
    default="created_at:desc",
    key="key",
)
_ENRICH = {"enrich": parsing.words("emoji", about="`emoji` adds each entry's emoji.")}
JOB_TYPES_QUERY = {**_ENRICH, "include": parsing.words("schema", about="`schema` adds each params_schema.")}
JOB_TYPE_QUERY = {**_ENRICH, "include": parsing.words("schema", about="Accepted; the detail always has the schema.")}
MAX_CAP = 1_000_000


# --- Requests and responses ------------------------------------------------------------------------------------
class Tools(Objects):
    def to_internal_value(self, data: Any) -> Any:
        return [tools.without_nulls(tool) for tool in super().to_internal_value(data)]


class EntryRequest(StrictSerializer):
    id = Text(max_length=128, source="key")
    name = Name(max_length=200)
    description = Text(max_length=20_000, required=False, allow_blank=True)
    emoji = Text(max_length=64, required=False, allow_blank=True)
    visibility = serializers.ChoiceField(list(entries.VISIBILITIES), required=False)
    active = Flag(required=False)
    tags = Tags(required=False)


class JobTypeRequest(EntryRequest):
    runner = Text(max_length=32, required=False)
    params_schema = Object(
        required=False,
        help_text="JSON Schema 2020-12 for the params of its jobs. Not recursive, and at most 2,000 parts with all "
        "references expanded.",
    )
    result_schema = Object(required=False, help_text="JSON Schema for the result_data of its jobs.")
    default_config = Config(required=False)
    work = Object(
        required=False,
        help_text="Defaults of its jobs' `work`, which a job's own is laid over key by key. Secrets are masked in"
        " answers; the mask in an update keeps the stored value.",
    )
    tools = Tools(
        required=False,
        help_text="Tools that its agents may call, each with a `type`: "
        "http, mcp, send_message, ask_approval. Headers name secrets as {secret:name}.",
    )
    max_running = Whole(
        required=False, min_value=1, max_value=MAX_CAP, help_text="How many of its jobs may be RUNNING at once."
    )
    max_running_per_channel = Whole(
        required=False, min_value=1, max_value=MAX_CAP, help_text="How many of its jobs may be RUNNING in one channel."
    )
    max_tokens_per_day = Whole(
        required=False, min_value=1, max_value=MAX_TOKENS, help_text="For all model calls of its jobs on a UTC day."
    )
    max_cost_per_day = Money(required=False, help_text="For the same calls, in the currency of the price table.")


class JobTypeChange(JobTypeRequest):
    id = Text(max_length=128, source="key", required=False)


class ProfileRequest(EntryRequest):
    instructions = Text(max_length=20_000, required=False, allow_blank=True)
    model = Text(max_length=128, required=False, help_text="`scripted`, or a hosted one as `openai:gpt-5-mini`.")
    base_url = Text(
        max_length=2_000,
        required=False,
        allow_blank=True,
        help_text="The address of `model`, on the host of the organization's own key. Empty: the key's address.",
    )
    fallback_model = Text(
        max_length=128,
        required=False,
        allow_blank=True,
        help_text="A hosted model to call if `model` cannot answer now or its quota is used up.",
    )
    max_output_tokens = Whole(
        required=False, min_value=1, max_value=200_000, allow_null=True, help_text="For one answer; default 4096."
    )
    timeout_seconds = Whole(
        required=False, min_value=1, max_value=600, allow_null=True, help_text="For one call; default 60."
    )
    context_tokens = Whole(
        required=False,
        min_value=1_000,
        max_value=2_000_000,
        allow_null=True,
        help_text="Roughly how much of a conversation the model sees; default 100,000.",
    )
    allowed_tools = serializers.ListField(
        child=Text(max_length=160),
        required=False,
        allow_null=True,
        max_length=200,
        help_text="Names of the job type's tools that it may use (`server` or `server.tool` of an MCP server);"
        " null: all of them.",
    )


class ProfileChange(ProfileRequest):
    id = Text(max_length=128, source="key", required=False)


class Entry(serializers.Serializer[Any]):
    id = serializers.CharField()
    org_id = serializers.CharField()
    name = serializers.CharField()
    description = serializers.CharField()
    emoji = serializers.CharField(required=False, help_text="With enrich=emoji, if set.")
    version = serializers.IntegerField()
    visibility = serializers.ChoiceField(list(entries.VISIBILITIES))
    active = serializers.BooleanField()
    tags = serializers.ListField(child=serializers.CharField())
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class JobTypeSerializer(Entry):
    runner = serializers.CharField()
    params_schema = serializers.DictField(required=False, help_text="In lists with include=schema.")
    result_schema = serializers.DictField(required=False, help_text="If set; in lists as params_schema.")
    default_config = serializers.DictField()
    work = serializers.DictField(required=False, help_text="If set, with its secrets masked.")
    tools = serializers.ListField(child=serializers.DictField())
    max_running = serializers.IntegerField(required=False, help_text="If there is a cap.")
    max_running_per_channel = serializers.IntegerField(required=False, help_text="If there is a cap.")
    max_tokens_per_day = serializers.IntegerField(required=False, help_text="If there is a cap.")
    max_cost_per_day = serializers.FloatField(required=False, help_text="If there is a cap.")


class ProfileSerializer(Entry):
    instructions = serializers.CharField()
    model = serializers.CharField()
    allowed_tools = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="Left out if it may use all."
    )
    base_url = serializers.CharField(required=False, help_text="If set.")
    fallback_model = serializers.CharField(required=False, help_text="If set.")
    max_output_tokens = serializers.IntegerField(required=False, help_text="If set.")
    timeout_seconds = serializers.IntegerField(required=False, help_text="If set.")
    context_tokens = serializers.IntegerField(required=False, help_text="If set.")


JobTypeItem = item_of("JobTypeItem", JobTypeSerializer)
ProfileItem = item_of("ProfileItem", ProfileSerializer)
Removed = removal("Removed")


# --- Views -----------------------------------------------------------------------------------------------------
class _Catalog(Resource):
    kind: ClassVar[entries.Kind]
    shape: ClassVar[type[Entry]]
    columns: ClassVar[tuple[str, ...]]
    list_query: ClassVar[Mapping[str, parsing.Param]]
    detail_query: ClassVar[Mapping[str, parsing.Param]]
    create_body: ClassVar[type[EntryRequest]]
    change_body: ClassVar[type[EntryRequest]]

    def rows(self) -> Any:
        return queries.job_types(self.org_id) if self.kind is entries.JOB_TYPES else queries.profiles(self.org_id)

    def item(self, entry: Any) -> dict[str, Any]:
        return self.answer(self.shown({column: getattr(entry, column) for column in self.columns}, None))

    def answer(self, shown: Mapping[str, Any]) -> dict[str, Any]:
        return {"data": shown, "meta": self.meta(shown["id"])}

    def shown(self, row: queries.Row, asked: Any, *, with_schema: bool = True) -> dict[str, Any]:
        """The entry as JSON, with the fields asked for; with all of them after a write, when `asked` is None."""
        with_emoji = asked is None or "emoji" in asked.query["enrich"]
        return shown(
            self.shape,
            row,
            id=row["key"],
            emoji=row["emoji"] if with_emoji else None,
            work=row.get("work") or None,
            params_schema=row.get("params_schema") if with_schema else None,
            result_schema=row.get("result_schema") or None if with_schema else None,
        )


class _EntryList(_Catalog):
    def get(self, request: Request, org_id: str) -> Response:
        asked = self.asked(query=self.list_query, sorting=SORTING)
        self.require_org(org_id)
        with_schema = "schema" in asked.query.get("include", frozenset())
        return self.listed(
            asked, self.rows(), self.columns, each(partial(self.shown, asked=asked, with_schema=with_schema))
        )

    def post(self, request: Request, org_id: str) -> HttpResponseBase:
        asked = self.asked(body=self.create_body)
        self.require_org(org_id)

        def effect() -> tuple[int, Mapping[str, Any]]:
            values = dict(asked.body)
            return 201, self.item(entries.create(self.kind, self.org_id, values.pop("key"), values, actor=self.actor))

        return self.once(effect)


class _EntryDetail(_Catalog):
    def get(self, request: Request, org_id: str, entry_id: str) -> Response:
        asked = self.asked(query=self.detail_query)
        self.require_org(org_id)
        self.kind.require_key(entry_id)
        row = self.rows().filter(key=entry_id).values(*self.columns).first()
        if row is None:
            raise self.kind.not_found(entry_id)
        return Response(self.answer(self.shown(row, asked)))

    def put(self, request: Request, org_id: str, entry_id: str) -> Response:
        return self.save(org_id, entry_id, entries.replace, is_partial=False)

    def patch(self, request: Request, org_id: str, entry_id: str) -> Response:
        return self.save(org_id, entry_id, entries.change, is_partial=True)

    def save(self, org_id: str, entry_id: str, verb: Callable[..., Any], *, is_partial: bool) -> Response:
        values = dict(self.asked(body=self.change_body, partial=is_partial).body)
        if values.pop("key", entry_id) != entry_id:
            raise Invalid(FieldError("id", "invalid", "differs from the id in the address, and cannot be changed"))
        self.require_org(org_id)
        return Response(self.item(verb(self.kind, self.org_id, entry_id, values, actor=self.actor)))

    def delete(self, request: Request, org_id: str, entry_id: str) -> Response:
        self.asked()
        self.require_org(org_id)
        entries.remove(self.kind, self.org_id, entry_id, actor=self.actor)
        return Response({"meta": self.meta(entry_id), "message": f"{self.kind.word.capitalize()} '{entry_id}' deleted"})


class _OfJobTypes(_Catalog):
    kind = entries.JOB_TYPES
    shape = JobTypeSerializer
    columns = queries.JOB_TYPE_COLUMNS
    list_query, detail_query = JOB_TYPES_QUERY, JOB_TYPE_QUERY
    create_body, change_body = JobTypeRequest, JobTypeChange


class _OfProfiles(_Catalog):
    kind = entries.PROFILES
    shape = ProfileSerializer
    columns = queries.PROFILE_COLUMNS
    list_query = detail_query = _ENRICH
    create_body, change_body = ProfileRequest, ProfileChange


_RESET = "Fields that are left out return to their defaults."


@extend_schema_view(
    get=operation(
        "job_types_list",
        "List job types",
        answers={200: page_of("JobTypePage", JobTypeSerializer)},
        query=JOB_TYPES_QUERY,
        sorting=SORTING,
    ),
    post=operation("job_types_create", "Create a job type", answers={201: JobTypeItem}, request=JobTypeRequest),
)
class JobTypes(_OfJobTypes, _EntryList):
    pass


@extend_schema_view(
    get=operation("job_types_retrieve", "Get a job type", answers={200: JobTypeItem}, query=JOB_TYPE_QUERY),
    put=operation(
        "job_types_replace",
        "Replace a job type",
        answers={200: JobTypeItem},
        request=JobTypeChange,
        description=_RESET,
    ),
    patch=operation("job_types_change", "Change a job type", answers={200: JobTypeItem}, request=JobTypeChange),
    delete=operation("job_types_delete", "Delete a job type", answers={200: Removed}),
)
class JobTypeDetail(_OfJobTypes, _EntryDetail):
    pass


@extend_schema_view(
    get=operation(
        "profiles_list",
        "List profiles",
        answers={200: page_of("ProfilePage", ProfileSerializer)},
        query=_ENRICH,
        sorting=SORTING,
    ),
    post=operation("profiles_create", "Create a profile", answers={201: ProfileItem}, request=ProfileRequest),
)
class Profiles(_OfProfiles, _EntryList):
    pass


@extend_schema_view(
    get=operation("profiles_retrieve", "Get a profile", answers={200: ProfileItem}, query=_ENRICH),
    put=operation(
        "profiles_replace",
        "Replace a profile",
        answers={200: ProfileItem},
        request=ProfileChange,
        description=_RESET,
    ),
    patch=operation("profiles_change", "Change a profile", answers={200: ProfileItem}, request=ProfileChange),
    delete=operation("profiles_delete", "Delete a profile", answers={200: Removed}),
)
class ProfileDetail(_OfProfiles, _EntryDetail):
    pass
