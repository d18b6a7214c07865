"""A shop from the first delivery to the money given back, told to the agent of its staff."""

from typing import Any

from agent_server.testing import AgentServer, Call, Say, ScriptedOpenAI
from agent_server.turns.events import ConfirmationAsked
from tests.tools.retail.shop import CUSTOMER, STAFF, staff


async def test_a_shop_from_receipt_to_refund(agent_server: AgentServer, scripted_model: ScriptedOpenAI) -> None:
    clerk, anna = agent_server.as_caller(*STAFF, "conversations:*"), agent_server.as_caller(*CUSTOMER)
    conversation: Any = None

    async def say(message: str, *steps: Any) -> dict[str, Any]:
        """Tell the agent something; what its last call returned."""
        nonlocal conversation
        scripted_model.script = [*steps, Say("Done.")]
        answer = await clerk.chat(message, agent="shop", conversation=conversation)
        conversation = answer.conversation
        assert [call.error for call in answer.calls] == [None] * len(steps), answer.calls
        output: dict[str, Any] = answer.calls[-1].output
        return output

    about = {"name": "Salad bowl", "currency": "EUR", "price_minor": 2000, "cost_minor": 900, "tax_rate_bp": 2000}
    await say("A new product: salad bowls at 20 EUR", Call("add_product", {"sku": "SALAD", **about}))
    received = await say("Five have come", Call("receive_stock", {"product": "SALAD", "quantity": 5, "reason": "DN 1"}))
    assert received["left"] == 5
    await say("Anna Smith is new", Call("add_customer", {"name": "Anna Smith", "account_id": str(anna.id)}))
    items = [{"product": "SALAD", "quantity": 2}]
    order = await say("She wants two", Call("create_order", {"customer": "Anna Smith", "items": items}))
    number = order["number"]
    placed = await say("Place it", Call("place_order", {"order": number, "version": order["version"]}))
    assert (placed["status"], placed["total"]) == ("placed", "48.00 EUR")
    assert (await clerk.call("get_product", product="SALAD"))["left"] == 3
    invoice = await say("Write the invoice", Call("issue_invoice", {"order": number}))
    assert invoice["total"] == "48.00 EUR"
    shipped = await say(
        "It is paid and on its way",
        Call("mark_order_paid", {"order": number}),
        Call("ship_order", {"order": number, "carrier": "Parcel Service", "tracking": "PS 1"}),
    )
    assert (shipped["status"], shipped["tracking"]) == ("shipped", "PS 1")
    assert (await anna.call("get_my_order", order=number))["tracking"] == "PS 1"
    one = [{"product": "SALAD", "quantity": 1}]
    await say("One came back broken", Call("return_order", {"order": number, "items": one, "damaged": True}))

    # A credit note is asked about first: it cannot be taken back.
    scripted_model.script = [
        Call("issue_credit_note", {"invoice": invoice["name"], "reason": "arrived broken", "items": one}),
        Say("I have asked you."),
    ]
    asked = await clerk.chat("Give her the money for it", agent="shop", conversation=conversation)
    assert (await clerk.call("list_invoices", order=number))["items"][0]["kind"] == "invoice"
    (question,) = [event.id for event in asked.events if isinstance(event, ConfirmationAsked)]
    async with clerk.http() as http:
        said = await http.post(f"/api/confirmations/{question}", json={"confirm": True})
        assert said.status_code == 200, said.text
    note, paper = (await anna.call("list_my_invoices"))["items"]
    assert (note["kind"], note["total"], note["corrects"]) == ("credit_note", "24.00 EUR", invoice["name"])
    assert paper["name"] == invoice["name"]
    left = await clerk.call("get_product", product="SALAD")
    assert (left["on_hand"], left["reserved"], left["left"]) == (3, 0, 3)
    moved = (await clerk.call("list_stock_movements", product="SALAD"))["items"]
    assert [(m["kind"], m["quantity"]) for m in moved] == [
        ("adjustment", -1),
        ("return", 1),
        ("sale", -2),
        ("receipt", 5),
    ]


async def test_the_catalogue_and_its_opening_stock_agree(agent_server: AgentServer) -> None:
    clerk = staff(agent_server)
    products = (await clerk.call("list_products", limit=100))["items"]
    assert len(products) == 10
    for product in products:
        moved = (await clerk.call("list_stock_movements", product=product["sku"]))["items"]
        assert [(m["kind"], m["quantity"]) for m in moved] == ([("receipt", product["on_hand"])])
    low = {product["sku"] for product in (await clerk.call("list_low_stock"))["items"]}
    assert low == {"MUG-02", "TEA-GN", "BOOK-TEA"}
