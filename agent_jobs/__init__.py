"""Agent jobs: creates jobs, runs them and records how they end.

One package is one concept. docs/architecture.md draws the layers: a module imports only from its own package and from
lower layers. Entry points (`api`, `console`, `dialects`, `management`, `tasks`, `admin`) validate a request, call the
packages below, and answer. `lifecycle` alone writes a job's status. `reads` only reads, and begins with the
organisation. The modules beside the packages hold fixed words and pure rules.
"""
