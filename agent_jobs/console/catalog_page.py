"""Job types and agent profiles: lists, and a form for each entry. The schema of params is checked as one types it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse
from rest_framework import serializers

from agent_jobs import runners
from agent_jobs.api.catalog import JobTypeRequest, ProfileRequest
from agent_jobs.catalog import entries
from agent_jobs.console import body_checks, visits
from agent_jobs.console.visits import Visit
from agent_jobs.errors import Conflict, FieldError, Invalid
from agent_jobs.reads import queries
from agent_jobs.sandbox import json_schema

_MOST = 500


@dataclass(frozen=True, slots=True)
class EntryField:
    """A field of an entry's form. `kind`: text, long, mono (JSON), number, money. `default` is the value of an empty
    field.
    """

    name: str
    label: str
    kind: str = "text"
    hint: str = ""
    default: Any = None


@dataclass(frozen=True, slots=True)
class CatalogKind:
    """The differences between the pages of job types and of profiles. `page` and `entry` name addresses."""

    kind: entries.Kind
    title: str
    singular: str
    page: str
    entry: str
    shape: type[serializers.Serializer[Any]]
    rows: Callable[[str], QuerySet[Any]]
    columns: tuple[str, ...]
    fields: tuple[EntryField, ...]


TYPES = CatalogKind(
    entries.JOB_TYPES,
    "Job types",
    "job type",
    "types",
    "type",
    JobTypeRequest,
    queries.job_types,
    queries.JOB_TYPE_COLUMNS,
    (
        EntryField("params_schema", "Schema of the params, JSON", "mono", "JSON Schema 2020-12 of an object.", {}),
        EntryField("default_config", "Config, JSON", "mono", "start_prompt, profile_id, max_follow_ups, …", {}),
        EntryField("tools", "Tools, JSON", "mono", "A list of tools that its agents may call.", []),
        EntryField("max_running", "Running at once", "number", "Empty for no cap."),
        EntryField("max_running_per_channel", "Running at once in a channel", "number"),
        EntryField("max_tokens_per_day", "Tokens a day", "number"),
        EntryField("max_cost_per_day", "Cost a day", "money"),
    ),
)
PROFILES = CatalogKind(
    entries.PROFILES,
    "Agent profiles",
    "agent profile",
    "profiles",
    "profile",
    ProfileRequest,
    queries.profiles,
    queries.PROFILE_COLUMNS,
    (
        EntryField("instructions", "Instructions", "long", "What the agent is told before each conversation.", ""),
        EntryField("model", "Model", "text", "scripted, or a hosted one as openai:gpt-5-mini."),
        EntryField("fallback_model", "Second model", "text", "Called if the first cannot answer now.", ""),
        EntryField("base_url", "Address of the model", "text", "Empty: that of the organisation's key.", ""),
        EntryField("max_output_tokens", "Tokens of one answer", "number", "Default 4096."),
        EntryField("timeout_seconds", "Seconds of one call", "number", "Default 60."),
        EntryField("context_tokens", "Tokens of context", "number", "Default 100,000."),
        EntryField("allowed_tools", "Tools it may use, JSON", "mono", "A list of names; empty for all of the type's."),
    ),
)


@visits.form
def check_schema(visit: Visit) -> HttpResponse:
    """Whether the text is a valid schema, in one sentence, while somebody types it."""
    try:
        schema = body_checks.json_of(visit.request.POST.get("params_schema", ""), "params_schema", default={})
        errors = json_schema.check_schema(schema)
    except Invalid as error:
        errors = list(error.errors)
    complaint = "; ".join(f"{one.field.removeprefix('params_schema').lstrip('.')} {one.message}" for one in errors[:3])
    number = len(schema.get("properties") or ()) if not errors else 0
    return visit.part("parts/schema_check.html", {"complaint": complaint.strip(), "number": number})


@visits.page
def show(visit: Visit, *, of: CatalogKind) -> HttpResponse:
    found = of.rows(visit.org_id).order_by("name", "key").values(*of.columns)[:_MOST]
    shown = [
        {
            **row,
            "engine": row["runner"] if of is TYPES else row["model"],
            "about": row["description"] or row.get("instructions", ""),
        }
        for row in found
    ]
    context = {"of": of, "entries": shown, "new": visit.url(f"{of.entry}_new")}
    return visit.render("catalog.html", context, here=of.page)


@visits.form
def new(visit: Visit, *, of: CatalogKind) -> HttpResponse:
    if visit.request.method != "POST":
        blank = {"active": "on", "runner": "conversation", "model": "scripted"}
        return _form(visit, of, None, blank)
    sent = visit.request.POST.dict()
    try:
        fields = body_checks.checked(of.shape, _stated(of, sent, is_new=True))
        key = fields.pop("key")
        entries.create(of.kind, visit.org_id, key, fields, actor=visit.actor)
    except (Invalid, Conflict) as error:
        return _form(visit, of, None, sent, error)
    return visit.said(f"The {of.singular} is made", fields["name"], address=visit.url(of.entry, key))


def entry(request: Any, org_id: str, *, of: CatalogKind, key: str) -> Any:
    """Members read the form; admins send it."""
    view = _changed if request.method == "POST" else _read
    return view(request, org_id, of=of, key=key)


@visits.page
def _read(visit: Visit, *, of: CatalogKind, key: str) -> HttpResponse:
    row = _row(visit, of, key)
    return _form(visit, of, row, _values(of, row))


@visits.action
def _changed(visit: Visit, *, of: CatalogKind, key: str) -> HttpResponse:
    row, sent = _row(visit, of, key), visit.request.POST.dict()
    try:
        fields = body_checks.checked(of.shape, _stated(of, sent, is_new=False), partial=True)
        # An empty field removes a cap; the shape of a request knows no null for that.
        emptied = {field.name: None for field in of.fields if _may_be_empty(field) and field.name not in fields}
        changed = entries.change(of.kind, visit.org_id, key, {**fields, **emptied}, actor=visit.actor)
    except (Invalid, Conflict) as error:
        return _form(visit, of, row, sent, error)
    return visit.said(f"The {of.singular} is at version {changed.version}", address=visit.url(of.entry, key))


@visits.form
def remove(visit: Visit, *, of: CatalogKind, key: str) -> HttpResponse:
    row = _row(visit, of, key)
    if visit.request.method == "POST":
        entries.remove(of.kind, visit.org_id, key, actor=visit.actor)
        return visit.said(f"The {of.singular} is deleted", row["name"], address=visit.url(of.page))
    return visit.ask(
        f"Delete {row['name']}?",
        "Jobs that use it keep their copy. New ones cannot name it any more.",
        f"Delete this {of.singular}",
        back=visit.url(of.entry, key),
        keep="Keep it",
        is_danger=True,
        here=of.page,
    )


def _row(visit: Visit, of: CatalogKind, key: str) -> Mapping[str, Any]:
    of.kind.require_key(key)
    row: Mapping[str, Any] | None = of.rows(visit.org_id).filter(key=key).values(*of.columns).first()
    if row is None:
        raise of.kind.not_found(key)
    return row


def _form(
    visit: Visit,
    of: CatalogKind,
    row: Mapping[str, Any] | None,
    values: Mapping[str, str],
    error: Invalid | Conflict | None = None,
) -> HttpResponse:
    problems = body_checks.told(error)
    fields = [(field, values.get(field.name, ""), _problem(problems, field.name)) for field in of.fields]
    known = {field.name for field in of.fields} | {"id", "name", "description", "tags", "runner"}
    context = {
        "of": of,
        "row": row,
        "values": values,
        "fields": fields,
        "problems": problems,
        "rest": [f"{name}: {text}" for name, text in problems.items() if name.partition(".")[0] not in known],
        "runners": runners.names() if of is TYPES else (),
        "back": visit.url(of.page),
        "is_read_only": not visit.is_admin,
    }
    return visit.render("catalog_entry.html", context, here=of.page, is_refused=bool(error))


def _problem(problems: Mapping[str, str], name: str) -> str:
    """The first complaint about a field or a part of it: `default_config.max_steps must be …`."""
    found = next(((at, text) for at, text in problems.items() if at == name or at.startswith(f"{name}.")), None)
    return "" if found is None else f"{found[0].removeprefix(name).lstrip('.')} {found[1]}".strip()


def _values(of: CatalogKind, row: Mapping[str, Any]) -> dict[str, str]:
    values = {name: str(row[name] or "") for name in ("name", "description")}
    values |= {"id": row["key"], "tags": ", ".join(row["tags"]), "active": "on" if row["active"] else ""}
    if of is TYPES:
        values["runner"] = row["runner"]
    for field in of.fields:
        value = row[field.name]
        if field.kind == "mono":
            values[field.name] = body_checks.pretty(value)
        elif field.kind == "money" and value is not None:
            values[field.name] = f"{value.normalize():f}"
        else:
            values[field.name] = "" if value is None else str(value)
    return values


def _stated(of: CatalogKind, sent: Mapping[str, str], *, is_new: bool) -> dict[str, Any]:
    """The form as the body of a request. Raises Invalid for what no request could state."""
    found: dict[str, Any] = {
        "name": sent.get("name", ""),
        "description": sent.get("description", "").replace("\r\n", "\n"),
        "tags": sent.get("tags", "").strip(),
        "active": sent.get("active") == "on",
    }
    if is_new:
        found["id"] = sent.get("id", "").strip()
    if of is TYPES:
        found["runner"] = sent.get("runner", "")
    problems: list[FieldError] = []
    for field in of.fields:
        text = sent.get(field.name, "")
        try:
            value = _value(field, text)
        except Invalid as error:
            problems += error.errors
            continue
        if value is not None or not _may_be_empty(field):
            found[field.name] = "" if value is None else value
    if problems:
        raise Invalid(*problems)
    return found


def _may_be_empty(field: EntryField) -> bool:
    return field.default is None and field.kind != "text"


def _value(field: EntryField, text: str) -> Any:
    if field.kind == "mono":
        return body_checks.json_of(text, field.name, default=field.default)
    if field.kind == "number":
        return body_checks.whole(text, field.name)
    text = text.replace("\r\n", "\n") if field.kind == "long" else text.strip()
    return text or field.default
