"""A template may use the filters, tests, methods and names of one table, and nothing else."""

import jinja2.defaults
import jinja2.filters
import jinja2.tests
import pytest

from agent_jobs.errors import PermanentError
from agent_jobs.runners import prompts
from agent_jobs.sandbox import template_environment, template_filters
from tests.sandbox.costing import MOST_SECONDS, spent_on

PARAMS = {
    "name": "ann lee",
    "n": -2.5,
    "xs": [3, 1, 2],
    "people": [{"age": 2}, {"age": 1}],
    "html": "<b>a</b>",
    "d": {"b": 1, "a": 2},
}

# Each filter with its answer.
FILTERS = {
    "abs": ("{{ n|abs }}", "2.5"),
    "capitalize": ("{{ name|capitalize }}", "Ann lee"),
    "count": ("{{ xs|count }}", "3"),
    "d": ("{{ none_such|d('x') }}", "x"),
    "default": ("{{ none_such|default('x') }}", "x"),
    "dictsort": ("{{ d|dictsort }}", "[('a', 2), ('b', 1)]"),
    "first": ("{{ xs|first }}", "3"),
    "float": ("{{ '1.5'|float }}", "1.5"),
    "int": ("{{ '7'|int }}", "7"),
    "items": ("{{ d|items|list }}", "[('b', 1), ('a', 2)]"),
    "join": ("{{ xs|join('-') }}", "3-1-2"),
    "last": ("{{ xs|last }}", "2"),
    "length": ("{{ name|length }}", "7"),
    "list": ("{{ 'ab'|list }}", "['a', 'b']"),
    "lower": ("{{ 'A'|lower }}", "a"),
    "max": ("{{ xs|max }}", "3"),
    "mention": ("{{ 'U0ANN'|mention }} {{ 'C0ONE'|mention }} {{ name|mention }}", "<@U0ANN> <#C0ONE> @ann lee"),
    "min": ("{{ people|min(attribute='age') }}", "{'age': 1}"),
    "reverse": ("{{ xs|reverse|join }}", "213"),
    "round": ("{{ n|round }} {{ 2.345|round(1, 'ceil') }} {{ 155|round(-1, 'floor') }}", "-2.0 2.4 150.0"),
    "sort": ("{{ people|sort(attribute='age')|first }}", "{'age': 1}"),
    "string": ("{{ xs|string }}", "[3, 1, 2]"),
    "striptags": ("{{ html|striptags }}", "a"),
    "sum": ("{{ xs|sum }} {{ people|sum('age') }} {{ xs|sum(start=4) }}", "6 3 10"),
    "title": ("{{ name|title }}", "Ann Lee"),
    "tojson": ("{{ d|tojson }}", '{"a": 2, "b": 1}'),
    "trim": ("{{ ' a '|trim }}{{ '/a/'|trim('/') }}", "aa"),
    "truncate": ("{{ name|truncate(6, true, '…', 0) }}", "ann l…"),
    "unique": ("{{ [1, 1, 2]|unique|list }}", "[1, 2]"),
    "upper": ("{{ name|upper }}", "ANN LEE"),
    "urlencode": ("{{ 'a b'|urlencode }}", "a%20b"),
    "wordcount": ("{{ name|wordcount }}", "2"),
}
# They grow texts, run what they are given by name, print source-like values, or mean nothing in plain text.
REFUSED_FILTERS = {
    "attr",
    "batch",
    "center",
    "e",
    "escape",
    "filesizeformat",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "map",
    "pprint",
    "random",
    "reject",
    "rejectattr",
    "replace",
    "safe",
    "select",
    "selectattr",
    "slice",
    "urlize",
    "wordwrap",
    "xmlattr",
}
TESTS = {
    "!=": ("{{ 1 is ne 2 }}", "True"),
    "<": ("{{ 1 is lt 2 }}", "True"),
    "<=": ("{{ 1 is le 2 }}", "True"),
    "==": ("{{ 1 is eq 1 }}", "True"),
    ">": ("{{ 1 is gt 2 }}", "False"),
    ">=": ("{{ 1 is ge 2 }}", "False"),
    "boolean": ("{{ true is boolean }}", "True"),
    "defined": ("{{ none_such is defined }}", "False"),
    "divisibleby": ("{{ 4 is divisibleby 2 }}", "True"),
    "eq": ("{{ 1 is eq 1 }}", "True"),
    "equalto": ("{{ 1 is equalto 1 }}", "True"),
    "even": ("{{ 2 is even }}", "True"),
    "false": ("{{ false is false }}", "True"),
    "float": ("{{ n is float }}", "True"),
    "ge": ("{{ 1 is ge 1 }}", "True"),
    "greaterthan": ("{{ 1 is greaterthan 1 }}", "False"),
    "gt": ("{{ 1 is gt 1 }}", "False"),
    "in": ("{{ 1 is in xs }}", "True"),
    "integer": ("{{ 1 is integer }}", "True"),
    "iterable": ("{{ xs is iterable }}", "True"),
    "le": ("{{ 1 is le 1 }}", "True"),
    "lessthan": ("{{ 1 is lessthan 1 }}", "False"),
    "lower": ("{{ 'a' is lower }}", "True"),
    "lt": ("{{ 1 is lt 1 }}", "False"),
    "mapping": ("{{ d is mapping }}", "True"),
    "ne": ("{{ 1 is ne 1 }}", "False"),
    "none": ("{{ none is none }}", "True"),
    "number": ("{{ n is number }}", "True"),
    "odd": ("{{ 1 is odd }}", "True"),
    "sameas": ("{{ true is sameas true }}", "True"),
    "sequence": ("{{ xs is sequence }}", "True"),
    "string": ("{{ name is string }}", "True"),
    "true": ("{{ true is true }}", "True"),
    "undefined": ("{{ none_such is undefined }}", "True"),
    "upper": ("{{ 'A' is upper }}", "True"),
}
REFUSED_TESTS = {"callable", "escaped", "filter", "test"}
METHODS = {
    ("str", "lower"): ("{{ 'A'.lower() }}", "a"),
    ("str", "strip"): ("{{ ' a '.strip() }}", "a"),
    ("str", "title"): ("{{ name.title() }}", "Ann Lee"),
    ("str", "upper"): ("{{ name.upper() }}", "ANN LEE"),
    ("dict", "get"): ("{{ d.get('a') }}{{ d.get('z', 0) }}", "20"),
    ("dict", "items"): ("{% for k, v in d.items() %}{{ k }}{{ v }}{% endfor %}", "b1a2"),
    ("dict", "keys"): ("{{ d.keys()|join }}", "ba"),
    ("dict", "values"): ("{{ d.values()|join }}", "12"),
}
GLOBALS = {"range": ("{{ range(3)|join }}", "012")}
REFUSED_GLOBALS = {"cycler", "dict", "joiner", "lipsum", "namespace"}


