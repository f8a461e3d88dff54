import pytest

from tests import factories, rows


@pytest.fixture
def acme(db):
    """A client with WRITE in our organisation, which has the job type `greet`."""
    rows.job_type()
    return factories.api("acme", "SERVICES:WRITE")


@pytest.fixture
def admin(acme):
    return factories.api("acme", "SERVICES:ADMIN")


@pytest.fixture
def rival_admin(rival):
    return factories.api("rival", "SERVICES:ADMIN")


@pytest.fixture
def reader(db):
    return factories.api("acme", "SERVICES:READ")


@pytest.fixture
def rival(db):
    """A client with WRITE in the stranger's organisation, which has a job type of the same name."""
    rows.job_type("rival")
    return factories.api("rival", "SERVICES:WRITE")


@pytest.fixture
def nobody(db):
    return factories.Api(None)
