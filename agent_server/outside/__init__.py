"""Other people's MCP servers, whose tools are called as those of the workspace are.

    servers      mcp.yaml: which servers there are, and what may be used of them
    pins         mcp.lock: what somebody has accepted of their tools
    schemas      their JSON Schemas, bounded and marked
    tools        an accepted tool as a `Tool`
    results      what a call answered, as data of the tool
    connections  one connection to each server in a process, made when it is first needed
    addresses    where a request may go
    http, stdio  the two ways there, both bounded

What a server says is somebody else's text. Nothing of it reaches a model before it was accepted, and then it is marked.
"""
