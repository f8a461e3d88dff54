"""The console: the pages that people use in a browser. Templates and htmx; works for reading without script.

One module per page, named after what it shows. Views are thin: they read through `agent_jobs.reads` and act through the
same services as the API. Filters have the API's names and its parsers. `visits` checks who may see what; `frame` fills
the navigation; the tags in `templatetags` draw the parts that every page uses.
"""