def test_the_tables_name_all_that_there_is():
    assert set(template_filters.FILTERS) == set(FILTERS)
    assert set(FILTERS) - {"mention"} | REFUSED_FILTERS == set(jinja2.filters.FILTERS), "decide on Jinja's new filter"
    assert set(template_environment.TESTS) == set(TESTS)
    assert set(TESTS) | REFUSED_TESTS == set(jinja2.tests.TESTS), "decide on Jinja's new test"
    assert {(kind.__name__, name) for kind, names in template_environment.METHODS.items() for name in names} == set(
        METHODS
    )
    assert set(template_environment.GLOBALS) == set(GLOBALS)
    assert set(GLOBALS) | REFUSED_GLOBALS == set(jinja2.defaults.DEFAULT_NAMESPACE), "decide on Jinja's new global"


@pytest.mark.parametrize(
    ("template", "text"), [*FILTERS.values(), *TESTS.values(), *METHODS.values(), *GLOBALS.values()]
)
def test_each_of_them_works(template, text):
    assert prompts.render(template, PARAMS) == text


@pytest.mark.parametrize(
    "template",
    [
        *(f"{{{{ name|{name} }}}}" for name in sorted(REFUSED_FILTERS)),
        *(f"{{{{ name is {name} }}}}" for name in sorted(REFUSED_TESTS)),
    ],
)
def test_nothing_else_exists(template):
    assert "No " in prompts.check(template)


