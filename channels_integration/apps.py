from django.apps import AppConfig


class ChannelsIntegrationConfig(AppConfig):
    name = "channels_integration"
    verbose_name = "Channels"
