"""Clients that send at the same moment."""

import threading
from concurrent.futures import ThreadPoolExecutor

from django.db import connection

from tests.waiting import PATIENCE


def at_once(count, send):
    """The answers to `count` clients that send at the same moment, each from its own thread and connection."""
    start = threading.Barrier(count)

    def client(number):
        try:
            start.wait(PATIENCE)
            return send(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(client, range(count)))
