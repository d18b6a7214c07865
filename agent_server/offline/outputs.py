"""A tool's output in plain words."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agent_server.calls.forms import gives_form
from agent_server.tool import Tool

# A call that failed gives the model `code: message` as its output, which is no JSON.
_ERROR = re.compile(r"([a-z]+(?:_[a-z]+)*): (.+)", re.DOTALL)
_NAMED_BY = ("title", "name", "heading", "label", "subject", "email")
_LISTED_IN = ("hits", "items", "results")
# Keys that are for programs: a person has no use for an id or a cursor.
_UNTOLD = re.compile(r"(.*_)?ids?|(created|updated)_at|cursor|next_cursor|citation|slug|score")
# An answer in the chat, not a dump: the whole result is in the events of the turn.
_MOST_FIELDS, _MOST_CHARACTERS = 8, 300


def tell(name: str, tool: Tool[..., Any] | None, output: str) -> str:
    """A tool's output in plain words. `tool` is None where `name` is none of the workspace's tools."""
    title = tool.title if tool else name_in_words(name)
    try:
        value = json.loads(output)
    except ValueError:
        error = _ERROR.fullmatch(output.strip())
        return f"{title} did not work: {_sentence(error[2])}" if error else f"{title}: {output.strip()}"
    if tool is not None and gives_form(tool) and isinstance(value, dict):
        return f"Please fill in the form “{value.get('title', title)}” and send it."
    if tool is not None and tool.destructive and isinstance(value, dict) and "question" in value:
        return f"This needs your word first. {value['question']} Nothing has been done yet."
    done = tool is not None and tool.effect != "read"
    return _render(f"{title}, done" if done else title, value)


def _render(title: str, value: Any) -> str:
    listed = _list_in(value)
    if listed is not None:
        if not listed:
            return f"{title}: there is nothing to show."
        return f"{title}:\n\n" + "\n".join(f"- {_line(entry)}" for entry in listed)
    if not isinstance(value, Mapping):
        return f"{title}." if value is None else f"{title}: {_value(value)}"
    name, fields = _describe(value)
    head = f"{title}: **{name}**" if name else f"{title}."
    return "\n".join([head, *([""] if fields else []), *(f"- {label}: {text}" for label, text in fields)])


def _list_in(value: Any) -> Sequence[Any] | None:
    """The entries where a result is a list or holds one and little else."""
    if isinstance(value, list):
        return value
    if isinstance(value, Mapping):
        for key in _LISTED_IN:
            if isinstance(value.get(key), list):
                found: Sequence[Any] = value[key]
                return found
        # An object with one list and no name is only the wrapper of the list. With a name it is a thing of its own.
        lists = [v for v in value.values() if isinstance(v, list)]
        if (
            len(lists) == 1
            and not any(value.get(key) for key in _NAMED_BY)
            and all(isinstance(v, dict) for v in lists[0])
        ):
            return lists[0]
    return None


def _line(entry: Any) -> str:
    if not isinstance(entry, Mapping):
        return _value(entry)
    name, fields = _describe(entry)
    mark = f" [{entry['citation']}]" if "citation" in entry else ""
    rest = "; ".join(f"{label.lower()}: {text}" for label, text in fields)
    return (f"**{name}**" + (f" ({rest})" if rest else "") if name else rest) + mark


def _describe(entry: Mapping[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    """What an object is called and what else a person wants to know of it."""
    by = next((key for key in _NAMED_BY if isinstance(entry.get(key), str) and entry[key]), None)
    fields = [
        (name_in_words(key), text)
        for key, value in entry.items()
        if key != by and not _UNTOLD.fullmatch(key) and (text := _value(value))
    ]
    return _short(str(entry[by])) if by else "", fields[:_MOST_FIELDS]


def _value(value: Any) -> str:
    match value:
        case None | "" | []:
            return ""
        case bool():
            return "yes" if value else "no"
        case list():
            return _short(", ".join(filter(None, map(_value, value))))
        case Mapping():
            return _short(
                ", ".join(f"{name_in_words(k).lower()} {text}" for k, v in value.items() if (text := _value(v)))
            )
        case _:
            return _short(str(value))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS].rsplit(" ", 1)[0] + " …"


def name_in_words(name: str) -> str:
    """`due_date` as "Due date"."""
    return name.replace("_", " ").capitalize()


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."
