"""The AI SDK UI message stream."""
