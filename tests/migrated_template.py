"""The migrations run once for all processes of a run, 4 s each: the databases of the tests are copies of a template."""

import fcntl
import os

from django.conf import settings
from django.db import connection

NAME = "migrated_template"
# Set where the server is the run's own (`services_plugin.py`), so that the template ends with it: a file to lock.
VARIABLE = "AGENT_JOBS_TEST_TEMPLATE_LOCK"


def share() -> None:
    """From now on this process's test database is made from the template, which whoever comes first makes."""
    lock = os.open(os.environ[VARIABLE], os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with connection._nodb_cursor() as cursor:
            cursor.execute("SELECT FROM pg_database WHERE datname = %s", [NAME])
            is_there = cursor.fetchone() is not None
        if not is_there:
            _make()
    finally:
        os.close(lock)
    connection.settings_dict["TEST"] |= {"TEMPLATE": NAME, "MIGRATE": False}


def _make() -> None:
    """As Django makes a test database, but under the template's name."""
    named, test = connection.settings_dict["NAME"], connection.settings_dict["TEST"]
    own, test["NAME"] = test["NAME"], NAME
    connection.creation.create_test_db(verbosity=0, serialize=False)
    connection.close()  # a database with sessions cannot be copied
    test["NAME"] = own
    settings.DATABASES[connection.alias]["NAME"] = connection.settings_dict["NAME"] = named
