"""Times and lengths of time as people read them, always in the viewer's zone.

The same rules hold for tables, axes and tooltips: the time of day for today, with the day for other days, and with the
year for other years.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo


def day(at: datetime, zone: ZoneInfo, now: datetime) -> str:
    """`25 Nov`; `25 Nov 2025` if the year is not the present one."""
    local, today = at.astimezone(zone), now.astimezone(zone)
    return f"{local.day} {local:%b}" + (f" {local.year}" if local.year != today.year else "")


def short(at: datetime, zone: ZoneInfo, now: datetime, *, seconds: bool = False) -> str:
    """`14:32` today, `25 Nov 14:32` on another day."""
    local = at.astimezone(zone)
    time = f"{local:%H:%M:%S}" if seconds else f"{local:%H:%M}"
    return time if local.date() == now.astimezone(zone).date() else f"{day(at, zone, now)} {time}"


def long(at: datetime, zone: ZoneInfo, now: datetime) -> str:
    """`Wed 25 Nov, 16:02:11`"""
    local = at.astimezone(zone)
    return f"{local:%a} {day(at, zone, now)}, {local:%H:%M:%S}"


def coming(at: datetime, zone: ZoneInfo, now: datetime) -> str:
    """`17:30`, `tomorrow 09:30`, `30 Nov 09:30`"""
    local, today = at.astimezone(zone), now.astimezone(zone)
    if local.date() == today.date() + timedelta(days=1):
        return f"tomorrow {local:%H:%M}"
    return short(at, zone, now)


def offset(local: datetime) -> str:
    """`UTC+1`, `UTC−3:30`, `UTC`"""
    minutes = round((local.utcoffset() or timedelta()).total_seconds() / 60)
    hours, rest = divmod(abs(minutes), 60)
    return f"UTC{'−' if minutes < 0 else '+'}{hours}{f':{rest:02}' if rest else ''}" if minutes else "UTC"


def utc(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def iso(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}Z"


def length(seconds: float) -> str:
    """`0.4 s`, `27 s`, `1 m 55 s`, `2 h 52 m`, `4 d 1 h`: two units at most."""
    seconds = max(seconds, 0.0)
    if seconds < 9.95:
        return f"{seconds:.1f} s" if seconds >= 0.05 else "0 s"
    whole = round(seconds)
    for size, unit, smaller, smaller_unit in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            many, rest = divmod(whole, size)
            less = rest // smaller
            return f"{many} {unit} {less} {smaller_unit}" if less else f"{many} {unit if unit != 'm' else 'min'}"
    return f"{whole} s"


def rough(seconds: float) -> str:
    """A length without seconds from one minute on: `12 s`, `31 min`, `2 h 4 m`, `4 d 1 h`."""
    return length(seconds if seconds < 60 else round(seconds / 60) * 60)
