"""Reads the text of a cron expression: macros, prefixes, names, and the reason why a field is wrong.

The result holds only digits and the signs that `cronsim` reads alike. Its own parser refuses without a reason, takes
`*/90` (users mean "every 90 minutes" and would get minute 0), and reads `14-14/4` as 14, 18, 22.
"""

import re
from dataclasses import dataclass

from agent_jobs.recurrence.firings import BadExpression

MAX_LENGTH = 256
MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_MONTH_LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_PREFIX = re.compile(r"(?:CRON_TZ|TZ)=(\S*)(?:\s+(.*))?", re.IGNORECASE | re.DOTALL)
_EVERY = re.compile(r"@every(?:\s+(.*))?", re.IGNORECASE | re.DOTALL)
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class CronText:
    """Six normalised fields, seconds first. `zone` is the zone of a prefix, or empty."""

    fields: tuple[str, str, str, str, str, str]
    zone: str = ""


@dataclass(frozen=True, slots=True)
class EveryText:
    """The duration of `@every`, as it was written."""

    duration: str
    zone: str = ""


@dataclass(frozen=True, slots=True)
class _CronField:
    name: str
    lowest: int
    highest: int
    names: tuple[str, ...] = ()
    first_name: int = 0

    def values(self) -> str:
        named = f" or {self.names[0]} to {self.names[-1]}" if self.names else ""
        return f"{self.lowest} to {self.highest}{named}"


_DAY_OF_MONTH = _CronField("day of month", 1, 31)
_DAY_OF_WEEK = _CronField("day of week", 0, 7, WEEKDAYS)
_FIELDS = (
    _CronField("second", 0, 59),
    _CronField("minute", 0, 59),
    _CronField("hour", 0, 23),
    _DAY_OF_MONTH,
    _CronField("month", 1, 12, MONTHS, 1),
    _DAY_OF_WEEK,
)


def read(expression: str) -> CronText | EveryText:
    """Read and normalise the text of an expression. Raises BadExpression."""
    if len(expression) > MAX_LENGTH:
        raise BadExpression("expression", f"must have at most {MAX_LENGTH} characters, not {len(expression):,}")
    expression = expression.strip()
    if not expression.isascii() or not expression.replace("\t", " ").isprintable():
        raise BadExpression("expression", "must have only ASCII letters, digits, signs and blanks")
    text, zone = _without_prefix(expression)
    if not text:
        raise BadExpression("expression", "is empty")
    if every := _EVERY.fullmatch(text):
        return EveryText((every[1] or "").strip(), zone)
    if text.startswith("@"):
        text = _macro(text)
    written = text.split()
    if len(written) not in (5, 6):
        raise BadExpression(
            "expression",
            f"has {len(written)} {'field' if len(written) == 1 else 'fields'}; it needs 5 (minute, hour, day of month, "
            "month, day of week) or 6 (second first)",
        )
    if len(written) == 5:
        written.insert(0, "0")
    second, minute, hour, day, month, weekday = (
        _normalised(field, part.upper()) for field, part in zip(_FIELDS, written, strict=True)
    )
    _refuse_missing_days(day, month, weekday)
    return CronText((second, minute, hour, day, month, weekday), zone)


def numbers(part: str, lowest: int, highest: int) -> tuple[int, ...]:
    """The plain numbers of a normalised field, sorted; forms such as `L` or `1#2` are left out."""
    found: set[int] = set()
    for term in part.split(","):
        body, _, step = term.partition("/")
        first, _, last = body.partition("-")
        if body == "*":
            first, last = str(lowest), str(highest)
        elif step and not last:
            last = str(highest)
        if first.isdigit():
            found.update(range(int(first), int(last or first) + 1, int(step or 1)))
    return tuple(sorted(found))


def _without_prefix(text: str) -> tuple[str, str]:
    prefix = _PREFIX.fullmatch(text)
    if not prefix:
        return text, ""
    if not prefix[1]:
        raise BadExpression("time zone", "is missing after the equals sign")
    return (prefix[2] or "").strip(), prefix[1]


