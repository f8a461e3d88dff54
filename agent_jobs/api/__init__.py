"""The native HTTP API: turns requests into service calls, and results into responses.

`auth` authenticates the client, `parsing` and `fields` check its input, `errors` builds error responses, and `paging`
and `filters` handle lists. Each resource has one file with its serializers and views. `base` runs the steps of a
request in the order that decides which error wins. Nothing here touches a table: services write, queries read.
"""
