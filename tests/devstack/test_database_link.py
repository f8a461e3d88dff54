"""How the service's connections to PostgreSQL treat a line that has died."""

import pytest
from django.db import connection


@pytest.mark.django_db
def test_silence_of_the_database_link_ends_its_connections_within_half_a_minute():
    connection.ensure_connection()

    told = {name: int(value) for name, value in connection.connection.info.get_parameters().items() if value.isdigit()}

    assert told["keepalives_idle"] + told["keepalives_interval"] * told["keepalives_count"] <= 30
    assert told["tcp_user_timeout"] <= 30_000
