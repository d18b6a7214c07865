"""One attempt of a turn."""
