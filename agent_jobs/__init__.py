"""Agent jobs: what is asked for, when it runs, how it ends.

`states` names the statuses and the moves between them; `services.transitions` is the only writer of `status`;
`queries` is every read, org first; doors (`api`, `tasks`, commands) call services and queries and nothing below.
"""
