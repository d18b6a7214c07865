"""Settings that keep their vendor's name."""

from typing import Any

from pydantic import AliasChoices, Field


def vendor_setting(name: str) -> Any:
    """A setting that is read from the vendor's own variable."""
    # Both spellings: the first is for arguments in Python, the second is the variable.
    return Field(default=None, validation_alias=AliasChoices(name.lower(), name))
