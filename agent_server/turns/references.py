"""Events that say what an item says refer to it.

An event that is written with items leaves out what is in their texts, and has a third part that says where it is:

    ["text", {"call": 2, "text": null}, {"text": [0, 12, 400]}]     400 characters from place 12 of the first item of the write
    ["tool_done", {...}, {"output": [1, 0, 80, 1]}]   the same of the second, as the JSON of what is meant
    ["done", {...}, {"usage": [-1]}]                  what the turn has used, which is in its row
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

SHORTEST = 64
"""Fewer characters are not worth it."""
SAID = """case when e.kind = 'told' then (
        select coalesce(jsonb_agg(coalesce(i.text, i.body ->> 'output', i.body #>> '{summary,0,text}', '') order by i.k)
                filter (where i.k is not null), '[]') || to_jsonb(coalesce(cast(t.usage as text), ''))
        from turn t left join item i
            on i.owner_id = t.owner_id and i.conversation_id = t.conversation_id and i.turn_no = t.turn_no
            and i.k > cast(e.body ->> 'after' as int)
            and i.k <= cast(e.body ->> 'after' as int) + cast(e.body ->> 'items' as int)
        where t.owner_id = e.owner_id and t.id = e.turn_id group by t.usage) end as said"""
"""SQL of the texts that the row `e` of `event` refers to, for `restore`. The last one is the turn's `usage`."""


def texts_of(new_items: str, usage: str | None) -> list[str]:
    """The same of items that are being written (`items_json`) with the `usage` of their turn, if it ends."""
    texts = []
    for row in json.loads(new_items):
        text, body = row["text"], row["body"]
        if text is None:
            text = body.get("output") or next((part["text"] for part in body.get("summary", ())), "")
        texts.append(text if isinstance(text, str) else "")
    # In the order in which Postgres keeps the keys: whoever follows gets the same as who reads later.
    used = json.loads(usage or "{}")
    return [*texts, json.dumps({key: used[key] for key in sorted(used, key=lambda key: (len(key), key))})]


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
    if isinstance(value, dict) and value == json.loads(texts[-1]):
        return [-1]
    for n, said in enumerate(texts[:-1]):
        if (at := said.find(text)) >= 0:
            return [n, at, len(text)] if isinstance(value, str) else [n, at, len(text), 1]
    return None


def _read(place: Sequence[int], texts: Sequence[str]) -> Any:
    if place[0] == -1:
        return json.loads(texts[-1])
    n, at, length = place[:3]
    text = texts[n][at : at + length]
    return json.loads(text) if place[3:] else text
