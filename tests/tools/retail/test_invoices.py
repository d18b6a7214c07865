"""Invoices: their numbers, and that credit notes put them right."""

import asyncio
import base64
import importlib.util
from typing import Any

import pytest

from agent_server import Conflict, InvalidInput, now
from agent_server.testing import AgentServer, run_agent_server
from agent_server.workspace import Workspace
from tests.tools.retail.shop import add_product, draft, staff
from tools.retail.models import Invoice
from tools.retail.money import Line, add_up
from tools.retail.repository import SeriesRepository
from tools.retail.views import print_invoice


async def _place(clerk: Any, customer: str, **items: int) -> int:
    number = await draft(clerk, customer, **items)
    await clerk.call("place_order", order=number)
    return number


async def test_numbers_have_no_gap_and_none_twice_over_two_servers_whatever_is_rolled_back(
    agent_server: AgentServer, agent_workspace: Workspace, agent_database: str
) -> None:
    async with run_agent_server(agent_workspace, agent_database) as second:
        clerks = [staff(agent_server), staff(second)]
        await clerks[0].call("add_customer", name="Anna")
        await add_product(clerks[0], "CUP", 100)
        numbers = [await _place(clerks[0], "Anna", CUP=1) for _ in range(8)]
        drafts = [await draft(clerks[0], "Anna", CUP=1) for _ in range(3)]
        # Each order is invoiced at both servers at once, and drafts are refused; one transaction is given up
        # after it took a number.
        work = [clerk.call("issue_invoice", order=n) for n in (*numbers, *drafts) for clerk in clerks]
        outcomes = await asyncio.gather(*work, _give_up(second), _give_up(agent_server), return_exceptions=True)
        issued = [outcome["name"] for outcome in outcomes if isinstance(outcome, dict)]
        refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert len(issued) == len(numbers)
        assert {type(error) for error in refused} == {Conflict, ZeroDivisionError}, refused
        year = issued[0].split("-")[1]
        assert sorted(issued) == [f"INV-{year}-{n:05}" for n in range(1, 9)]


async def _give_up(server: AgentServer) -> None:
    """Take the next number of an invoice, and fail."""
    clerk = staff(server).caller
    async with server.database.transaction(clerk.id, scopes=clerk.scopes) as session:
        await SeriesRepository(session, clerk).next(f"INV-{now().year}")
        raise ZeroDivisionError


async def test_credit_notes_give_back_an_invoice_to_the_last_cent_and_no_more(agent_server: AgentServer) -> None:
    clerk = staff(agent_server)
    await clerk.call("add_customer", name="Anna", address="1 Main Street")
    await add_product(clerk, "CUP", 100, price_minor=333, tax_rate_bp=1900)
    await add_product(clerk, "TEA", 100, price_minor=149, tax_rate_bp=700)
    number = await draft(clerk, "Anna", CUP=3, TEA=5)
    await clerk.call("set_order_line", order=number, product="CUP", quantity=3, discount_minor=100)
    with pytest.raises(Conflict, match="is draft"):
        await clerk.call("issue_invoice", order=number)
    await clerk.call("place_order", order=number)
    invoice = await clerk.call("issue_invoice", order=number)
    assert (invoice["net_minor"], invoice["tax_minor"], invoice["total_minor"]) == (899 + 745, 171 + 52, 1867)
    with pytest.raises(Conflict, match=invoice["name"]):
        await clerk.call("issue_invoice", order=number)

    async def credit(**items: int) -> dict[str, Any]:
        given = {"items": [{"product": sku, "quantity": n} for sku, n in items.items()]} if items else {}
        note: dict[str, Any] = await clerk.call(
            "issue_credit_note", invoice=invoice["name"], reason="came back", **given
        )
        return note

    notes = [await credit(CUP=1), await credit(CUP=1, TEA=2)]
    with pytest.raises(InvalidInput, match="1 are left"):
        await credit(CUP=2)
    notes.append(await credit())
    for part in ("net_minor", "tax_minor", "total_minor"):
        assert sum(note[part] for note in notes) == invoice[part]
    with pytest.raises(Conflict, match="given back already"):
        await credit()
    with pytest.raises(Conflict, match="is a credit note"):
        await clerk.call("issue_credit_note", invoice=notes[0]["name"], reason="came back")
    assert [note["name"][:3] for note in notes] == ["CN-"] * 3
    paper = await clerk.call("print_invoice_document", invoice=notes[0]["name"])
    if importlib.util.find_spec("typst"):  # the extra `pdf`
        assert base64.b64decode(paper["data"]).startswith(b"%PDF-")
        assert paper == await clerk.call("print_invoice_document", invoice=notes[0]["name"])
    else:
        assert f"Corrects invoice {invoice['name']}" in paper["text"]


def test_what_a_customer_is_called_is_no_markup_on_an_invoice() -> None:
    line = Line(sku="A|B", name="*Cup*", quantity=2, price_minor=500, tax_rate_bp=2000, net_minor=1000)
    paper = Invoice(
        series="INV-2026",
        number=7,
        order_number=1001,
        customer_name="A | B](https://x.example)\n# Free",
        customer_address="<b>1</b>",
        currency="EUR",
        lines=[line.model_dump()],
        **add_up([line]).model_dump(),
    )
    title, text = print_invoice(paper)
    assert title == "Invoice INV-2026-00007"
    assert r"A \| B\](https://x.example) \# Free" in text
    assert r"\<b\>1\</b\>" in text
    assert r"| \*Cup\* (A\|B) | 2 | 5.00 EUR | 0.00 EUR | 20 % | 10.00 EUR |" in text
    assert "| **Total** | **12.00 EUR** |" in text
