"""Events that say what an item says refer to it.

An event that is written with items leaves out what is in their texts, and has a third part that says where it is:

    ["text", {"call": 2, "text": null}, {"text": [0, 12, 400]}]     400 characters from place 12 of the first item of the write
    ["tool_done", {...}, {"output": [1, 0, 80, 1]}]   the same of the second, as the JSON of what is meant
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

SHORTEST = 64
"""Fewer characters are not worth it."""
SAID = """case when e.kind = 'told' then (
        select json_agg(coalesce(i.text, i.body ->> 'output', i.body #>> '{summary,0,text}', '') order by i.k)
        from turn t join item i
            on i.owner_id = t.owner_id and i.conversation_id = t.conversation_id and i.turn_no = t.turn_no
        where t.owner_id = e.owner_id and t.id = e.turn_id and i.k > cast(e.body ->> 'after' as int)
          and i.k <= cast(e.body ->> 'after' as int) + cast(e.body ->> 'items' as int)) end as said"""
"""SQL of the texts that the row `e` of `event` refers to, for `restore`."""


def texts_of(new_items: str) -> list[str]:
    """The same of items that are being written (`items_json`)."""
    texts = []
    for row in json.loads(new_items):
        text, body = row["text"], row["body"]
        if text is None:
            text = body.get("output") or next((part["text"] for part in body.get("summary", ())), "")
        texts.append(text if isinstance(text, str) else "")
    return texts


def refer(kind: str, body: Mapping[str, Any], texts: Sequence[str]) -> list[Any]:
    """An event as it is stored, with references to `texts` where they say the same."""
    places = {name: place for name, value in body.items() if (place := _find(value, texts)) is not None}
    if not places:
        return [kind, body]
    # the fields keep their order: a stream is the same each time
    return [kind, {name: None if name in places else value for name, value in body.items()}, places]


def restore(body: Mapping[str, Any], places: Mapping[str, Sequence[int]], texts: Sequence[str]) -> dict[str, Any]:
    """The fields of an event as they were before `refer`."""
    return {name: _read(places[name], texts) if name in places else value for name, value in body.items()}


def _find(value: Any, texts: Sequence[str]) -> list[int] | None:
    if not isinstance(value, str | list | dict):
        return None
    # As `calls.ledger.outcome_text` writes it.
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) < SHORTEST:
        return None
    for n, said in enumerate(texts):
        if (at := said.find(text)) >= 0:
            return [n, at, len(text)] if isinstance(value, str) else [n, at, len(text), 1]
    return None


def _read(place: Sequence[int], texts: Sequence[str]) -> Any:
    n, at, length = place[:3]
    text = texts[n][at : at + length]
    return json.loads(text) if place[3:] else text
