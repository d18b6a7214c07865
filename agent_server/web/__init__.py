"""The chat page and the Markdown it shows.

`static/` has own ES modules without a build step, `render` the Markdown.
"""
