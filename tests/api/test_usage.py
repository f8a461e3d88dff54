"""`/services/usage`: the ledger of model calls, added up as asked."""

from datetime import date
from decimal import Decimal

import pytest

from agent_jobs.models import UsageDay
from tests import factories, rows

USAGE = "/services/usage"
MINI, CLAUDE = "openai:gpt-5-mini", "anthropic:claude"
JAN5, JAN6 = date(2026, 1, 5), date(2026, 1, 6)
# day, job type, model, part, calls, tokens of input and output, cost
LEDGER = [
    (JAN5, "report", MINI, 0, 2, 100, 10, "0.000500"),
    (JAN5, "report", MINI, 7, 1, 50, 5, "0.000250"),  # another part of the same
    (JAN5, "report", CLAUDE, 0, 1, 1_000, 100, "2"),
    (JAN6, "report", MINI, 0, 1, 1, 1, "0.000001"),
    (JAN6, "greet", MINI, 0, 4, 40, 4, "0.1"),
]


def book(org_id, *lines):
    for day, job_type_key, model, part, calls, input_tokens, output_tokens, cost in lines:
        UsageDay.objects.create(
            org=rows.org(org_id),
            day=day,
            job_type_key=job_type_key,
            model=model,
            part=part,
            calls=calls,
            input_tokens=input_tokens,
            cached_input_tokens=input_tokens // 10,
            output_tokens=output_tokens,
            cost=Decimal(cost),
        )


@pytest.fixture
def api(reader):
    book("acme", *LEDGER)
    book("rival", (JAN5, "report", MINI, 0, 99, 99, 99, "99"))
    return reader


def shown(response, *names):
    assert response.status_code == 200, response.content
    return [tuple(row[name] for name in names) for row in response.json()["data"]]


def test_it_is_told_by_day_type_and_model_the_latest_day_first(api):
    body = api.get(USAGE).json()

    assert body["data"] == [
        {
            "day": "2026-01-06",
            "job_type_id": "greet",
            "model": MINI,
            "calls": 4,
            "input_tokens": 40,
            "cached_input_tokens": 4,
            "output_tokens": 4,
            "cost": 0.1,
        },
        {
            "day": "2026-01-06",
            "job_type_id": "report",
            "model": MINI,
            "calls": 1,
            "input_tokens": 1,
            "cached_input_tokens": 0,
            "output_tokens": 1,
            "cost": 0.000001,
        },
        {
            "day": "2026-01-05",
            "job_type_id": "report",
            "model": CLAUDE,
            "calls": 1,
            "input_tokens": 1000,
            "cached_input_tokens": 100,
            "output_tokens": 100,
            "cost": 2,
        },
        {
            "day": "2026-01-05",
            "job_type_id": "report",
            "model": MINI,
            "calls": 3,
            "input_tokens": 150,
            "cached_input_tokens": 15,
            "output_tokens": 15,
            "cost": 0.00075,
        },
    ]
    assert body["meta"]["org_id"] == "acme"
    assert (body["meta"]["total"], body["meta"]["count"]) == (4, 4)
    assert body["meta"]["totals"] == {
        "calls": 9,
        "input_tokens": 1191,
        "cached_input_tokens": 119,
        "output_tokens": 120,
        "cost": 2.100751,
    }
    assert body["meta"]["sort"] == [{"field": "day", "direction": "desc"}]


@pytest.mark.parametrize(
    ("group_by", "names", "expected"),
    [
        ("day", ("day", "calls"), [("2026-01-06", 5), ("2026-01-05", 4)]),
        ("model", ("model", "cost"), [(CLAUDE, 2), (MINI, 0.100751)]),
        ("job_type_id", ("job_type_id", "output_tokens"), [("greet", 4), ("report", 116)]),
        ("model,day", ("day", "model", "calls"), [
            ("2026-01-06", MINI, 5), ("2026-01-05", CLAUDE, 1), ("2026-01-05", MINI, 3),
        ]),
    ],
)  # fmt: skip
def test_it_is_added_up_by_what_is_asked_for(api, group_by, names, expected):
    response = api.get(USAGE, {"group_by": group_by})

    assert shown(response, *names) == expected
    assert response.json()["meta"]["total"] == len(expected)
    assert set(response.json()["data"][0]) == {
        *group_by.split(","),
        *("calls", "input_tokens", "cached_input_tokens", "output_tokens", "cost"),
    }


@pytest.mark.parametrize(
    ("query", "calls"),
    [
        ({"day_gte": "2026-01-06"}, 5),
        ({"day_lte": "2026-01-05"}, 4),
        ({"day_gte": "2026-01-05", "day_lte": "2026-01-05"}, 4),
        ({"day_gte": "2026-01-07"}, 0),
        ({"job_type_id": "greet"}, 4),
        ({"model": CLAUDE}, 1),
        ({"model": "nobody"}, 0),
        ({"model": MINI, "day_lte": "2026-01-05", "job_type_id": "report"}, 3),
    ],
)
def test_filters_hold_for_rows_and_totals(api, query, calls):
    body = api.get(USAGE, query).json()

    assert sum(row["calls"] for row in body["data"]) == calls
    assert body["meta"]["totals"]["calls"] == calls


def test_pages_are_cut_and_totals_are_of_all_of_them(api):
    pages = [api.get(USAGE, {"limit": 2, "offset": offset}) for offset in (0, 2, 4)]

    assert [shown(page, "calls") for page in pages] == [[(4,), (1,)], [(1,), (3,)], []]
    assert {page.json()["meta"]["total"] for page in pages} == {4}
    assert {page.json()["meta"]["totals"]["calls"] for page in pages} == {9}


@pytest.mark.parametrize(
    ("query", "calls"),
    [
        ({"sort": "calls:asc"}, [1, 1, 3, 4]),
        ({"sort": "-cost"}, [1, 4, 3, 1]),
        ({"sort": "model,-day"}, [1, 4, 1, 3]),
        ({"sort": "-input_tokens", "group_by": "model"}, [1, 8]),
    ],
)
def test_rows_are_sorted_by_names_and_by_sums(api, query, calls):
    assert [row[0] for row in shown(api.get(USAGE, query), "calls")] == calls


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"group_by": "week"}, "group_by"),
        ({"day_gte": "yesterday"}, "day_gte"),
        ({"day_gte": "2026-02-30"}, "day_gte"),
        ({"day_lte": "2026-01-05T00:00:00Z"}, "day_lte"),
        ({"sort": "price"}, "sort"),
        ({"sort": "day", "group_by": "model"}, "sort"),
        ({"cursor": "x"}, "cursor"),
        ({"from": "2026-01-05"}, "from"),
        ({"limit": "0"}, "limit"),
    ],
)
def test_what_cannot_be_is_refused_by_name(api, query, field):
    response = api.get(USAGE, query)

    assert response.status_code == 400
    assert factories.fields_of(response) == [field]


def test_an_organization_without_any_has_zeros(reader):
    body = reader.get(USAGE).json()

    assert body["data"] == []
    assert body["meta"]["totals"] == dict.fromkeys(
        ("calls", "input_tokens", "cached_input_tokens", "output_tokens", "cost"), 0
    )
