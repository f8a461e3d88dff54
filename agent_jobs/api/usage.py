"""Usage and cost of an organisation's model calls: `/services/usage`, summed by day, job type and model."""

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agent_jobs.api import paging, parsing
from agent_jobs.api.base import Resource
from agent_jobs.api.docs import PageMeta, operation, page_of
from agent_jobs.api.filters import UsageFilters
from agent_jobs.api.formatting import number
from agent_jobs.errors import FieldError, Invalid
from agent_jobs.reads import queries, usage_sums

_COLUMNS = {"day": "day", "job_type_id": "job_type_key", "model": "model"}
_SUMS = ("calls", "input_tokens", "cached_input_tokens", "output_tokens", "cost")
SORTING = paging.Sorting("usage", {**_COLUMNS, **{name: f"{name}_sum" for name in _SUMS}}, default="day:desc")
QUERY = {
    **{name: param for name, param in SORTING.params().items() if name != "cursor"},
    "group_by": parsing.words(*_COLUMNS, about="Columns to group by, separated by commas; default: all three."),
}


class UsageSums(serializers.Serializer[Any]):
    calls = serializers.IntegerField()
    input_tokens = serializers.IntegerField()
    cached_input_tokens = serializers.IntegerField(
        help_text="Those of the input that the provider read from its cache."
    )
    output_tokens = serializers.IntegerField()
    cost = serializers.FloatField(help_text="In the currency of the price table.")


class UsageRow(UsageSums):
    day = serializers.DateField(required=False, help_text="In UTC. A call counts on the day on which it began.")
    job_type_id = serializers.CharField(required=False)
    model = serializers.CharField(required=False, help_text="The model that answered.")


class UsageMeta(PageMeta):
    total = serializers.IntegerField(help_text="How many rows there are under these filters.")
    totals = UsageSums(help_text="The sums over all these rows.")


def sums(row: queries.Row) -> dict[str, int | float]:
    return {name: number(row[f"{name}_sum"]) if name == "cost" else row[f"{name}_sum"] for name in _SUMS}


class UsageReport(Resource):
    @operation(
        "usage_list",
        "Add up usage and cost",
        answers={200: page_of("UsagePage", UsageRow, UsageMeta)},
        query=QUERY,
        filtered=UsageFilters,
        description="Tokens and cost of model calls that have ended, by UTC day, job type and model. A call whose end"
        " was not recorded counts as the most that it may have used.",
    )
    def get(self, request: Request) -> Response:
        asked = self.asked(query=QUERY, rows=queries.usage(self.org_id), filtered=UsageFilters)
        page = paging.place(SORTING, {**asked.query, "cursor": None})
        by = [name for name in _COLUMNS if name in (asked.query["group_by"] or _COLUMNS)]
        sortable = (*by, *_SUMS)
        wanted = page.sorts if asked.query["sort"] is not None else ((by[0], by[0] == "day"),)
        if unknown := [name for name, _ in wanted if name not in sortable]:
            raise Invalid(FieldError("sort", "invalid", f"names {unknown[0]}, but the rows are grouped without it"))
        order = [(SORTING.columns[name], is_descending) for name, is_descending in wanted]
        order += [(_COLUMNS[name], False) for name in by if name not in dict(wanted)]
        groups = usage_sums.grouped(asked.rows, [_COLUMNS[name] for name in by])
        rows = groups.order_by(*(f"-{column}" if is_descending else column for column, is_descending in order))
        window = page.window
        found = list(rows[window.offset : window.offset + window.limit])
        meta = paging.Page(SORTING, window, wanted).meta(found, total=groups.count(), has_more=False)
        data = [
            {
                name: row[column].isoformat() if name == "day" else row[column]
                for name, column in _COLUMNS.items()
                if column in row
            }
            | sums(row)
            for row in found
        ]
        totals = sums(usage_sums.total(asked.rows))
        return Response({"data": data, "meta": {"org_id": self.org_id, **meta, "totals": totals}})
