"""Values as YAML that people read, edit and compare, and that reads as the same values."""

from typing import Any

import yaml

_BREAKS = frozenset("\x85\u2028\u2029")
"""What YAML 1.1 takes for the end of a line beside the usual ones. PyYAML folds them where it does not escape them."""


def dump_yaml(value: Any, *, width: int = 110) -> str:
    """A value as YAML. Texts of several lines are blocks, and nothing is an alias of something above it."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if not _BREAKS.isdisjoint(text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
