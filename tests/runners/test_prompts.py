"""Templates are strangers' programs: what they may do, and what they may not."""

import pytest

from agent_jobs.errors import PermanentError
from agent_jobs.runners import prompts


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("Hello {{ name }}", "Hello Ann"),
        ("Hello {{ params.name }}", "Hello Ann"),
        ("{% for item in items %}{{ item|upper }} {% endfor %}", "A B "),
        ("{% if items %}some{% else %}none{% endif %}", "some"),
        ("{{ items|join(', ') }}", "a, b"),
        ("{{ nothing|default('none') }}", "none"),
        ("{{ deep.er['key'] }}", "1"),
        ("{{ 2 * 3 + 1 }}", "7"),
        ("{{ name.upper() }}", "ANN"),
        ("{{ deep|tojson }}", '{"er": {"key": 1}}'),
        ("50% off & <b>", "50% off & <b>"),
    ],
)
def test_a_prompt_is_rendered_with_the_params(template: str, expected: str) -> None:
    params = {"name": "Ann", "items": ["a", "b"], "deep": {"er": {"key": 1}}}
    assert prompts.render(template, params) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{ missing }}",
        "{{ name",
        "{{ ''.__class__.__mro__ }}",
        "{{ name.__init__ }}",
        "{{ 'a' * 1000000000 }}",
        "{{ 9 ** 999999999 }}",
        "{{ 'a' ~ 'b' }}",
        "{{ '%99999999s' % 'a' }}",
        "{{ 'a'.center(99999999) }}",
        "{{ '{:>99999999}'.format('a') }}",
        "{{ range(999999999)|list }}",
        "{{ name|center(99999999) }}",
        "{% set a = 1 %}",
        "{% macro m() %}{% endmacro %}",
        "{% include 'x' %}",
        "{% for a in range(9) %}{% for b in range(9) %}{% for c in range(9) %}x{% endfor %}{% endfor %}{% endfor %}",
        "{% for a in range(999) %}{% for b in range(999) %}xxxx{% endfor %}{% endfor %}",
        "{{ [" + "name, " * 200 + "]|string }}",
        "{{ " + "(" * 300 + "1" + ")" * 300 + " }}",
        "{{ cycler }}",
        "{{ name() }}",
    ],
)
def test_a_prompt_that_would_harm_fails_with_a_sentence(template: str) -> None:
    with pytest.raises(PermanentError, match="start_prompt") as failure:
        prompts.render(template, {"name": "Ann"})
    assert failure.value.code == "prompt_invalid"


def test_what_is_wrong_with_a_template_as_such_is_said_before_it_is_used() -> None:
    assert prompts.check("Hello {{ name }}") == ""
    assert "line 2" in prompts.check("Hello\n{{ name")
    assert "allowed" in prompts.check("{% set a = 1 %}")
