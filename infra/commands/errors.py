"""Errors of commands: one that is written wrongly, and a machine that cannot run any."""


class InvalidCommandError(ValueError):
    """The command cannot be run as it is written. `field` names the part at fault."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class SandboxUnavailable(Exception):
    """This machine cannot run commands in the mode asked for. The text says why."""
