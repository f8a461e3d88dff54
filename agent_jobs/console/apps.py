from django.apps import AppConfig


class ConsoleConfig(AppConfig):
    name = "agent_jobs.console"
    label = "console"
    verbose_name = "Console"
