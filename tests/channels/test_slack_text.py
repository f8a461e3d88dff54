"""The text of a message in Slack: Markdown as mrkdwn, mentions, and long texts in parts."""

import pytest

from channels_integration.platforms import slack_text

MARKDOWN = [
    ("**Status:** ok", "*Status:* ok"),
    ("# Heading", "*Heading*"),
    ("### A **bold** heading ##", "*A bold heading*"),
    ("#hashtag and C#", "#hashtag and C#"),
    ("[the page](https://example.com/a?x=1&y=2)", "<https://example.com/a?x=1&amp;y=2|the page>"),
    ("[wiki](https://example.com/a_(b))", "<https://example.com/a_(b)|wiki>"),
    ('[the page](https://example.com "title")', "<https://example.com|the page>"),
    ("![a chart](https://example.com/c.png)", "<https://example.com/c.png|a chart>"),
    ("[mail](mailto:ann@example.com)", "<mailto:ann@example.com|mail>"),
    # A label that looks like another address does not hide the true one.
    ("[bank.example](https://evil.example)", "bank.example (https://evil.example)"),
    ("[https://a.example](https://a.example)", "<https://a.example|https://a.example>"),
    ("[x](javascript:alert(1))", "[x](javascript:alert(1))"),
    ("[a|b](https://example.com/)", "a|b (https://example.com/)"),
    ("[!channel](!channel) <https://x|y>", "[!channel](!channel) &lt;https://x|y&gt;"),
    ("***both***", "*_both_*"),
    ("~~gone~~", "~gone~"),
    ("2 ** 3 ** 4 and a ** b", "2 ** 3 ** 4 and a ** b"),
    ("* one\n+ two\n- three\n  * deeper", "• one\n• two\n- three\n  • deeper"),
    ("*bold in Slack* and _italic_", "*bold in Slack* and _italic_"),
    ("Use `**kwargs` & `a < b`", "Use `**kwargs` &amp; `a &lt; b`"),
    ("```python\n# no heading\n**kwargs\n```\n# Heading", "```\n# no heading\n**kwargs\n```\n*Heading*"),
    ("```\nnever closed **x**", "```\nnever closed **x**"),
    ("> said & done", "&gt; said &amp; done"),
    ("__init__ and snake_case", "__init__ and snake_case"),
]


@pytest.mark.parametrize(("markdown", "shown"), MARKDOWN)
def test_markdown_is_shown_as_slack_writes_it(markdown: str, shown: str) -> None:
    assert slack_text.mrkdwn(markdown) == shown


MENTIONS = [
    ("<@U0ANN>, see <#C0GENERAL>", "<@U0ANN>, see <#C0GENERAL>"),
    ("<@U0BEA>", "&lt;@U0BEA&gt;"),
    ("<#U0ANN> <@C0GENERAL>", "&lt;#U0ANN&gt; &lt;@C0GENERAL&gt;"),
    ("`<@U0ANN>`", "`&lt;@U0ANN&gt;`"),
    (
        "<!channel> <!here> <@U0ANN|x> <!subteam^S1>",
        "&lt;!channel&gt; &lt;!here&gt; &lt;@U0ANN|x&gt; &lt;!subteam^S1&gt;",
    ),
    ("&lt;@U0ANN&gt;", "&amp;lt;@U0ANN&amp;gt;"),
]


@pytest.mark.parametrize(("text", "shown"), MENTIONS)
def test_only_people_and_channels_that_may_be_mentioned_are(text: str, shown: str) -> None:
    assert slack_text.mrkdwn(text, ("U0ANN", "C0GENERAL", "!channel")) == shown


PARAGRAPHS = "\n\n".join(f"Paragraph {number}. " + "word " * 60 for number in range(300))
LONG = {
    "paragraphs": PARAGRAPHS,
    "one_line": "x" * 45_000,
    "spaces": "word " * 9_000,
    "escapes": "a < b & c > d\n" * 2_700,
    "emphasis": "**b** " * 5_000,
    "links": "[t.t](https://example.com/?a&b) " * 600,
    "bars": "[t](https://example.com/||||||||) " * 600,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_long_text_is_sent_in_parts_that_slack_takes_and_nothing_is_lost(text: str) -> None:
    parts = list(slack_text.parts(text))

    assert all(0 < len(slack_text.mrkdwn(part)) <= 4_000 for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_a_long_text_is_split_between_paragraphs() -> None:
    parts = list(slack_text.parts(PARAGRAPHS))

    assert all(part.startswith("Paragraph ") for part in parts)
    assert "\n\n".join(part.strip() for part in parts).split() == PARAGRAPHS.split()


@pytest.mark.parametrize("text", ["short", "x" * 3_900, "&" * 780, ""])
def test_a_text_that_slack_takes_whole_is_one_part(text: str) -> None:
    assert list(slack_text.parts(text)) == ([text] if text else [])


def test_code_that_is_cut_is_closed_and_opened_again() -> None:
    text = "Before\n```python\n" + "    line = 1\n" * 1_000 + "```\nAfter"
    parts = list(slack_text.parts(text))

    assert len(parts) > 2
    assert all(part.count("```") % 2 == 0 for part in parts)
    assert all(len(slack_text.mrkdwn(part)) <= 4_000 for part in parts)
    assert sum(part.count("    line = 1") for part in parts) == 1_000
    assert parts[1].startswith("```\n    line")
    assert parts[-1].endswith("After")