@pytest.mark.parametrize(
    "shown",
    [
        "params.get",
        "[params.get]",
        "{'a': params.get}",
        "params.get|string",
        "params.get|default('x')",
        "none_such|default(params.get)",
        "params.get|upper",
        "[params.get]|join",
        "[params.get]|first",
        "[params.get]|tojson",
        "params.get|trim",
        "params.get|striptags",
        "d.get('z', params.get)",
        "name.upper",
        "range",
        "self",
        "name.format",
        "name.__class__",
        "name.join(xs)",
        "xs.append",
        "xs.append(1)",
        "d.update",
        "d.update(d)",
        "params.keys() - params.keys()",
        "range(2).index",
        "n.real",
        "''.join",
        *sorted(REFUSED_GLOBALS),
    ],
)
def test_what_is_no_value_is_refused_and_never_printed(shown):
    with pytest.raises(PermanentError) as failure:
        prompts.render(f"{{{{ {shown} }}}}", PARAMS)
    assert failure.value.code == "prompt_invalid"
    assert "0x" not in failure.value.message


@pytest.mark.parametrize(
    "shown",
    ["loop", "loop.cycle", "loop.cycle(1, 2)", "loop.changed(1)", "loop.__init__", "loop|string", "[loop]|join"],
)
def test_nor_is_a_loop_printed(shown):
    with pytest.raises(PermanentError) as failure:
        prompts.render(f"{{% for x in xs %}}{{{{ {shown} }}}}{{% endfor %}}", PARAMS)
    assert "0x" not in failure.value.message


def test_a_loop_tells_where_it_is():
    template = "{% for x in xs %}{{ loop.index }}/{{ loop.length }}{{ ',' if not loop.last }}{% else %}none{% endfor %}"
    assert prompts.render(template, PARAMS) == "1/3,2/3,3/3"


LONG = "x" * 250_000
NUMBERS = list(range(300))


