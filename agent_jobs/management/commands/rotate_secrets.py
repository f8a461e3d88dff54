"""Seals every stored secret with the newest key, so that an old one can be dropped."""

from typing import Any

from django.core.management.base import CommandError

from agent_jobs.management.commands._base import OperatorCommand
from agent_jobs.tenants import channel_admin


class Command(OperatorCommand):
    help = (
        "Seal all secrets with the first key of AGENT_JOBS_SEALING_KEYS. You can drop the old key once every process"
        " has the new one first and nothing is left. After an interruption, run it again: it goes on where it stopped."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        count, failed, left = channel_admin.rotate_secrets(actor=self.actor)
        for cell in failed:
            self.stderr.write(f"{cell.org_id}: {cell.table} {cell.key}: {cell.problem}")
        self.stdout.write(f"{count} sealed anew, {left} left under other keys")
        if left:
            raise CommandError("keep the old keys: not everything is under the newest one")
