"""The parts of which all pages are made: icons, statuses, times, lengths, chips. Each is drawn in one place only."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any
from uuid import UUID

from django import template
from django.conf import settings
from django.contrib.messages.storage.base import Message
from django.templatetags.static import static
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode

from agent_jobs.approvals import question_text
from agent_jobs.console import clock, frame, life_pieces
from agent_jobs.reads.job_life import StepLine
from agent_jobs.states import WaitingFor
from channels_integration import platforms

register = template.Library()
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)")
# Reason of a wait → glyph, class of the colour, word.
WAITS: Mapping[str, tuple[str, str, str]] = {
    WaitingFor.REPLY: ("reply", "running", "a reply"),
    WaitingFor.APPROVAL: ("approval", "person", "an approval"),
    WaitingFor.RETRY: ("retry", "waiting", "a retry"),
    WaitingFor.DELIVERY: ("delivery", "waiting", "delivery"),
    WaitingFor.COOLDOWN: ("cooldown", "waiting", "cooldown"),
    WaitingFor.QUIET_HOURS: ("quiet", "canceled", "quiet hours"),
}
_PLATFORM_ICONS = {"slack": "brand-slack", "web": "world", "webhook": "webhook", "null": "terminal-2"}


@register.simple_tag
@cache
def sprite(name: str) -> str:
    """The address of one symbol: for `<use href>`."""
    return f"{static('console/icons.svg')}#{name}"


@register.simple_tag
@cache
def icon(name: str, size: str = "") -> str:
    """A decorative icon: beside a word, or in a button that has a label. `size` is `s` or `l`."""
    kind = f"i i-{size}" if size else "i"
    return format_html('<svg class="{}" aria-hidden="true"><use href="{}"/></svg>', kind, sprite(f"i-{name}"))


@register.simple_tag
@cache
def glyph(name: str, colour: str = "") -> str:
    """A status glyph; with `colour` in that status's colour."""
    drawn = format_html('<svg class="g" aria-hidden="true"><use href="{}"/></svg>', sprite(f"g-{name}"))
    return format_html('<span class="is-{}">{}</span>', colour, drawn) if colour else drawn


@register.simple_tag
def platform_icon(platform: str, size: str = "s") -> str:
    return icon(_PLATFORM_ICONS.get(platform, "messages"), size) if platform else ""


@register.simple_tag
@cache
def badge(status: str) -> str:
    """A job's status: shape, word, colour."""
    name = status.lower()
    return format_html('<span class="st is-{}">{}{}</span>', name, glyph(name), name.capitalize())


@register.simple_tag
def pill(status: str, waiting_for: str = "") -> str:
    """A job's status for a headline, with the reason of its wait."""
    name = status.lower()
    shape, colour, words = name, name, name.capitalize()
    if status == "RUNNING" and waiting_for in WAITS:
        shape, colour, what = WAITS[waiting_for]
        words = f"Running, in {what}" if waiting_for == WaitingFor.QUIET_HOURS else f"Running, waits for {what}"
    return format_html('<span class="st st-pill is-{}">{}{}</span>', colour, glyph(shape), words)


@register.simple_tag(takes_context=True)
def when(context: Mapping[str, Any], at: datetime | None, form: str = "short") -> str:
    """A time in the viewer's zone, with UTC on hover. `form`: short, seconds, long, coming."""
    if at is None:
        return "–"
    visit = context["visit"]
    if form == "long":
        text = clock.long(at, visit.zone, visit.now)
    elif form == "coming":
        text = clock.coming(at, visit.zone, visit.now)
    else:
        text = clock.short(at, visit.zone, visit.now, seconds=form == "seconds")
    return format_html('<time datetime="{}" title="{}">{}</time>', clock.iso(at), clock.utc(at), text)


@register.simple_tag(takes_context=True)
def since(context: Mapping[str, Any], at: datetime | None) -> str:
    """How long ago or ahead it is: `in 4 d 1 h`, `3 min ago`."""
    if at is None:
        return ""
    seconds = (at - context["visit"].now).total_seconds()
    return f"in {clock.rough(seconds)}" if seconds >= 0 else f"{clock.rough(-seconds)} ago"


@register.simple_tag(takes_context=True)
def took(context: Mapping[str, Any], began: datetime, ended: datetime | None) -> str:
    """The time between two moments, or until now."""
    return clock.length(((ended or context["visit"].now) - began).total_seconds())


@register.filter
def length_of(seconds: float | None) -> str:
    return "–" if seconds is None else clock.length(seconds)


@register.filter
def money(amount: Decimal | float | None) -> str:
    """Small amounts with three places, so that a cheap job does not look free."""
    if not amount:
        return "–"
    sign = settings.CURRENCY
    return f"{sign}{amount:,.3f}" if amount < 1 else f"{sign}{amount:,.2f}"


