"""Errors of callers' input in this package. (`messages` has the errors of sends.)

ChannelsError
├── InvalidField    an invalid value; `field` names it
└── UnknownChannel  no such channel, message or installation of this organisation
"""


class ChannelsError(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidField(ChannelsError):
    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class UnknownChannel(ChannelsError):
    pass
