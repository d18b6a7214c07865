"""REST, the chat stream and the page's files: translation only; every rule is below."""
