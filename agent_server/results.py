"""How a tool's result reads. The offline answer, the page and the command line all say it so, in Markdown.

A tool may declare a template for its result. Without one, or where it fails, the result reads like this:

    a list of 4 and more   a table, where each entry has the same 2 to 5 short fields
    another list           an entry in two lines: its name with its short fields, and its longest text
    an object              its name and three lines
    a text                 its paragraphs

What is for programs is not said: ids, cursors, slugs, scores, times of rows. What is left out is counted.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import structlog

from agent_server.calls.forms import gives_form
from agent_server.calls.jobs import JobList
from agent_server.calls.ledger import OutcomeUnknown
from agent_server.charts.telling import split_figures, tell_figures
from agent_server.media import tell_parts
from agent_server.result_templates import TemplateFailed, render_result
from agent_server.shapes import ANYTHING, Shape
from agent_server.tool import Tool
from agent_server.wording import escape_markdown, one_line, shorten, word_label, word_value

log = structlog.get_logger()

# A call that failed gives the model `code: message` as its output, which is no JSON.
_ERROR = re.compile(r"([a-z]+(?:_[a-z]+)*): (.+)", re.DOTALL)
_NAME = re.compile(r"(?<!['\"\w])[a-z]+(?:_[a-z]+)+(?!['\"\w])")
_NAMED_BY = ("title", "name", "heading", "label", "subject", "email")
_LISTED_IN = ("hits", "items", "results")
_UNTOLD = re.compile(r"(.*_)?(ids?|uuid)|(created|updated|modified)_at|cursor|next_cursor|citation|slug|score")
_ID = re.compile("[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")
# Marks of Markdown in a passage, which is told on one line. A link is its text.
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()\s]*\)")
_MARKS = re.compile(r"^#+ .*$|^[-*] |[*`>|]+", re.MULTILINE)

_JOB_STATES = {
    "running": "still at work",
    "asking": "waits for an answer of yours",
    "done": "done",
    "failed": "failed",
    "cancelled": "cancelled",
}
_MOST_READ = 40
"""Fields of an object that are looked at."""
_SHORT, _LONG = 60, 200
"""Characters of what stands beside other things on a line, and of a text with a line of its own."""
_MOST_ROWS, _MOST_BULLETS, _MOST_LINES, _MOST_ON_LINE = 20, 10, 3, 5
_FEWEST_ROWS, _COLUMNS = 4, range(2, 6)
_MOST_PARAGRAPHS, _LONGEST_PARAGRAPH = 20, 1_000


def tell(name: str, tool: Tool[..., Any] | None, output: str) -> str:
    """A tool's output, as models read it, in plain words with its citations.

    `tool` is None where `name` is none of the workspace's tools.
    """
    failed = _ERROR.fullmatch(output.strip())
    return tell_failure(name, tool, output) if failed else tell_result(name, tool, output, citing=True)


def tell_failure(name: str, tool: Tool[..., Any] | None, error: str) -> str:
    """How a call failed that has the error `code: message`, in a sentence for its user."""
    failed = _ERROR.fullmatch(error.strip())
    if failed is not None and failed[1] == OutcomeUnknown.code:
        title = escape_markdown(tool.title if tool else word_label(name))
        return f"{title} was cut off, and nobody knows whether it happened. Please check before you ask for it again."
    first, *hints = one_line(failed[2] if failed else error).split("; ")
    # A hint that names a tool or an argument is for the model that made the call.
    message = "; ".join([first, *(hint for hint in hints if not _NAME.search(hint))])
    message = shorten(_NAME.sub(lambda found: found[0].replace("_", " "), message), _LONGEST_PARAGRAPH)
    end = "" if message.endswith((".", "!", "?")) else "."
    return f"That did not work. {escape_markdown(message[:1].upper() + message[1:])}{end}"


def tell_result(name: str, tool: Tool[..., Any] | None, value: Any, *, citing: bool = False) -> str:
    """The result of a call in plain words. With `citing` it is part of an answer: passages carry the numbers by which it
    cites them, and a call that waits for the user is not asked about a second time.

    `value` may also be the JSON of the result, as it is stored.
    """
    value = _read_json(value)
    if isinstance(value, Mapping) and value.get("done") is False and {"confirmation", "question"} <= value.keys():
        # Beside an answer the question stands already, on the page as a card with its buttons.
        question = "" if citing else f"{escape_markdown(str(value['question']))} "
        return f"{question}Nothing has been done yet{': it waits for your yes' if citing else ''}."
    if tool is not None and tool.has_parts:
        return tell_parts(value)
    if tool is not None and isinstance(value, Mapping) and tool.long and {"job", "state", "note"} <= value.keys():
        return f"“{escape_markdown(tool.title)}” has begun, and goes on in the background."
    if tool is not None and isinstance(value, Mapping) and tool.has_result(JobList):
        return "\n\n".join(map(_tell_job, value["jobs"])) or "There are no jobs."
    if tool is not None and isinstance(value, Mapping) and gives_form(tool):
        return f"Please fill in the form “{escape_markdown(str(value.get('title', tool.title)))}” and send it."
    rest, figures = split_figures(value)
    if not figures:
        return _tell_data(name, tool, value, value, citing)
    only_figures = rest is None and (tool is None or not tool.result)
    said = "" if only_figures else _tell_data(name, tool, value, rest, citing)
    return "\n\n".join(filter(None, [said, tell_figures(figures)]))


def _tell_data(name: str, tool: Tool[..., Any] | None, value: Any, rest: Any, citing: bool) -> str:
    """A result by its template, or else what it has beside figures, the `rest`."""
    if tool is None:
        return _describe(rest, ANYTHING, citing)
    if tool.result:
        try:
            return render_result(tool.result, value)
        except TemplateFailed as error:
            log.warning("result.template_failed", tool=name, error=str(error))
    if tool.effect == "read":
        return _describe(rest, tool.shape, citing)
    if rest is None or rest in ("", [], {}):
        return "Done."
    told = _describe(rest, tool.shape, citing)
    return f"Done: {told}" if told.startswith("**") else f"Done.\n\n{told}"


def _tell_job(job: Mapping[str, Any]) -> str:
    at = job["progress"] or {}
    count = "" if at.get("done") is None else f"{at['done']:g}" + (f" of {at['total']:g}" if at.get("total") else "")
    said = ": ".join(filter(None, [one_line(at.get("message") or ""), count]))
    head = f"**{escape_markdown(job['title'])}**: {_JOB_STATES[job['state']]}"
    told = f"{head} ({escape_markdown(said)})." if said else f"{head}."
    return f"{told}\n\n{job['text']}" if job["text"] else told


def _read_json(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def _describe(value: Any, shape: Shape, citing: bool) -> str:
    if (found := _find_list(value, shape)) is not None:
        whole = value if isinstance(value, Mapping) else {}
        return _list(*found, whole, citing)
    if isinstance(value, Mapping):
        return _object(_read(value, shape))
    if isinstance(value, str):
        lines = [line for line in value.splitlines() if line.strip()]
        told = [escape_markdown(shorten(one_line(line), _LONGEST_PARAGRAPH)) for line in lines[:_MOST_PARAGRAPHS]]
        return "\n\n".join([*told, *_more(len(lines) - _MOST_PARAGRAPHS)]) or "There is nothing to show."
    return escape_markdown(word_value(value)) or "There is nothing to show."


def _find_list(value: Any, shape: Shape) -> tuple[Sequence[Any], Shape] | None:
    """The entries where a result is a list or holds one and little else."""
    if isinstance(value, list):
        return value, shape.entries()
    if not isinstance(value, Mapping):
        return None
    for key in _LISTED_IN:
        if isinstance(value.get(key), list):
            return value[key], shape.find_field(key).entries()
    # An object with one list and no name is only the wrapper of the list. With a name it is a thing of its own.
    lists = [(key, v) for key, v in value.items() if isinstance(v, list)]
    if len(lists) == 1 and not any(value.get(key) for key in _NAMED_BY):
        ((key, entries),) = lists
        if all(isinstance(entry, dict) for entry in entries):
            return entries, shape.find_field(key).entries()
    return None


@dataclass(frozen=True)
class _Field:
    """A field in words, which are not escaped yet."""

    label: str
    text: str

    @property
    def is_short(self) -> bool:
        return len(self.text) <= _SHORT

    def say(self, longest: int = _LONG) -> str:
        label = f"{escape_markdown(self.label)}: " if self.label else ""
        return f"{label}{escape_markdown(shorten(self.text, longest))}"


@dataclass(frozen=True)
class _Entry:
    """An object in words. `called` is the label of what names it, and `number` that of its citation."""

    name: str
    called: str
    fields: Sequence[_Field]
    number: int | None = None

    @property
    def bold(self) -> str:
        return f"**{escape_markdown(shorten(self.name, _LONG))}**" if self.name else ""


def _read(entry: Mapping[str, Any], shape: Shape) -> _Entry:
    """What an object is called and what else a person wants to know of it."""
    if isinstance(entry.get("heading"), str) and isinstance(entry.get("text"), str):
        return _read_passage(entry)
    by = next((key for key in _NAMED_BY if isinstance(entry.get(key), str) and one_line(entry[key])), None)
    fields = [
        _Field(_label(key, shape), _word(key, value, shape))
        for key, value in islice(entry.items(), _MOST_READ)
        if key != by and not _is_for_programs(key, value)
    ]
    return _Entry(one_line(entry[by]) if by else "", _label(by, shape) if by else "", fields)


def _read_passage(hit: Mapping[str, Any]) -> _Entry:
    number = hit.get("citation")
    text = one_line(_MARKS.sub(" ", _LINK.sub(r"\1", shorten(hit["text"], 4 * _LONG))))
    return _Entry(one_line(hit["heading"]), "Heading", [_Field("", text)], number if isinstance(number, int) else None)


def _is_for_programs(key: str, value: Any) -> bool:
    return bool(_UNTOLD.fullmatch(key)) or (isinstance(value, str) and bool(_ID.fullmatch(value)))


def _label(key: str, shape: Shape) -> str:
    return shorten(shape.find_field(key).find_title(key) or word_label(key), _SHORT)


def _word(key: str, value: Any, shape: Shape) -> str:
    field = shape.find_field(key)
    if isinstance(value, list) and value and all(isinstance(part, Mapping) for part in value):
        # Things of their own are named; a list of all that is known of each would not be read.
        names = [entry.name for entry in (_read(part, field.entries()) for part in value[:_MOST_ROWS])]
        if all(names):
            return word_value([*names, *(f"{n} more" for n in [len(value) - _MOST_ROWS] if n > 0)])
    if isinstance(value, str) and field.is_word():
        return word_value(value).replace("_", " ")
    if isinstance(value, list) and field.entries().is_word():
        return word_value([str(part).replace("_", " ") for part in value])
    return word_value(value, key)


def _object(entry: _Entry) -> str:
    lines = [f"- {line}" for line in _lines([field for field in entry.fields if field.text])]
    if entry.bold:
        return "\n".join([entry.bold, "", *lines]).strip()
    return "\n".join(lines) or "There is nothing to show."


def _lines(fields: Sequence[_Field]) -> Sequence[str]:
    """The fields of an object on a few lines: one each where that is enough, else the short ones together."""
    if len(fields) <= _MOST_LINES:
        return [field.say() for field in fields]
    brief = [field for field in fields if field.is_short][:_MOST_ON_LINE]
    long = [field for field in fields if not field.is_short][: _MOST_LINES - bool(brief)]
    last = [field.say() for field in brief] + _more(len(fields) - len(brief) - len(long))
    return [*(field.say() for field in long), *([" · ".join(last)] if last else [])]


def _list(listed: Sequence[Any], shape: Shape, whole: Mapping[str, Any], citing: bool) -> str:
    if not listed:
        return "There are none."
    total = whole.get("total")
    count = total if isinstance(total, int) and total > len(listed) else len(listed)
    rows = [_read(entry, shape) for entry in listed[:_MOST_ROWS] if isinstance(entry, Mapping)]
    if len(rows) == len(listed[:_MOST_ROWS]) and (table := _table(rows)):
        lines, shown = table, len(rows)
    else:
        some = listed[:_MOST_BULLETS]
        lines, shown = [f"- {_bullet(entry, shape, citing)}" for entry in some], len(some)
    more = _more(count - shown)
    if not more and whole.get("next_cursor"):
        more = ["There are more."]
    return "\n".join(lines) + "".join(f"\n\n{line[0].upper()}{line[1:].removesuffix('.')}." for line in more)


def _more(count: int) -> list[str]:
    return [f"and {count} more"] if count > 0 else []


def _table(rows: Sequence[_Entry]) -> list[str]:
    """The lines of a table, none where the entries do not make one."""
    columns = [field.label for field in rows[0].fields]
    if len(rows) < _FEWEST_ROWS or any([field.label for field in row.fields] != columns for row in rows):
        return []
    told = [n for n in range(len(columns)) if any(row.fields[n].text for row in rows)]
    heads = [rows[0].called] * bool(rows[0].called) + [columns[n] for n in told]
    cells = [[row.name] * bool(rows[0].called) + [row.fields[n].text for n in told] for row in rows]
    if (
        len(heads) not in _COLUMNS
        or "" in heads
        or any(row.called != rows[0].called or row.number is not None for row in rows)
        or any(len(text) > _SHORT for row in cells for text in row)
    ):
        return []
    return [_row(heads), _row(["---"] * len(heads), escape=False), *map(_row, cells)]


def _row(cells: Sequence[str], escape: bool = True) -> str:
    return f"| {' | '.join(map(escape_markdown, cells) if escape else cells)} |"


def _bullet(entry: Any, shape: Shape, citing: bool) -> str:
    if not isinstance(entry, Mapping):
        return escape_markdown(word_value(entry)) or "–"
    read = _read(entry, shape)
    fields = [field for field in read.fields if field.text]
    brief = [field.say() for field in fields if field.is_short and field.label][:_MOST_ON_LINE]
    long = next((field.say() for field in fields if not (field.is_short and field.label)), "")
    first = " · ".join(filter(None, [read.bold, *brief]))
    mark = f" [{read.number}]" if citing and read.number is not None else ""
    return "\n  ".join(filter(None, [first, long])) + mark or "–"
