"""Leads: who may leave one, what is kept, and that only staff are shown another's."""

import asyncio
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlmodel import select

from agent_server import Caller, Forbidden, InvalidInput, TooMany, new_id
from agent_server.calls.call import Runtime
from agent_server.phrases import match, template_problems
from tests.tools.conftest import Tools, everything
from tools.diving.leads import capture_lead, list_leads
from tools.diving.models import Lead

CONVERSATION = UUID("0199a1b2-0000-7000-8000-000000000001")


async def leads(tools: Tools) -> list[dict[str, Any]]:
    """All leads there are, as staff see them."""
    items: list[dict[str, Any]] = (await tools(list_leads, limit=100))["items"]
    return items


async def test_a_caller_without_the_scope_is_refused(mine: Tools) -> None:
    with pytest.raises(Forbidden, match="leads:write"):
        await mine.limited_to("leads:read")(capture_lead, email="anna@example.org")
    with pytest.raises(Forbidden, match="leads:read"):
        await mine.limited_to("leads:write")(list_leads)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "email"),
        ({"email": ""}, "email"),
        ({"email": "anna"}, "email"),
        ({"email": "anna@example"}, "email"),
        ({"email": "anna@example.org\x00"}, "email"),
        ({"email": "anna@example.org\nBcc: all@example.org"}, "email"),
        ({"email": f"{'a' * 300}@example.org"}, "email"),
        ({"email": "anna@example.org", "name": "x" * 201}, "name"),
        ({"email": "anna@example.org", "phone": "1" * 41}, "phone"),
        ({"email": "anna@example.org", "interest": "x" * 201}, "interest"),
        ({"email": "anna@example.org", "message": "x" * 2001}, "message"),
        ({"email": "anna@example.org", "conversation_id": str(uuid4())}, "conversation_id"),
        ({"email": "anna@example.org", "source": "agent"}, "source"),
    ],
)
async def test_a_lead_that_is_not_right_is_refused_and_not_kept(
    mine: Tools, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await mine(capture_lead, **arguments)
    assert [f.field for f in refused.value.fields] == [field]
    assert "anna" not in refused.value.message
    assert await leads(mine) == []


async def test_staff_see_the_leads_of_all_callers(mine: Tools, theirs: Tools, runtime: Runtime) -> None:
    await theirs(capture_lead, email="anna@example.org", phone="+49 30 1234")
    await mine(capture_lead, email="ben@example.org")
    staff = Tools(runtime, Caller(id=new_id(), kind="user", scopes=frozenset({"leads:read"})))
    assert [lead["email"] for lead in await leads(staff)] == ["ben@example.org", "anna@example.org"]


async def test_an_address_that_somebody_else_left_shows_and_changes_nothing_of_theirs(
    mine: Tools, theirs: Tools
) -> None:
    talking = replace(theirs, conversation_id=CONVERSATION)
    await talking(capture_lead, email="anna@example.org", name="Anna", phone="+49 30 1234")
    before = await leads(theirs)
    receipt = await replace(mine, conversation_id=CONVERSATION)(capture_lead, email="anna@example.org", name="Eve")
    assert (receipt["name"], receipt["phone"]) == ("Eve", None)
    eves, *others = await leads(theirs)
    assert (eves["id"], eves["name"], eves["phone"]) == (receipt["id"], "Eve", None)
    assert others == before


async def test_whoever_left_a_lead_cannot_read_it_in_the_database_either(
    mine: Tools, runtime: Runtime, me: Caller
) -> None:
    await mine.limited_to("leads:write")(capture_lead, email="anna@example.org")
    async with runtime.database.transaction(me.id, scopes=["leads:write"]) as session:
        assert (await session.execute(select(Lead))).scalars().all() == []
    async with runtime.database.transaction(new_id(), scopes=["leads:read"]) as session:
        assert [lead.email for lead in (await session.execute(select(Lead))).scalars()] == ["anna@example.org"]


async def test_a_receipt_repeats_what_was_given_now_and_not_what_was_known(mine: Tools) -> None:
    talking = replace(mine, conversation_id=CONVERSATION)
    await talking(capture_lead, email="anna@example.org", name="Anna", phone="+49 30 1234")
    receipt = await talking(capture_lead, email="anna@example.org", interest="Palau")
    assert receipt == {
        "id": receipt["id"],
        "email": "anna@example.org",
        "name": None,
        "phone": None,
        "interest": "Palau",
        "message": None,
        "status": "new",
    }


async def test_a_lead_is_kept_with_where_it_came_from(mine: Tools, runtime: Runtime, me: Caller) -> None:
    talking = replace(mine, surface="agent", conversation_id=CONVERSATION)
    receipt = await talking(
        capture_lead, email="Anna@Example.org", name=" Anna ", phone="", interest="Palau", message="In spring"
    )
    (lead,) = await leads(mine)
    assert lead == {
        "id": receipt["id"],
        "email": "anna@example.org",
        "name": "Anna",
        "phone": None,
        "interest": "Palau",
        "message": "In spring",
        "status": "new",
        "source": "agent",
        "conversation_id": str(CONVERSATION),
        "created_at": lead["created_at"],
        "updated_at": lead["updated_at"],
    }
    assert datetime.fromisoformat(lead["created_at"]).tzinfo
    async with everything(runtime.database) as session:
        row = (await session.execute(select(Lead))).scalar_one()
    assert (row.owner_id, row.details) == (me.id, {"caller": "user", "turn": None})


async def test_the_same_address_in_a_conversation_is_one_lead_that_takes_on_what_is_new(mine: Tools) -> None:
    talking = replace(mine, conversation_id=CONVERSATION)
    await talking(capture_lead, email="anna@example.org", name="Anna", interest="Palau")
    (before,) = await leads(mine)
    await talking(capture_lead, email="ANNA@example.org", phone="+49 30 1234", interest="Bonaire")
    (after,) = await leads(mine)
    assert after == {**before, "phone": "+49 30 1234", "interest": "Bonaire", "updated_at": after["updated_at"]}
    assert after["updated_at"] > before["updated_at"]


async def test_the_same_address_sent_twice_at_once_is_one_lead(mine: Tools) -> None:
    talking = replace(mine, conversation_id=CONVERSATION)
    await asyncio.gather(*(talking(capture_lead, email="anna@example.org") for _ in range(5)))
    assert len(await leads(mine)) == 1


async def test_another_conversation_and_no_conversation_make_leads_of_their_own(mine: Tools) -> None:
    for conversation_id in (CONVERSATION, new_id(), None):
        await replace(mine, conversation_id=conversation_id)(capture_lead, email="anna@example.org")
    await mine(capture_lead, email="anna@example.org", interest="Palau")
    assert len(await leads(mine)) == 4


@pytest.mark.parametrize("conversation_id", [CONVERSATION, None])
async def test_what_says_the_same_is_stored_once_with_the_same_receipt(
    mine: Tools, theirs: Tools, runtime: Runtime, conversation_id: UUID | None
) -> None:
    talking = replace(mine, conversation_id=conversation_id)
    same = ({"email": "anna@example.org", "name": "Anna"}, {"email": "Anna@Example.org", "name": " Anna ", "phone": ""})
    receipts = await asyncio.gather(*(talking(capture_lead, **same[n % 2]) for n in range(6)))
    assert all(receipt == receipts[0] for receipt in receipts)
    await replace(theirs, conversation_id=conversation_id)(capture_lead, **same[0])
    async with everything(runtime.database) as session:
        rows = (await session.execute(select(Lead))).scalars().all()
    assert [str(row.id) for row in rows if row.owner_id == mine.caller.id] == [receipts[0]["id"]]
    assert len(rows) == 2


async def test_a_caller_leaves_no_more_than_some_leads_an_hour_and_another_is_not_held_up(
    mine: Tools, theirs: Tools
) -> None:
    for number in range(20):
        await mine(capture_lead, email=f"{number}@example.org")
    with pytest.raises(TooMany) as refused:
        await mine(capture_lead, email="more@example.org")
    assert refused.value.retry_after is not None
    await theirs(capture_lead, email="anna@example.org")
    assert len(await leads(mine)) == 21


async def test_leads_come_in_pages_newest_first(mine: Tools) -> None:
    for number in range(3):
        await mine(capture_lead, email=f"{number}@example.org")
    first = await mine(list_leads, limit=2)
    rest = await mine(list_leads, limit=2, cursor=first["next_cursor"])
    assert [lead["email"] for lead in first["items"] + rest["items"]] == [
        "2@example.org",
        "1@example.org",
        "0@example.org",
    ]
    assert rest["next_cursor"] is None
    with pytest.raises(InvalidInput):
        await mine(list_leads, cursor="latest")


def test_a_person_fills_in_its_form_and_every_phrase_can_be_used() -> None:
    assert capture_lead.form
    assert template_problems(capture_lead) == []


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("Please have someone write to me about liveaboards", {"interest": "liveaboards"}),
        ("please have someone contact me", {}),
        ("Have someone contact me about a trip to Palau, please", {"interest": "a trip to Palau"}),
        ("Can somebody call me about nitrox?", {"interest": "nitrox"}),
        ("Could a person get back to me about Sipadan?", {"interest": "Sipadan"}),
        ("I would like to be contacted about the Maldives", {"interest": "the Maldives"}),
        ("I want to be contacted", {}),
        (
            "My e-mail is anna@example.org, contact me about the Galapagos",
            {"email": "anna@example.org", "interest": "the Galapagos"},
        ),
        ("How do I contact a dive centre?", None),
        ("Can someone with asthma dive?", None),
    ],
)
def test_a_plain_request_is_recognised(message: str, arguments: dict[str, str] | None) -> None:
    found = match(message, [capture_lead])
    assert (found and found.arguments) == arguments