def _macro(text: str) -> str:
    if text.lower() == "@reboot":
        raise BadExpression("expression", "@reboot is not supported: a schedule has no machine that starts")
    if text.lower() not in MACROS:
        raise BadExpression("expression", f"{_short(text)} is not known; there are @every and {', '.join(MACROS)}")
    return MACROS[text.lower()]


def _normalised(field: _CronField, part: str) -> str:
    if part == "?":
        if field in (_DAY_OF_MONTH, _DAY_OF_WEEK):
            return "*"
        raise BadExpression(field.name, "? is allowed only for day of month and day of week")
    return ",".join(_term(field, term) for term in part.split(","))


def _term(field: _CronField, term: str) -> str:
    if not term:
        raise BadExpression(field.name, "has an empty entry in its list")
    if special := _special(field, term):
        return special
    body, slash, step_text = term.partition("/")
    first_text, dash, last_text = body.partition("-")
    if body == "*":
        first, last = field.lowest, field.highest
    else:
        first = _number(field, first_text, term)
        last = _number(field, last_text, term, is_end=True) if dash else field.highest if slash else first
    if last < first:
        raise BadExpression(field.name, f"the range {_short(body)} runs backwards; write two ranges")
    if not slash:
        return "*" if body == "*" else str(first) if first == last else f"{first}-{last}"
    step = _step(field, step_text, term, most=last - first + 1)
    if body == "*":
        return f"*/{step}"
    # cronsim reads a range of one value with a step as "from there to the end".
    return str(first) if first == last else f"{first}-{last}/{step}"


def _special(field: _CronField, term: str) -> str:
    """Check a term with letters or #: `L` and `LW` for days of the month, `5L` and `1#2` for days of the week.

    Returns "" for any other term.
    """
    if field is _DAY_OF_MONTH:
        if term in ("L", "LW"):
            return term
        if re.fullmatch(r"L?-?\d*W|\d+W|L[-/]\d+|W", term):
            raise BadExpression(field.name, f"{_short(term)} is not supported; of these forms there are only L and LW")
    if field is _DAY_OF_WEEK:
        if term == "L":
            raise BadExpression(field.name, "L alone is not supported; write 6L for the last Saturday")
        if len(term) > 1 and term.endswith("L"):
            return f"{_number(field, term[:-1], term) % 7}L"
        if "#" in term:
            day, _, nth = term.partition("#")
            if nth not in ("1", "2", "3", "4", "5"):
                raise BadExpression(field.name, f"{_short(term)} needs a number from 1 to 5 after #")
            return f"{_number(field, day, term) % 7}#{nth}"
    return ""


def _number(field: _CronField, text: str, term: str, *, is_end: bool = False) -> int:
    if text in field.names:
        number = field.names.index(text) + field.first_name
        return 7 if is_end and text == "SUN" else number  # FRI-SUN
    if not text.isdigit():
        raise BadExpression(field.name, f"{_short(term)} is not understood; values are {field.values()}")
    number = int(text)
    if not field.lowest <= number <= field.highest:
        raise BadExpression(field.name, f"{_short(text)} is out of range; values are {field.values()}")
    return number


def _step(field: _CronField, text: str, term: str, *, most: int) -> int:
    if not text.isdigit() or int(text) == 0:
        raise BadExpression(field.name, f"{_short(term)} needs a whole number of at least 1 after the slash")
    if int(text) > most:
        why = "; use @every for longer intervals" if field.name in ("second", "minute", "hour") else ""
        raise BadExpression(field.name, f"the step of {_short(term)} is longer than its {most} values{why}")
    return int(text)


def _refuse_missing_days(day: str, month: str, weekday: str) -> None:
    """Refuse a day that none of the months has, unless a day of the week is stated too: one of the two is enough."""
    if "L" in day or not (day.startswith("*") or weekday.startswith("*")):
        return
    first_day = numbers(day, 1, 31)[0]
    months = numbers(month, 1, 12)
    if first_day > max(_MONTH_LENGTHS[number - 1] for number in months):
        names = ", ".join(MONTHS[number - 1].capitalize() for number in months)
        raise BadExpression("day of month", f"the expression never fires: no day {first_day} exists in {names}")


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
