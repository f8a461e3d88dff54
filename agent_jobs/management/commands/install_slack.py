"""Installs a Slack workspace for an organisation. Reads secrets from standard input and environment, not arguments."""

import os
from typing import Any

from django.core.management.base import CommandError, CommandParser

from agent_jobs.management.commands._base import OperatorCommand
from agent_jobs.tenants import channel_admin, orgs


class Command(OperatorCommand):
    help = "Install a Slack workspace for an organisation, or replace the secrets of an installed one."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--org", required=True, metavar="ORG_ID")
        parser.add_argument("--team", required=True, metavar="TEAM_ID", help="the workspace's id, such as T0123ABCD")
        parser.add_argument("--name", default="", help="what people call the workspace")
        parser.add_argument(
            "--bot-token-stdin", action="store_true", required=True, help="read the bot token from standard input"
        )
        parser.add_argument(
            "--signing-secret-env", required=True, metavar="NAME", help="the variable that holds the signing secret"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        bot_token = self.read_secret("bot token", "xoxb-…").strip()
        variable = options["signing_secret_env"]
        signing_secret = os.environ.get(variable, "").strip()
        if not signing_secret:
            raise CommandError(f"the variable {variable}, which should hold the signing secret, is not set")
        org = orgs.open_org(options["org"])
        installation = channel_admin.install_slack(
            org.pk,
            actor=self.actor,
            team_id=options["team"],
            bot_token=bot_token,
            signing_secret=signing_secret,
            name=options["name"],
        )
        self.stdout.write(f"installed Slack team {installation.team_id} for {org.pk}")
