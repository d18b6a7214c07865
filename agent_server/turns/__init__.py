"""Turns: each is accepted once and runs once at a time, and its tools' effects happen once."""