@pytest.mark.parametrize(
    ("template", "params"),
    [
        pytest.param("{{ 1|round(16000000, 'ceil') }}", {}, id="round up"),
        pytest.param("{{ 5|round(-16000000) }}", {}, id="round"),
        pytest.param("{{ 5|round(xs) }}", {"xs": []}, id="round to a list"),
        pytest.param("{{ xs|tojson(indent=50000000) }}", {"xs": [1]}, id="tojson indented"),
        pytest.param("{{ xs|tojson(50000000) }}", {"xs": [1]}, id="tojson indented by place"),
        pytest.param("{% for a in s %}{% for b in s %}{% endfor %}{% endfor %}", {"s": LONG}, id="loops over a text"),
        pytest.param(
            "{% for a in d %}{% for b in s %}{% endfor %}{% endfor %}",
            {"s": LONG, "d": dict.fromkeys(map(str, NUMBERS))},
            id="over a dict",
        ),
        pytest.param(
            "{% for a in s|list %}{% for b in s|list %}{% endfor %}{% endfor %}",
            {"s": LONG[:9_000]},
            id="over lists of filters",
        ),
        pytest.param(
            "{% for a in s|reverse %}{% for b in s|unique %}{% endfor %}{% endfor %}" * 9,
            {"s": LONG},
            id="over filters",
        ),
        pytest.param("{{ [xs, xs, xs]|sum(start=[]) }}", {"xs": [1] * 1_000}, id="lists joined by sum"),
        pytest.param("{{ ['a', 'b']|sum(start='') }}", {}, id="texts joined by sum"),
        pytest.param("{{ xs + xs }}", {"xs": [1]}, id="lists joined"),
        pytest.param("{{ " + "9" * 5_000 + " }}", {}, id="a literal of 5,000 digits"),
        pytest.param("{{ " + "99999999999999999999 * " * 40 + "1 }}", {}, id="a product of many digits"),
        pytest.param("{{ s|int(base=16) }}", {"s": "f" * 200_000}, id="a number of many digits"),
        pytest.param("{{ s|trim(s) }}", {"s": LONG}, id="trim of many characters"),
        pytest.param("{{ s.strip(s) }}", {"s": LONG}, id="strip of many characters"),
        pytest.param("{{ s|striptags }}", {"s": "<!---->" * 30_000}, id="many comments"),
        pytest.param("{{ s" + "|tojson" * 60 + " }}", {"s": '"'}, id="quotes that double"),
        pytest.param("{{ s" + "|urlencode" * 60 + " }}", {"s": "é" * 20_000}, id="percents that grow"),
        pytest.param("{{ xs|sort(attribute='" + "a," * 90 + "a') }}", {"xs": [{"a": 1}] * 9_000}, id="sort by many"),
        pytest.param("{{ xs|sort(attribute=s) }}", {"xs": [{"a": 1}] * 90, "s": "." * 9_000}, id="a long attribute"),
        pytest.param("{{ [" + "s, " * 90 + "] }}", {"s": LONG}, id="a long text often"),
        pytest.param("{{ [" + "s, " * 90 + "]|join }}", {"s": LONG}, id="a long text joined"),
        pytest.param(
            "{% for a in [[s,s,s,s,s,s,s,s,s,s]] %}{% for b in [[a,a,a,a,a,a,a,a,a,a]] %}{{ b }}"
            "{% endfor %}{% endfor %}",
            {"s": LONG},
            id="lists of lists of a long text",
        ),
        pytest.param(
            "{% for a in xs %}{% for b in xs %}{% if "
            + "xs == ys and " * 20
            + "a %}{% endif %}{% endfor %}{% endfor %}",
            {"xs": NUMBERS, "ys": list(NUMBERS)},
            id="comparisons",
        ),
        pytest.param(
            "{% if " + "xs == ys and " * 300 + "1 %}{% endif %}",
            {"xs": NUMBERS * 90, "ys": NUMBERS * 90},
            id="long comparisons",
        ),
        pytest.param("{{ " + "(" * 9_000 + "1" + ")" * 9_000 + " }}", {}, id="parentheses"),
        pytest.param("{{ s" + ".s" * 9_000 + " }}", {"s": 1}, id="attributes"),
        pytest.param("{{ " + "not " * 4_000 + "s }}", {"s": 1}, id="nots"),
        pytest.param("{% if s %}" * 900 + "{% endif %}" * 900, {"s": 1}, id="nested ifs"),
        pytest.param("{{" * 10_000, {}, id="open braces"),
    ],
)
def test_no_template_takes_more_than_its_time(template, params):
    def check_and_render():
        complaint = prompts.check(template)
        with pytest.raises(PermanentError) as failure:
            prompts.render(template, params)
        return complaint, failure.value

    spent = spent_on(check_and_render)

    complaint, failure = spent.answer
    assert failure.code in {"prompt_invalid", "prompt_too_complex"}
    assert len(failure.message) < 400
    assert complaint == "" or failure.message == f"start_prompt: {complaint}"
    assert spent.here < 0.25
    assert spent.in_children < 2 * MOST_SECONDS


def test_compiling_computes_nothing():
    """Jinja folds constants while it compiles, where no budget counts."""
    source = template_environment.ENVIRONMENT.compile(
        "{{ 'plain'|upper }}{{ 11111 * 3 }}{% if 11111 * 3 %}x{% endif %}", raw=True
    )

    assert "PLAIN" not in source
    assert "33333" not in source


def test_an_ordinary_prompt_needs_no_child():
    template = "Hi {{ name }}!\n" * 20 + "{% if vip %}Dear {{ name|title }}{% else %}{{ xs|join(', ') }}{% endif %}"

    spent = spent_on(lambda: prompts.render(template, {"name": "Ann", "vip": True, "xs": [1, 2]}))

    assert spent.answer.endswith("Dear Ann")
    assert spent.in_children == 0


def test_a_long_prompt_with_loops_is_rendered():
    template = "{% for x in xs %}{{ loop.index }}. {{ x.name|title }}\n{% endfor %}" + "x" * 10_000
    text = prompts.render(template, {"xs": [{"name": "ann"}] * 900})

    assert text.startswith("1. Ann\n2. Ann\n")
    assert len(text) > 10_000
