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

from agent_server.arguments import read_object
from agent_server.bodies import refuse_unstorable
from agent_server.db import storable
from agent_server.errors import InvalidInput

WROTE, WRONG = "you_wrote", "which_is_wrong"
"""The two keys of an object that stands for arguments that are none."""
_SHOWN = 500
_NO_NAME = re.compile(r"[^a-zA-Z0-9_-]")
_LONGEST_NAME = 64


def clean_arguments(tool: str, written: Any, *, cut_off: bool = False) -> str:
    """The JSON text of one object, of a call of `tool`. `written` is as a model wrote it; `cut_off` says that it came to
    no end."""
    try:
        value = dict(written) if isinstance(written, Mapping) else _read(tool, str(written or ""), cut_off=cut_off)
        refuse_unstorable(value, ())
        text = json.dumps(value, allow_nan=False)
    except InvalidInput as error:
        wrong = error.message
    except (ValueError, RecursionError):
        wrong = f"The arguments of {tool} hold NaN or Infinity, which are no JSON numbers"
    else:
        # As it was: caches of providers go by the text.
        return written if isinstance(written, str) and written.lstrip().startswith("{") else text
    shown = str(written)
    return json.dumps(storable({WROTE: shown[:_SHOWN] + ("…" if len(shown) > _SHOWN else ""), WRONG: wrong}))


def _read(tool: str, text: str, *, cut_off: bool) -> dict[str, Any]:
    """The object that a text spells. Raises InvalidInput."""
    if cut_off:
        raise InvalidInput(
            f"The arguments of {tool} were cut off at the longest answer that the model may give; send less at once"
        )
    return read_object(tool, text)


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
