"""What a report costs is paid once, and the report comes after it: also where either side is cut off at any point."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from mcp import MCPError

from agent_server import Conflict, NotFound, Unavailable, new_id
from agent_server.testing import AgentCaller, AgentServer, mcp_client

from .stripe_server import SECRET_KEY, WEBHOOK_SECRET, StripeServer, dump, run_stripe, sign

PENCE = 1234
WORDS = "This is no immigration advice"
"""What stands in each report."""
HOOK = "/api/hooks/stripe"


@pytest.fixture
async def stripe(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StripeServer]:
    async with run_stripe() as server:
        monkeypatch.setenv("STRIPE_SECRET_KEY", SECRET_KEY)
        monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", WEBHOOK_SECRET)
        monkeypatch.setenv("STRIPE_URL", server.url)
        monkeypatch.setenv("STUDY_REPORT_PENCE", str(PENCE))
        yield server


async def tell(server: AgentServer, event: dict[str, Any], headers: dict[str, str] | None = None) -> int:
    """Send an event as Stripe does: with a signature and without a credential."""
    body = dump(event)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(server.app), base_url="http://localhost") as http:
        return (await http.post(HOOK, content=body, headers=headers or sign(body))).status_code


async def request(me: AgentCaller, *, draft: bool = True) -> str:
    report = await me.call("request_report", topic="A master's in law")
    assert (report["price_pounds"], report["payment"]) == ("12.34", "created")
    if draft:
        assert (await me.call("draft_report", report=report["id"]))["status"] == "drafted"
    return str(report["id"])


async def stands(me: AgentCaller, report: str) -> tuple[str, str]:
    """Where a report and its payment stand; and its text is read on each surface if it is delivered, and on none if not."""
    (row,) = [each for each in (await me.call("list_reports"))["items"] if each["id"] == report]
    ways = 0
    async with me.http() as http, mcp_client(me) as client:
        ways += (await http.post("/api/tools/read_report", json={"report": report})).is_success
        ways += not (await client.call_tool("read_report", {"report": report})).is_error
        ways += (await http.post("/api/tools/get_report_pdf", json={"report": report})).is_success
        for address in (f"reports://{report}", f"reports://{report}/pdf"):
            with suppress(MCPError):
                await client.read_resource(address)
                ways += 1
        exported = await http.get("/api/me/export")
    assert exported.status_code == 200 and WORDS not in exported.text
    assert ways == (5 if row["status"] == "delivered" else 0)
    return row["status"], row["payment"]


async def test_a_report_is_paid_on_the_providers_page_and_then_delivered_once(
    agent_server: AgentServer, stripe: StripeServer
) -> None:
    me = agent_server.as_caller("*")
    report = await request(me)
    assert await stands(me, report) == ("drafted", "created")
    asked = await me.call("pay_report", report=report)
    assert (asked["status"], asked["url"]) == ("pending", "https://checkout.stripe.example/cs_test_1")
    assert (await me.call("pay_report", report=report))["url"] == asked["url"]
    assert await stands(me, report) == ("drafted", "pending")

    paid = stripe.pay("cs_test_1")
    assert await tell(agent_server, paid) == 204
    assert await stands(me, report) == ("delivered", "succeeded")
    first = await me.call("list_reports")
    # twice at once, and again with another signature
    assert await asyncio.gather(*(tell(agent_server, paid) for _ in range(3))) == [204, 204, 204]
    late = stripe.tell("checkout.session.expired", stripe.sessions["cs_test_1"])  # overtaken by what came later
    assert await tell(agent_server, late) == 204
    assert await me.call("list_reports") == first
    assert (await me.call("pay_report", report=report))["status"] == "succeeded"
    assert (stripe.asked, len(stripe.sessions)) == (1, 1)
    with pytest.raises(Conflict, match="delivered"):
        await me.call("refund_report", report=report)

    # what is given back on the provider's own page ends the report, and a late "paid" does not bring it back
    assert await tell(agent_server, stripe.give_back("cs_test_1")) == 204
    assert await tell(agent_server, stripe.tell("checkout.session.completed", stripe.sessions["cs_test_1"])) == 204
    assert await stands(me, report) == ("expired", "refunded")


async def test_a_report_that_is_paid_first_is_delivered_by_its_draft_and_heals_without_the_event(
    agent_server: AgentServer, stripe: StripeServer
) -> None:
    me = agent_server.as_caller("*")
    report = await request(me, draft=False)
    await me.call("pay_report", report=report)
    stripe.pay("cs_test_1")  # its event is lost on the way
    assert await stands(me, report) == ("requested", "pending")
    assert (await me.call("pay_report", report=report))["status"] == "succeeded"
    assert await stands(me, report) == ("requested", "succeeded")
    await me.call("draft_report", report=report)
    assert await stands(me, report) == ("delivered", "succeeded")
    assert WORDS in (await me.call("read_report", report=report))["text"]
    # what an agent writes stands in its conversation, and is not written there before it is paid
    with pytest.raises(Conflict, match="not paid"):
        await me.call(
            "write_report", report=await request(me, draft=False), text="x [1]", sources=["study/visa/cas.md"]
        )


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_whoever_is_cut_off_at_the_provider_has_begun_one_payment_and_one_refund(
    agent_server: AgentServer, stripe: StripeServer, cut: str
) -> None:
    """The transaction is lost with whoever is cut off, as it is with a process that is killed there."""
    me = agent_server.as_caller("*")
    report = await request(me, draft=False)
    stripe.cut = cut
    with pytest.raises(Unavailable):
        await me.call("pay_report", report=report)
    assert await stands(me, report) == ("requested", "created")
    if cut == "after":  # somebody has the page and pays before the call is made again
        assert await tell(agent_server, stripe.pay("cs_test_1")) == 204
    again = await me.call("pay_report", report=report)
    assert again["status"] == ("succeeded" if cut == "after" else "pending")
    if cut == "before":
        assert await tell(agent_server, stripe.pay("cs_test_1")) == 204
    assert len(stripe.sessions) == 1

    stripe.cut = cut
    with pytest.raises(Unavailable):
        await me.call("refund_report", report=report)
    assert await stands(me, report) == ("requested", "succeeded")
    assert (await me.call("refund_report", report=report))["status"] == "refunded"
    assert (await me.call("refund_report", report=report))["status"] == "refunded"
    assert stripe.refunds == ["pi_cs_test_1"]
    assert await stands(me, report) == ("expired", "refunded")
    with pytest.raises(Conflict, match="is over"):
        await me.call("draft_report", report=report)


async def test_two_who_begin_to_pay_at_once_and_one_who_comes_too_late_are_given_one_page_each(
    agent_server: AgentServer, stripe: StripeServer
) -> None:
    me = agent_server.as_caller("*")
    report = await request(me)
    both = await asyncio.gather(*(me.call("pay_report", report=report) for _ in range(2)))
    assert both[0] == both[1] and len(stripe.sessions) == 1
    assert await tell(agent_server, stripe.expire("cs_test_1")) == 204
    assert await stands(me, report) == ("drafted", "failed")
    assert (await me.call("pay_report", report=report))["url"].endswith("cs_test_2")
    assert await tell(agent_server, stripe.pay("cs_test_2")) == 204
    assert await stands(me, report) == ("delivered", "succeeded")


async def test_only_what_the_provider_has_signed_lately_counts(agent_server: AgentServer, stripe: StripeServer) -> None:
    me, other = agent_server.as_caller("*"), agent_server.as_caller("*")
    report = await request(me)
    await me.call("pay_report", report=report)
    paid = stripe.pay("cs_test_1")
    body, refused = dump(paid), []
    forged: list[dict[str, str]] = [
        {},
        {"Stripe-Signature": ""},
        {"Stripe-Signature": f"t={int(time.time())},v1="},
        {"Stripe-Signature": "t=x,v1=0"},
        sign(body, secret="whsec_of_somebody_else_0123456789"),
        sign(body + b" "),
        sign(body, at=time.time() - 400),
        sign(body, at=time.time() + 400),
    ]
    for headers in forged:
        refused.append(await tell(agent_server, paid, headers or {"Content-Type": "application/json"}))
    assert refused == [403] * len(forged)
    # genuine, and about another sum, another payment, another currency, an owner who has no such payment, or not of ours
    about = paid["data"]["object"]
    marks = about["metadata"]
    changes: tuple[dict[str, Any], ...] = (
        {"amount_total": PENCE - 1},
        {"currency": "usd"},
        {"payment_status": "unpaid"},
        {"metadata": {**marks, "payment": str(new_id())}},
        {"metadata": {**marks, "owner": str(other.id)}},
        {"metadata": {}},
    )
    for change in changes:
        assert await tell(agent_server, stripe.tell(paid["type"], {**about, **change})) == 204
    assert await stands(me, report) == ("drafted", "pending")
    for tool in ("pay_report", "refund_report"):
        with pytest.raises(NotFound):
            await other.call(tool, report=report)
    # nobody but a webhook may call what it calls
    async with me.http() as http:
        assert (await http.post("/api/tools/hear_payment", json={})).status_code == 404
        assert (await http.post("/api/hooks/no-such", content=body)).status_code == 404
        assert (await http.post(HOOK, content=b"x" * 300_000)).status_code == 413
    assert await tell(agent_server, paid) == 204
    assert await stands(me, report) == ("delivered", "succeeded")


async def test_without_a_key_reports_are_free_and_nothing_can_be_paid(
    agent_server: AgentServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STRIPE_SECRET_KEY", raising=False)
    me = agent_server.as_caller("*")
    report = await me.call("request_report", topic="A master's in law")
    with pytest.raises(Conflict, match="free of charge"):
        await me.call("pay_report", report=report["id"])
    assert (await me.call("draft_report"))["status"] == "delivered"
    assert await tell(agent_server, {"id": "evt_1"}) == 404
