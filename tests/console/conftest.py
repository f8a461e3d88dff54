import pytest
from django.test import Client

from agent_jobs.models import Membership
from tests import rows

PASSWORD = "correct horse battery"


@pytest.fixture
def fast_passwords(settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # a real one takes half a second


@pytest.fixture
def person(db, fast_passwords, django_user_model):
    """Makes a user with a role in an organisation, and a browser in which they are signed in."""

    def make(org_id="acme", role="admin", username="jane"):
        user = django_user_model.objects.filter(username=username).first()
        if user is None:
            user = django_user_model.objects.create_user(
                username, password=PASSWORD, first_name="Jane", last_name="Doe"
            )
        Membership.objects.get_or_create(org=rows.org(org_id), user=user, defaults={"role": role})
        browser = Client()
        browser.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
        return browser

    return make


@pytest.fixture
def admin(person):
    return person()


@pytest.fixture
def member(person):
    return person(role="member", username="mel")


@pytest.fixture
def stranger(person):
    return person("rival", username="rita")
