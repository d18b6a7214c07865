"""The chat page (`static/`, own ES modules without a build step) and the Markdown it shows (`render`)."""
