"""Foreign APIs, spoken over our own core: one package each, and one line in `DIALECTS`.

A dialect only translates. Its module `…_json` has the JSON of its requests, answers and errors, and begins with a table
of statuses: ours and the dialect's. Its `…_views` turn a request into a call of a service, and rows into an answer. No
decision about jobs is made here: a dialect that needs one shows that the core lacks a function. Dialects are entry
points, as `api` is: they touch no tables, and do not import each other.

base            their frame: credentials, parsing, errors
documentation   how they describe their operations and answers
lenient_fields  values that foreign clients write more freely than those of our own API
schedule_views  the base of views whose jobs are schedules
schedule_texts  texts of schedules, and the timing that they stand for
urls            mounts them, and says which addresses are whose

The setting ROOT_DIALECT mounts one of them at `/` beside its own prefix, for clients that cannot change their path.
"""

from django.conf import settings

from agent_jobs.api.errors import Envelope
from agent_jobs.dialects import chadburn, chronos, executr, workspace
from agent_jobs.dialects.base import Dialect

__all__ = ["DIALECTS", "Dialect", "at_root", "envelope_of", "owner"]

DIALECTS: tuple[Dialect, ...] = (chadburn.DIALECT, chronos.DIALECT, executr.DIALECT, workspace.DIALECT)


def at_root() -> Dialect | None:
    """The dialect that ROOT_DIALECT mounts at `/`, beside its own prefix; None if the setting is empty."""
    return next((dialect for dialect in DIALECTS if dialect.name == settings.ROOT_DIALECT), None)


def owner(path: str) -> Dialect | None:
    """The dialect to which an address belongs, also an unknown address below its mount; None: the native API."""
    below = path.lstrip("/")
    for dialect in DIALECTS:
        if dialect.owns(below):
            return dialect
    rooted = at_root()
    return rooted if rooted and rooted.owns_at_root(below) else None


def envelope_of(path: str) -> Envelope | None:
    dialect = owner(path)
    return dialect.envelope if dialect else None
