"""Tables and charts as results of tools.

A tool returns a `Table` or a `Chart`, or a model with fields that are some. `tables` and `chart` are the types, `specs` says
what a chart may be, `telling` says both in Markdown, and `drawing` makes pictures of charts in a process of their own.
"""
