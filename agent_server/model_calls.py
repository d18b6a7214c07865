"""A model's call of a tool, as it is kept and sent back to a provider.

What a model writes need not be what was asked for. No provider accepts everything, and the strictest accept this:

    arguments   the JSON text of one object, of numbers that JSON has and text that can be stored
    name, id    [a-zA-Z0-9_-]{1,64} (OpenAI, Anthropic)

Arguments that are none are kept in an object that says so (`refused_arguments`). No tool is called with that.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from agent_server.db import storable

WROTE, WRONG = "you_wrote", "which_is_wrong"
"""The two keys of an object that stands for arguments that are none."""
NESTING = 90
"""Deepest arguments. Python's own reader of JSON, and those of some providers, go little further."""
_SHOWN = 500
_NO_NAME = re.compile(r"[^a-zA-Z0-9_-]")
_LONGEST_NAME = 64


def clean_arguments(written: Any, *, cut_off: bool = False) -> str:
    """The JSON text of one object. `written` is as a model wrote it; `cut_off` says that it came to no end."""
    if isinstance(written, Mapping):
        value, wrong = dict(written), None
    else:
        value, wrong = _read(str(written or ""), cut_off=cut_off)
    if wrong is None:
        try:
            # As it was, where nothing had to be changed: a provider may have signed it, and caches go by the text.
            text = json.dumps(storable(value), allow_nan=False)
            return written if isinstance(written, str) and value == storable(value) and written.strip() else text
        except RecursionError:
            wrong = f"it is nested more than {NESTING} deep"
        except ValueError:
            wrong = "it holds NaN or Infinity, which are no JSON numbers"
    shown = str(written)
    return json.dumps(storable({WROTE: shown[:_SHOWN] + ("…" if len(shown) > _SHOWN else ""), WRONG: wrong}))


def _read(text: str, *, cut_off: bool) -> tuple[Any, str | None]:
    """The object that a text spells, or else what is wrong with it."""
    if cut_off:
        return None, "it was cut off at the longest answer that the model may give; send less at once"
    if not text.strip():
        return {}, None
    try:
        value, end = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode(text.strip())
    except RecursionError:
        return None, f"it is nested more than {NESTING} deep"
    except _NoNumber as error:
        return None, f"it holds {error}, which is no JSON number"
    except ValueError as error:
        return None, f"it is not JSON ({error}); send one JSON object"
    if text.strip()[end:].strip():
        return None, "there is something behind the object; send one JSON object"
    if not isinstance(value, dict):
        return None, 'it is no object; send one JSON object, as in {"title": "..."}'
    if _is_deeper(value, NESTING):
        return None, f"it is nested more than {NESTING} deep"
    return value, None


class _NoNumber(ValueError):
    pass


def _refuse_constant(name: str) -> Any:
    raise _NoNumber(name)


def _is_deeper(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, list) and (levels == 0 or any(_is_deeper(item, levels - 1) for item in value))


def refused_arguments(arguments: Mapping[str, Any]) -> str | None:
    """What is wrong with the arguments that this object stands for. None of other arguments."""
    wrong = arguments.get(WRONG)
    return wrong if arguments.keys() == {WROTE, WRONG} and isinstance(wrong, str) else None


def clean_name(name: Any) -> str:
    """A name of a tool or of a call that every provider takes back."""
    return _NO_NAME.sub("_", str(name or ""))[:_LONGEST_NAME] or "unknown"


def is_clean_name(name: Any) -> bool:
    """Whether every provider takes this name back as it is."""
    return isinstance(name, str) and bool(name) and clean_name(name) == name
