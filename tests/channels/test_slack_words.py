"""The agent reads a person's Slack message as plain text: markup, files and forwarded messages become words."""

from typing import Any

import pytest

from channels_integration.platforms import slack_words

SHARE = {"is_share": True, "author_name": "Bea", "text": "Order &lt;4711&gt; never arrived."}
PDF = {"id": "F1", "name": "q3.pdf", "mimetype": "application/pdf", "size": 123_456}
CSV = {"id": "F2", "name": "a.csv", "mimetype": "text/csv", "size": 40, "preview": "a,b\n1,2", "lines_more": 0}
RICH = [
    {
        "type": "rich_text",
        "elements": [
            {
                "type": "rich_text_section",
                "elements": [
                    {"type": "text", "text": "See "},
                    {"type": "link", "url": "https://example.com"},
                    {"type": "text", "text": " "},
                    {"type": "user", "user_id": "U0BEA"},
                ],
            }
        ],
    }
]

MESSAGES: list[tuple[dict[str, Any], str]] = [
    ({"text": "a &lt;b&gt; &amp;amp; c"}, "a <b> &amp; c"),
    ({"text": "<mailto:ann@example.com|ann@example.com>"}, "ann@example.com"),
    ({"text": "<mailto:ann@example.com|Ann>"}, "Ann (ann@example.com)"),
    ({"text": "<tel:+4930|+4930>"}, "+4930"),
    ({"text": "<https://example.com/a?x=1&amp;y=2|the page>"}, "the page (https://example.com/a?x=1&y=2)"),
    ({"text": "<https://example.com> <http://example.com|example.com>"}, "https://example.com http://example.com"),
    ({"text": "<@U0BEA123> <@U0ANN|ann> <#C0GENERAL|general> <#C0ONE|>"}, "@U0BEA123 @ann #general #C0ONE"),
    ({"text": "<!here> <!channel> <!subteam^S1|@ops> <!subteam^S1>"}, "@here @channel @ops @S1"),
    ({"text": "<!date^1392734382^{date}|Feb 18>"}, "Feb 18"),
    ({"text": "&lt;@U1&gt; was typed"}, "<@U1> was typed"),
    ({"text": "a < b > c"}, "a  b  c".replace("  b  ", " < b > ")),
    ({"text": "", "files": [PDF]}, "(file: q3.pdf, application/pdf, 123 kB)"),
    ({"text": None, "files": [PDF]}, "(file: q3.pdf, application/pdf, 123 kB)"),
    (
        {"text": "Here", "files": [PDF, CSV]},
        "Here\n(file: q3.pdf, application/pdf, 123 kB)\n(file: a.csv, text/csv, 40 bytes)\n(its text:)\na,b\n1,2",
    ),
    (
        {"text": "", "files": [{**CSV, "lines_more": 9}]},
        "(file: a.csv, text/csv, 40 bytes)\n(its beginning:)\na,b\n1,2",
    ),
    ({"text": "", "files": [{"id": "F3", "file_access": "check_file_info"}]}, "(file: F3)"),
    ({"text": "", "files": [{"id": "F4", "mode": "tombstone"}]}, "(file: deleted)"),
    ({"text": "", "attachments": [SHARE]}, "(forwarded from Bea:) Order <4711> never arrived."),
    (
        {"text": "FYI", "attachments": [{**SHARE, "files": [PDF]}]},
        "FYI\n(forwarded from Bea:) Order <4711> never arrived.\n(file: q3.pdf, application/pdf, 123 kB)",
    ),
    ({"text": "https://x.example", "attachments": [{"title": "a preview", "text": "not said"}]}, "https://x.example"),
    ({"text": "", "blocks": RICH}, "See https://example.com @U0BEA"),
    ({"text": "said", "blocks": RICH}, "said"),
    ({"text": ""}, slack_words.WORDLESS),
    ({"text": " \n", "blocks": [{"type": "image"}]}, slack_words.WORDLESS),
    ({"text": "", "files": "x", "attachments": [None, 5], "blocks": {"type": 5}}, slack_words.WORDLESS),
]


@pytest.mark.parametrize(("message", "read"), MESSAGES)
def test_a_message_is_read_with_all_that_it_holds(message: dict[str, Any], read: str) -> None:
    assert slack_words.words(message) == read


def test_blocks_that_never_end_are_read_to_a_bound() -> None:
    deep: Any = {"type": "text", "text": "end"}
    for _ in range(500):
        deep = {"type": "rich_text", "elements": [deep, {"type": "text", "text": "x"}]}

    assert len(slack_words.words({"text": "", "blocks": [deep]})) < 500
