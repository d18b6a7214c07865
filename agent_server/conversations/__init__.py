"""Conversations, and the items of their turns."""
