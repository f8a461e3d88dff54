"""The native HTTP API: what the documents promise, in the words of HTTP.

`auth` says who asks, `parsing` what a client may send, `errors` how a refusal looks, `paging` and `filters` how lists
are cut; each resource then has one file with its serializers and views. `base` puts a request through these steps in
the order that decides which error wins. Nothing here touches a table: services write, queries read.
"""
