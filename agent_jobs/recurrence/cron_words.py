"""Says a cron expression in plain English, from its normalised fields."""

from collections.abc import Callable, Sequence

from agent_jobs.recurrence.cron_text import numbers

_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_ORDINALS = ("first", "second", "third", "fourth", "fifth")
_MAX_CLOCK_TIMES = 6
_SEVEN_DAYS = 7


def sentence(fields: tuple[str, str, str, str, str, str]) -> str:
    """`("0", "30", "2", "*", "*", "1-5")` gives "At 02:30 on Monday to Friday"."""
    second, minute, hour, day, month, weekday = fields
    date = _date(day, month, weekday)
    return f"{_time(second, minute, hour)}{'' if date == ' every day' and len(numbers(hour, 0, 23)) == 24 else date}"


def _time(second: str, minute: str, hour: str) -> str:
    seconds, minutes, hours = numbers(second, 0, 59), numbers(minute, 0, 59), numbers(hour, 0, 23)
    if len(seconds) == 1 and len(minutes) * len(hours) <= _MAX_CLOCK_TIMES:
        tail = f":{seconds[0]:02}" if seconds[0] else ""
        return f"At {_listed([f'{h:02}:{m:02}{tail}' for h in hours for m in minutes])}"
    units = [_unit("second", seconds, second, 60), _unit("minute", minutes, minute, 60), _unit("hour", hours, hour, 24)]
    # The start of every larger unit needs no words: second 0 of minute 0 of every 5 hours is "every 5 hours".
    if seconds == (0,):
        units.pop(0)
        if minutes == (0,) and units[-1].startswith("every"):
            units.pop(0)
    # Neither do larger units that only repeat: "every second" of every minute, "every 15 minutes" of every hour.
    while len(units) > 1 and units[-1].startswith("every ") and units[-1].count(" ") == 1:
        if not units[-2].startswith("every "):
            break
        units.pop()
    text = " of ".join(units)
    return f"{text[0].upper()}{text[1:]}" if text.startswith("every") else f"At {text}"


def _unit(name: str, values: tuple[int, ...], part: str, size: int) -> str:
    if len(values) == size:
        return f"every {name}"
    _, is_step, step = part.partition("*/")
    if is_step and step.isdigit() and size % int(step) == 0 and len(values) > 1:
        return f"every {step} {name}s"
    return f"{name}{'' if len(values) == 1 else 's'} {_ranges(values)}"


def _date(day: str, month: str, weekday: str) -> str:
    days, weekdays = _days(day), _weekdays(weekday)
    if days and weekdays:
        needs_both = day.startswith("*") or weekday.startswith("*")
        when = f"on {days}, if it is {weekdays}" if needs_both else f"on {days} or on {weekdays}"
    elif days or weekdays:
        when = f"on {days or weekdays}"
    else:
        when = "every day"
    months = numbers(month, 1, 12)
    if len(months) < 12:
        when += f" in {_ranges(months, _month)}"
    return f" {when}"


def _days(part: str) -> str:
    """The days of the month; "" if every day will do."""
    values = numbers(part, 1, 31)
    if len(values) == 31:
        return ""
    said = []
    if values:
        said.append(f"{'day' if len(values) == 1 else 'days'} {_ranges(values)} of the month")
    terms = part.split(",")
    if "L" in terms:
        said.append("the last day of the month")
    if "LW" in terms:
        said.append("the last working day (Monday to Friday) of the month")
    return " or ".join(said)


def _weekdays(part: str) -> str:
    """The days of the week; "" if every day will do."""
    values = numbers(part, 0, 7)
    if len({value % 7 for value in values}) == _SEVEN_DAYS:
        return ""
    if 0 in values and 7 not in values and 6 in values:
        values = (*values[1:], 7)  # Friday to Sunday
    elif 0 in values and 7 in values:
        values = values[1:] if 6 in values else values[:-1]
    said = [_ranges(values, lambda value: _WEEKDAYS[value])] if values else []
    for term in part.split(","):
        if term.endswith("L"):
            said.append(f"the last {_WEEKDAYS[int(term[:-1])]} of the month")
        elif "#" in term:
            number, _, nth = term.partition("#")
            said.append(f"the {_ORDINALS[int(nth) - 1]} {_WEEKDAYS[int(number)]} of the month")
    return " or ".join(said)


def _ranges(values: Sequence[int], name: Callable[[int], str] = str) -> str:
    """(1, 2, 3, 5) gives "1 to 3 and 5"."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    said = []
    for run in runs:
        said += [f"{name(run[0])} to {name(run[-1])}"] if len(run) > 2 else [name(value) for value in run]
    return _listed(said)


def _listed(items: Sequence[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else items[0]


def _month(number: int) -> str:
    return _MONTHS[number - 1]
