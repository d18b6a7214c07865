"""A client of Chat Completions on plain HTTP and JSON.

It builds no object per chunk that nobody reads, and walks over no typed request. With `AGENT_SERVER_MODEL_CLIENT=sdk`
the SDK's own client does its work (`models.sdk`).
"""
