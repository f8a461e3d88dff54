"""A worker process: the loop that claims and settles, leases, the watchdog, polling, and the isolated last attempt."""