@register.filter
def count(number: int) -> str:
    return frame.capped(number)


@register.filter
def number(value: int) -> str:
    return f"{value:,}"


@register.filter
def sentence(text: str) -> str:
    """An error message as a sentence: with a capital, except for names such as `warehouse.query`, and a full stop."""
    first = text.partition(" ")[0]
    begins = text if "." in first or "_" in first else f"{text[:1].upper()}{text[1:]}"
    return begins + ("" if text.endswith((".", "!", "?", "…")) else ".")


@register.filter
def words(text: str) -> list[str]:
    return text.split()


@register.filter
def get(values: Mapping[str, Any], key: str) -> Any:
    return values.get(key)


@register.filter
def less(one: Any, other: Any) -> Any:
    return one - other


@register.filter
def age(at: datetime, visit: Any) -> str:
    return clock.rough((visit.now - at).total_seconds())


@register.filter
def px(place: float, more: float = 0) -> str:
    """A coordinate of a drawing, in pixels."""
    return f"{place + more:.1f}"


@register.filter
def share_failed(day: Mapping[str, int]) -> str:
    total = sum(day.values())
    return f"{100 * day['failed'] / total:.1f}" if total else "0"


@register.simple_tag
def lifebar(bars: Sequence[life_pieces.LifeBar], label: str, height: int = 8, css_class: str = "") -> str:
    """Where a job's time went, as a small bar."""
    return life_pieces.drawn(bars, label, height=height, css_class=css_class)


@register.filter
def percent(share: float) -> str:
    """A coordinate of a drawing."""
    return f"{share:.2f}%"


@register.filter
def pretty(value: Any) -> str:
    return question_text.visible(json.dumps(value, indent=2, ensure_ascii=False))


@register.filter
def visible(text: str) -> str:
    """A text to decide about, with escapes for characters that are invisible or reorder others."""
    return question_text.visible(text)


@register.filter
def rough(seconds: float) -> str:
    return clock.rough(seconds)


@register.filter
def is_text(value: Any) -> bool:
    return isinstance(value, str)


@register.filter
def timed(text: str, visit: Any) -> str:
    """A sentence of the core with its times in the viewer's zone: it states them in UTC, as 2026-01-31T09:00:00Z."""
    parts = _TIME.split(text)
    return format_html_join(
        "", "{}", ((_as_time(part, visit) if place % 2 else part,) for place, part in enumerate(parts))
    )


def _as_time(text: str, visit: Any) -> str:
    return when({"visit": visit}, datetime.fromisoformat(text), "coming")


@register.filter
def humanized(key: str) -> str:
    """`nightly-report` → `Nightly report`"""
    words = key.replace("-", " ").replace("_", " ").strip()
    return words[:1].upper() + words[1:] if words else key


@register.filter
def doing(what: str) -> str:
    """The words that follow a number of jobs in this state: `38 wait for a reply`."""
    words = {"worker": "at work", "queue": "in the queue", WaitingFor.QUIET_HOURS: "in quiet hours", "": "at work"}
    if what in words:
        return words[what]
    return f"wait for {WAITS[what][2]}" if what in WAITS else what


@register.filter
def platform(name: str) -> str:
    """The name of a platform for people."""
    return platforms.title(name)


@register.filter
def short_id(value: Any) -> str:
    text = str(value)
    return f"{text[:8]}…{text[-8:]}" if len(text) > 20 else text


@register.filter
def last_number(steps: Sequence[StepLine]) -> int:
    return steps[-1].number


@register.filter
def seconds_of(steps: Sequence[StepLine]) -> float:
    return sum(step.seconds or 0.0 for step in steps)


@register.filter
def cost_of(steps: Sequence[StepLine]) -> Decimal:
    return sum((step.cost for step in steps), Decimal(0))


@register.filter
def toast_of(message: Message) -> dict[str, Any]:
    """The parts of a message: `Visit.said` joins them."""
    title, text, link, target = [*str(message.message).split("\n"), "", "", ""][:4]
    return {"title": title, "text": text, "link": link, "target": target, "is_error": message.level_tag == "error"}


@register.simple_tag(takes_context=True)
def with_query(context: Mapping[str, Any], **changes: Any) -> str:
    """This page's address with other values in its query; an empty value removes the parameter."""
    query = context["visit"].request.GET.copy()
    for name, value in changes.items():
        query.pop(name, None)
        if value not in (None, ""):
            query[name] = str(value)
    address: str = context["visit"].request.path
    return f"{address}?{urlencode(list(query.lists()), doseq=True)}" if query else address


@register.filter
def is_uuid(text: str) -> bool:
    """Whether a text is a UUID in its canonical form, as the ids of jobs are."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
