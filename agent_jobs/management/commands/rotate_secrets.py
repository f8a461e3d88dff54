"""Seals every stored secret with the newest key, so that an old one can be dropped."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from agent_jobs.management.commands._base import told_plainly
from agent_jobs.specs import Actor
from agent_jobs.tenants import channel_admin
from infra.sealing import SealingError


class Command(BaseCommand):
    help = (
        "Seal all secrets with the first key of AGENT_JOBS_SEALING_KEYS. You can drop the old key once every process"
        " has the new one first and nothing is left. After an interruption, run it again: it goes on where it stopped."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        with told_plainly():
            try:
                count, failed, left = channel_admin.rotate_secrets(actor=Actor("command", "rotate_secrets"))
            except SealingError as error:
                raise CommandError(error.message) from None
        for cell in failed:
            self.stderr.write(f"{cell.org_id}: {cell.table} {cell.key}: {cell.problem}")
        self.stdout.write(f"{count} sealed anew, {left} left under other keys")
        if left:
            raise CommandError("keep the old keys: not everything is under the newest one")
