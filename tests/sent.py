"""A check of every request that any test has a scripted model sent: it is made again from what is stored.

It runs when a test is over and before its database is gone.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import takewhile
from typing import Any

import pytest
from sqlalchemy import text

from agent_server.db import Database
from agent_server.errors import NotFound
from agent_server.models.choice import OFFLINE
from agent_server.requests.rebuild import rebuild_requests
from agent_server.testing import ScriptedOpenAI
from tests.pools import Pools

_received: list[dict[str, Any]] = []
"""What scripted models were sent since the test began."""


@pytest.fixture(scope="session", autouse=True)
def _listening() -> Iterator[None]:
    take = ScriptedOpenAI.next

    def note(self: ScriptedOpenAI, request: dict[str, Any]) -> Any:
        _received.append({**json.loads(json.dumps(request)), "model": None})
        return take(self, request)

    # The double of a provider, which tests replace the steps of, and some the whole of `next`.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptedOpenAI, "next", note)
        yield


@pytest.fixture
def check_requests(request: pytest.FixtureRequest, pools: Pools) -> Callable[[str], None]:
    """Asserts that what is stored in the database at an address of requests to scripted models says what they were sent."""
    _received.clear()

    def check(url: str) -> None:
        if _received and request.node.get_closest_marker("edits_items") is None:
            assert pools.run(url, partial(find_differences, received=list(_received))) == []

    return check


async def find_differences(database: Database, received: list[dict[str, Any]]) -> list[str]:
    """What cannot be made again of the requests of a database's turns, or is another than a model `received`."""
    found = []
    async with database.pool.connect() as connection:
        await connection.execute(text("set local role none"))  # the owner of the tables, who is given all rows
        turns = (await connection.execute(text(_TURNS))).all()
    for owner_id, turn_id, answers in turns:
        async with database.transaction(owner_id) as session:
            try:
                sent = await rebuild_requests(session, owner_id, turn_id)
            except NotFound as error:
                found.append(f"{turn_id}: {error.message}")
                continue
        if len(sent) < answers:
            found.append(f"{turn_id}: {answers} answers of {len(sent)} requests")
        for request in sent:
            if request.provider == OFFLINE or request.is_exact is None:
                continue
            # A recorder between the two names its model otherwise.
            body = {**json.loads(request.body), "model": None}
            if not request.is_exact:
                found.append(f"{turn_id}: request {request.no} is not what was stored: {body}")
            elif body not in received:
                found.append(f"{turn_id}: request {request.no} is another: {describe_difference(body, received)}")
    return found


def describe_difference(body: dict[str, Any], received: list[dict[str, Any]]) -> str:
    """Where `body` begins to differ from that received request which it is most alike."""
    text_of = json.dumps(body)
    same, nearest = max((_count_same(text_of, each), each) for each in map(json.dumps, received))
    return f"{text_of[max(same - 200, 0) : same + 500]} in place of {nearest[max(same - 200, 0) : same + 500]}"


def _count_same(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


_TURNS = """
    select t.owner_id, t.id, (select count(*) from item i where i.owner_id = t.owner_id and i.turn_id = t.id
        and i.conversation_id = t.conversation_id and i.turn_no = t.turn_no and i.model is not null)
    from turn t where t.calls_kept and t.finished_at is not null"""
