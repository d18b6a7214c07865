"""Answers in the words of the content without a language model."""
