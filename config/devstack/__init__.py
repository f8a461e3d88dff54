"""`manage.py up`: PostgreSQL, Redis, web, two workers and beat in one terminal, started, watched and stopped together.

command        the command line, and one `up` for each data folder
stack          which processes there are, how each is started, in what order they start and stop
supervisor     processes that are watched, started again when they end, and ended when somebody asks
printing       what is seen in the terminal
data_folder    what is kept beside the databases: addresses, secrets, process ids

The servers themselves are `config.embedded`, the demo is `config.demo`. No Django is loaded in this process, so that it
stays small and has one thread: Linux ends a child (`tied_to_parent`) with the very thread that started it.

On macOS, which has no such tie, a kill -9 of this process leaves the others running until the next `up` on the same
data folder: that one finds them by `processes.json`, PostgreSQL's pid file and Redis' record, and stops them first.
"""

from config.devstack.command import main
from config.devstack.stack import NOT_AS_ROOT, QUEUES

__all__ = ["NOT_AS_ROOT", "QUEUES", "main"]
