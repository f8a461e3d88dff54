from django.apps import AppConfig


class AgentJobsConfig(AppConfig):
    name = "agent_jobs"
    verbose_name = "Agent jobs"

    def ready(self) -> None:
        # Imports models, so not before the apps are loaded.
        from agent_jobs.api import job_json
        from agent_jobs.api.channel_callbacks import ChannelCallbacks
        from agent_jobs.webhooks import expansion
        from channels_integration import message_owner

        message_owner.register(ChannelCallbacks())
        expansion.register_job_form(job_json.of)
