"""Rate limits: counts the requests of a token, an organisation or an address in sliding windows.

All web processes share the counts in Redis, by Redis's clock. The algorithm is the sliding window counter of `limits`:
two numbers for each window, where the older one counts for the part of it within the last minute. The library's moving
window would store the time of every request, by the clocks of the web processes.

One round trip takes all windows of a request, the narrowest first. A request refused by its token's limit does not
count against the organisation, so one misbehaving token does not lock out the others.

While Redis is down, every process counts for itself, starting from zero: N web processes allow up to N times the limit.
"""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import limits
from limits.storage import MemoryStorage, RedisStorage

from infra import redis

# Runs the library's two scripts for each window in turn until one refuses; later windows are only read.
_TAKE = f"""
local function acquire(KEYS, ARGV)
{RedisStorage.SCRIPT_ACQUIRE_SLIDING_WINDOW.decode()}
end
local function look(KEYS, ARGV)
{RedisStorage.SCRIPT_SLIDING_WINDOW.decode()}
end
local seen, is_open = {{}}, true
for i = 1, #KEYS, 2 do
    local window = {{KEYS[i], KEYS[i + 1]}}
    local was_taken = is_open and acquire(window, {{ARGV[i], ARGV[i + 1], 1}})
    is_open = was_taken and true or false
    seen[#seen + 1] = {{was_taken and 1 or 0, look(window, {{ARGV[i + 1]}})}}
end
return seen
"""


@dataclass(frozen=True, slots=True)
class Limit:
    """`Limit("token", "0193…", "6000/minute")`: the kind of subject, its id, and the rate. The rate `off` sets no
    limit.
    """

    name: str
    of: str
    rate: str


@dataclass(frozen=True, slots=True)
class LimitState:
    """A limit after a request. `wait_seconds` is the time until one more request passes, 0 if it would pass now.
    `reset_seconds` is the time until the used requests begin to count less.
    """

    name: str
    quota: int
    window_seconds: int
    remaining: int
    reset_seconds: float
    wait_seconds: float
    is_refused: bool


def take(*wanted: Limit) -> tuple[LimitState, ...]:
    """Count one request against each limit in this order, up to the first that refuses; that one has `is_refused`.

    Limits that are off are left out. A limit does not count requests that it refused, so a client that keeps retrying
    still gets the allowed rate. Never raises when Redis is down.
    """
    windows = tuple(_window(limit) for limit in wanted if is_on(limit.rate))
    if not windows:
        return ()
    try:
        with redis.quick.client() as client:
            states = _take_together(client, windows)
    except redis.Unavailable:
        return _alone.take(windows)
    _alone.forget()
    return states


def is_on(rate: str) -> bool:
    return rate != "off"


@dataclass(frozen=True, slots=True)
class _Window:
    limit: Limit
    quota: int
    seconds: int
    key: str


@lru_cache(maxsize=256)
def _parsed(rate: str) -> limits.RateLimitItem:
    return limits.parse(rate)


def _window(limit: Limit) -> _Window:
    item = _parsed(limit.rate)
    return _Window(limit, item.amount, item.get_expiry(), item.key_for(limit.name, limit.of))


def _state(window: _Window, was_taken: bool, counts: Sequence[Any], *, is_first_refused: bool) -> LimitState:
    """The state of a limit. `counts`: requests in the older window, seconds for which it still counts, and the same two
    for the current window.
    """
    before, before_left, now, now_left = (max(0.0, float(count or 0)) for count in counts)
    quota, seconds = window.quota, window.seconds
    used = math.floor(before * before_left / seconds) + now
    shift = max(0.0, now_left - seconds) if now_left else 0.0
    wait = 0.0
    if used >= quota:
        # Either the older window fades enough, or the current one must become the older one and begin to fade.
        wait = before_left - (quota - now) * seconds / before if now < quota and before else shift + seconds / now
    return LimitState(
        name=window.limit.name,
        quota=quota,
        window_seconds=seconds,
        remaining=max(0, int(quota - used)),
        reset_seconds=shift or float(seconds),
        wait_seconds=max(wait, 0.0),
        is_refused=not was_taken and is_first_refused,
    )


def _states(windows: Sequence[_Window], seen: Sequence[tuple[bool, Sequence[Any]]]) -> tuple[LimitState, ...]:
    states: list[LimitState] = []
    is_open = True
    for window, (was_taken, counts) in zip(windows, seen, strict=True):
        states.append(_state(window, was_taken, counts, is_first_refused=is_open))
        is_open = is_open and was_taken
    return tuple(states)


def _take_together(client: redis.Client, windows: Sequence[_Window]) -> tuple[LimitState, ...]:
    keys = [key for window in windows for key in (f"rate:{{{window.key}}}/-1", f"rate:{{{window.key}}}")]
    numbers = [number for window in windows for number in (window.quota, window.seconds)]
    seen: Any = client.register_script(_TAKE)(keys=keys, args=numbers)
    return _states(
        windows,
        [
            (bool(was_taken), (before, before_left / 1000, now, now_left / 1000))
            for was_taken, (before, before_left, now, now_left) in seen
        ],
    )


class _Alone:
    """This process's own count while Redis is down."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._storage: MemoryStorage | None = None

    def take(self, windows: Sequence[_Window]) -> tuple[LimitState, ...]:
        seen: list[tuple[bool, Sequence[Any]]] = []
        with self._guard:  # without it, the library's locks make concurrent requests refuse each other
            storage = self._storage = self._storage or MemoryStorage()
            is_open = True
            for window in windows:
                is_open = is_open and storage.acquire_sliding_window_entry(window.key, window.quota, window.seconds)
                seen.append((is_open, storage.get_sliding_window(window.key, window.seconds)))
        return _states(windows, seen)

    def forget(self) -> None:
        self._storage = None


_alone = _Alone()
