"""Calls that go on without their client: MCP's tasks, and calls that a client may send again by a key of its own."""
