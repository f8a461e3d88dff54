"""The limits of a command: memory, CPU time, processes, sizes of files. A job's `work.limits` may lower the defaults.

`bubblewrap` sets them in a sandbox, `trusted_supervisor` for a trusted command. `watching` ends a command whose
processes use more than `memory_bytes` together, as `memory_use` measures it.
"""

from dataclasses import dataclass

from infra.commands.errors import InvalidCommandError

KIB, MIB = 1 << 10, 1 << 20
_MOST = 1 << 50
_LEAST = {"memory_bytes": 16 * MIB, "cpu_seconds": 1, "processes": 1, "file_bytes": 0, "folder_bytes": 64 * KIB}


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one command, in bytes, seconds of CPU and numbers of processes with their threads.

    `cpu_seconds` and `file_bytes` hold for each process. `memory_bytes` holds for each process and for all together,
    which is measured five times a second. `folder_bytes` limits the fresh work folder of a sandbox; a folder that the
    caller gives is not limited.
    """

    memory_bytes: int = 1024 * MIB
    cpu_seconds: int = 3_600
    processes: int = 64
    file_bytes: int = 256 * MIB
    folder_bytes: int = 256 * MIB

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise InvalidCommandError(f"limits.{name}", f"must be at least {least}")
            if getattr(self, name) > _MOST:
                raise InvalidCommandError(f"limits.{name}", f"must be at most {_MOST}")
