"""`manage.py up`: PostgreSQL, Redis, web, two workers and beat in one terminal, started, watched and stopped together.

command        the command line; allows one `up` per data folder
stack          the processes: how each starts, and the order of starting and stopping
supervisor     watches processes, restarts them, and stops all of them on request
process_output  prints the lines of each process, without known noise
data_folder    files beside the databases: addresses, secrets, process ids

`config.embedded` has the servers, `config.demo` the demo. This process loads no Django, so it stays small and has one
thread: Linux ends a child (`tied_to_parent`) with the very thread that started it.

macOS has no such tie: a kill -9 of this process leaves the others running. The next `up` on the same data folder finds
them by `processes.json`, PostgreSQL's pid file and Redis' record, and stops them first.
"""

from config.devstack.command import main
from config.devstack.stack import NOT_AS_ROOT

__all__ = ["NOT_AS_ROOT", "main"]
