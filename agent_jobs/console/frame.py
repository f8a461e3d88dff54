"""The frame around each page: the navigation with its counts, and one line about the processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent_jobs.reads import console_frame

if TYPE_CHECKING:
    from agent_jobs.console.visits import Visit


@dataclass(frozen=True, slots=True)
class MenuPlace:
    """A page in the navigation. `key` is typed after G on the keyboard. A page for admins is hidden from others."""

    name: str
    label: str
    icon: str
    key: str = ""
    is_on_phone: bool = False
    is_for_admins: bool = False


@dataclass(frozen=True, slots=True)
class MenuLink:
    place: MenuPlace
    address: str
    is_current: bool
    count: str = ""
    is_for_person: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    groups: Sequence[tuple[str, Sequence[MenuLink]]]
    on_phone: Sequence[MenuLink]
    health: console_frame.ProcessHealth
    pending_approvals: int


GROUPS: Sequence[tuple[str, Sequence[MenuPlace]]] = (
    (
        "",
        (
            MenuPlace("overview", "Overview", "layout-dashboard", "O", is_on_phone=True),
            MenuPlace("jobs", "Jobs", "list-details", "J", is_on_phone=True),
            MenuPlace("schedules", "Schedules", "calendar-time", "S", is_on_phone=True),
            MenuPlace("approvals", "Approvals", "shield-check", "A", is_on_phone=True),
            MenuPlace("channels", "Channels", "messages", "C"),
        ),
    ),
    (
        "Build",
        (
            MenuPlace("types", "Job types", "box"),
            MenuPlace("profiles", "Agent profiles", "robot"),
            MenuPlace("webhooks", "Webhooks", "webhook"),
        ),
    ),
    (
        "Organisation",
        (
            MenuPlace("usage", "Usage", "coin"),
            MenuPlace("hours", "Quiet hours", "moon"),
            MenuPlace("members", "Members", "users"),
            MenuPlace("tokens", "Tokens", "key", is_for_admins=True),
            MenuPlace("audit", "Audit", "history", is_for_admins=True),
            MenuPlace("processes", "Processes", "heartbeat"),
        ),
    ),
)


def of(visit: "Visit", here: str) -> Frame:
    counts = console_frame.counts(visit.org_id)
    shown = {
        "jobs": capped(counts.living_jobs),
        "approvals": str(counts.pending_approvals) if counts.pending_approvals else "",
    }
    groups = []
    for title, places in GROUPS:
        seen = [place for place in places if visit.is_admin or not place.is_for_admins]
        groups.append((title, [_link(visit, place, here, shown.get(place.name, "")) for place in seen]))
    on_phone = [link for _, links in groups for link in links if link.place.is_on_phone]
    return Frame(groups, on_phone, counts.health, counts.pending_approvals)


def capped(number: int) -> str:
    """`1,533`; `10,000+` beyond what is counted."""
    most = console_frame.MOST_COUNTED
    return f"{number:,}" if number <= most else f"{most:,}+"


def _link(visit: "Visit", place: MenuPlace, here: str, count: str) -> MenuLink:
    address, is_current = visit.url(place.name), place.name == here
    return MenuLink(place, address, is_current, count, is_for_person=place.name == "approvals")
