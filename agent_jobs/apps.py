from django.apps import AppConfig


class AgentJobsConfig(AppConfig):
    name = "agent_jobs"
    verbose_name = "Agent jobs"
