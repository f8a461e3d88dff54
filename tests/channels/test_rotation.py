"""A key is replaced without losing a secret, whoever writes meanwhile and however often it is begun again."""

import base64
import io
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connection

from agent_jobs.catalog import model_keys
from agent_jobs.models import AuditEntry
from agent_jobs.specs import Actor
from agent_jobs.tenants import channel_admin
from channels_integration import directory, rotation
from channels_integration.models import Channel, Installation
from infra import sealing
from tests import rows
from tests.waiting import PATIENCE

OLD = f"old:{base64.b64encode(b'o' * 32).decode()}"
NEW = f"new:{base64.b64encode(b'n' * 32).decode()}"
BOTH = f"{NEW},{OLD}"
OPERATOR = Actor("command", "test")
pytestmark = pytest.mark.django_db


def secrets():
    """Every secret in the database, opened, by where it stands."""
    found = {}
    for model, columns in channel_admin.SEALED:
        for row in model.objects.all():
            for column in columns:
                if sealed := getattr(row, column):
                    cell = {"org_id": row.org_id, "table": model._meta.db_table, "column": column, "key": str(row.pk)}
                    found[tuple(cell.values())] = sealing.open_sealed(sealed, **cell)
    return found


def fill(orgs=3):
    for number in range(orgs):
        org_id = f"org{number}"
        directory.install_slack(
            org_id, team_id=f"T{number}", bot_token=f"xoxb-{number}", signing_secret=f"signing-{number}"
        )
        directory.register_channel(org_id, platform="webhook", code="c", address="http://127.0.0.1/")
        directory.register_channel(org_id, platform="null", code="without-secret")
        rows.org(org_id)
        model_keys.put_key(org_id, "openai", key=f"sk-{number}", actor=OPERATOR)


def test_every_sealed_column_is_sealed_anew():
    """A column of secrets that the rotation does not know would be lost with the old key."""
    named = {
        (model, column.attname)
        for model in apps.get_models()
        for column in model._meta.concrete_fields
        if column.attname.startswith("sealed_")
    }
    assert named == {(model, column) for model, columns in channel_admin.SEALED for column in columns}


def rotate(**options):
    out = io.StringIO()
    call_command("rotate_secrets", stdout=out, stderr=out, **options)
    return out.getvalue()


def test_every_secret_is_under_the_new_key_and_the_old_one_can_go(settings):
    settings.SEALING_KEYS = OLD
    fill()
    before = secrets()
    settings.SEALING_KEYS = BOTH

    assert rotate() == "12 sealed anew, 0 left under other keys\n"

    settings.SEALING_KEYS = NEW
    assert secrets() == before
    assert len(before) == 12
    assert rotate() == "0 sealed anew, 0 left under other keys\n"
    told = AuditEntry.objects.filter(action="secret.resealed")
    assert told.count() == 12
    assert told.first().before == {"sealing_key": "old"}
    assert told.first().after == {"sealing_key": "new"}


def test_small_batches_lose_none(settings):
    settings.SEALING_KEYS = OLD
    fill(5)
    settings.SEALING_KEYS = BOTH

    assert channel_admin.rotate_secrets(actor=OPERATOR, batch=2) == (20, [], 0)


def test_what_was_interrupted_goes_on(settings):
    settings.SEALING_KEYS = OLD
    fill()
    before = secrets()
    settings.SEALING_KEYS = BOTH
    seen = []

    def stop(cell):
        seen.append(cell)
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rotation.reseal(stop, tables=channel_admin.SEALED, batch=1)
    assert secrets() == before
    assert 0 < rotation.left(channel_admin.SEALED) < 12

    assert channel_admin.rotate_secrets(actor=OPERATOR)[2] == 0
    assert secrets() == before


def test_one_that_cannot_be_opened_is_told_and_keeps_nobody_else_back(settings):
    settings.SEALING_KEYS = OLD
    fill()
    first, second = Installation.objects.filter(org_id__in=["org0", "org1"]).order_by("org_id")
    Installation.objects.filter(pk=first.pk).update(sealed_bot_token=second.sealed_bot_token)
    settings.SEALING_KEYS = BOTH
    out = io.StringIO()

    with pytest.raises(CommandError, match="keep the old keys"):
        call_command("rotate_secrets", stdout=out, stderr=out)

    assert "11 sealed anew, 1 left" in out.getvalue()
    assert f"org0: channels_integration_installation {first.pk}: " in out.getvalue()
    first.refresh_from_db()
    assert first.sealed_bot_token == second.sealed_bot_token


def test_secrets_that_are_swapped_between_rows_do_not_open(settings):
    settings.SEALING_KEYS = OLD
    fill(2)
    ours, theirs = Channel.objects.filter(platform="webhook").order_by("org_id")
    Channel.objects.filter(pk=ours.pk).update(sealed_secret=theirs.sealed_secret)

    with pytest.raises(sealing.SealingError, match="another row"):
        secrets()


def test_without_keys_it_says_so(settings):
    settings.SEALING_KEYS = ""
    with pytest.raises(CommandError, match="not set"):
        rotate()


@pytest.mark.django_db(transaction=True)
def test_who_writes_meanwhile_is_not_overwritten(settings):
    """Two rotations and writers of new secrets at once: what was written last is there, under the new key."""
    settings.SEALING_KEYS = OLD
    fill(20)
    settings.SEALING_KEYS = BOTH
    gate = threading.Barrier(4)

    def in_thread(work):
        gate.wait(PATIENCE)
        try:
            work()
        finally:
            connection.close()

    def write(place):
        for number in range(place, 20, 2):
            directory.install_slack(
                f"org{number}", team_id=f"T{number}", bot_token=f"xoxb-new-{number}", signing_secret="signing-new"
            )

    work = [lambda: channel_admin.rotate_secrets(actor=OPERATOR, batch=3)] * 2 + [lambda: write(0), lambda: write(1)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(in_thread, work))

    settings.SEALING_KEYS = NEW
    found = secrets()
    tokens = {org: secret for (org, _, column, _), secret in found.items() if column == "sealed_bot_token"}
    assert tokens == {f"org{number}": f"xoxb-new-{number}" for number in range(20)}
    assert len(found) == 80
