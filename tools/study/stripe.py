"""Payments with Stripe, over its HTTP API.

    POST /v1/checkout/sessions   form-encoded, with Idempotency-Key; GET .../{id} says where one stands
    POST /v1/refunds             the same
    events                       Stripe-Signature: t=<seconds>,v1=<HMAC-SHA256 of "<t>.<body>" with the endpoint's secret>

The owner and the id of the payment are sent along as metadata and come back in events, so that they are signed.
"""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from agent_server import Conflict, Forbidden, InvalidInput, Unavailable, read_variables
from tools.study.provider import Checkout, CheckoutStatus, Notice, Order

CURRENCY = "gbp"
TOLERANCE = 300
"""How old an event may be, seconds, as Stripe's own libraries have it: one that was overheard is not played back later."""
# Less than the 10 seconds after which Postgres ends a transaction in which nothing happens.
PATIENCE = 8.0
_ROOT = Path(__file__).parents[2]
_MEANS: Mapping[str, CheckoutStatus] = {
    "checkout.session.async_payment_succeeded": "paid",
    "checkout.session.async_payment_failed": "failed",
    "checkout.session.expired": "failed",
    "charge.refunded": "refunded",
}
"""What events say. `checkout.session.completed` says it by its `payment_status`."""


@dataclass(frozen=True, kw_only=True)
class Stripe:
    """Stripe with this account's secrets. `price_pence` is what a report costs, `page` where the payer goes back to."""

    key: str
    webhook_secret: str
    url: str
    page: str
    price_pence: int

    async def open(self, order: Order) -> Checkout:
        marks = {"owner": str(order.owner), "payment": str(order.payment)}
        form = {
            "mode": "payment",
            "client_reference_id": str(order.payment),
            "success_url": self.page,
            "line_items[0][quantity]": "1",
            "line_items[0][price_data][currency]": CURRENCY,
            "line_items[0][price_data][unit_amount]": str(order.pence),
            "line_items[0][price_data][product_data][name]": order.title,
            **{f"metadata[{name}]": value for name, value in marks.items()},
            # A refund is an event of the charge, which has the metadata of the intent and none of the session.
            **{f"payment_intent_data[metadata][{name}]": value for name, value in marks.items()},
        }
        return _checkout(await self._send("POST", "/v1/checkout/sessions", order.key, form))

    async def find(self, session: str) -> Checkout:
        return _checkout(await self._send("GET", f"/v1/checkout/sessions/{session}"))

    async def refund(self, intent: str, key: str) -> None:
        await self._send("POST", "/v1/refunds", key, {"payment_intent": intent})

    def read_notice(self, signature: str, body: bytes) -> Notice | None:
        self._verify(signature, body)
        event = json.loads(body)
        about = event["data"]["object"]
        status = _MEANS.get(event["type"])
        if event["type"] == "checkout.session.completed" and about.get("payment_status") == "paid":
            status = "paid"
        if event["type"] == "charge.refunded" and not about.get("refunded"):
            status = None  # a part was paid back
        marks = about.get("metadata") or {}
        if status is None or not {"owner", "payment"} <= marks.keys():
            return None
        return Notice(
            event=event["id"],
            owner=UUID(marks["owner"]),
            payment=UUID(marks["payment"]),
            status=status,
            pence=_pence(about, "amount" if status == "refunded" else "amount_total"),
            intent=about.get("payment_intent"),
        )

    def _verify(self, signature: str, body: bytes) -> None:
        """Raises Forbidden unless the body was signed with the secret of the endpoint, and lately."""
        parts = [part.partition("=") for part in signature.split(",")]
        times = [value for name, _, value in parts if name.strip() == "t"]
        if len(times) != 1 or not times[0].isascii() or not times[0].isdecimal():
            raise Forbidden("Stripe-Signature: is not t=<seconds>,v1=<signature>")
        signed = hmac.new(self.webhook_secret.encode(), times[0].encode() + b"." + body, hashlib.sha256).hexdigest()
        given = [value for name, _, value in parts if name.strip() == "v1"]
        # There may be several while a secret is being replaced.
        if not any(hmac.compare_digest(signed.encode(), value.encode()) for value in given):
            raise Forbidden("Stripe-Signature: is not made with STRIPE_WEBHOOK_SECRET")
        if abs(time.time() - int(times[0][:15])) > TOLERANCE:
            raise Forbidden(f"Stripe-Signature: is more than {TOLERANCE} seconds old; Stripe signs each try anew")

    async def _send(self, method: str, path: str, key: str | None = None, form: Mapping[str, str] | None = None) -> Any:
        import httpx  # noqa: PLC0415  # heavy

        headers = {"Authorization": f"Bearer {self.key}", **({"Idempotency-Key": key} if key else {})}
        try:
            async with asyncio.timeout(PATIENCE), httpx.AsyncClient(base_url=self.url) as client:
                answer = await client.request(method, path, data=form, headers=headers)
        except (httpx.TransportError, TimeoutError) as error:
            raise Unavailable("The payment service does not answer; try again in a moment") from error
        # 409: the same is being asked at this moment. Asked again, it gives the same answer.
        if answer.status_code in (409, 429) or answer.status_code >= 500:
            raise Unavailable(f"The payment service answers {answer.status_code}; try again in a moment")
        if answer.is_error:
            raise Conflict(f"The payment service refuses it with {answer.status_code}; nothing was charged by this")
        return answer.json()


def find_stripe() -> Stripe | None:
    """Stripe as the environment sets it up. None without STRIPE_SECRET_KEY. Raises InvalidInput for half of it."""
    given = read_variables(_ROOT)
    if not (key := given.get("STRIPE_SECRET_KEY")):
        return None
    price = given.get("STUDY_REPORT_PENCE", "1900")
    if not price.isdecimal() or not 30 <= int(price) <= 1_000_000:
        raise InvalidInput("STUDY_REPORT_PENCE: is a number of pence from 30 on, as in 1900")
    if not (secret := given.get("STRIPE_WEBHOOK_SECRET")):
        raise InvalidInput(
            "STRIPE_WEBHOOK_SECRET: is missing beside STRIPE_SECRET_KEY; Stripe shows it with the endpoint"
        )
    return Stripe(
        key=key,
        webhook_secret=secret,
        url=given.get("STRIPE_URL", "https://api.stripe.com"),
        page=given.get("STRIPE_RETURN_URL", "http://127.0.0.1:8000/"),
        price_pence=int(price),
    )


def _checkout(session: Mapping[str, Any]) -> Checkout:
    status: CheckoutStatus = "open"
    if session["payment_status"] == "paid":
        status = "paid"
    elif session["status"] == "expired":
        status = "failed"
    return Checkout(
        session=session["id"],
        status=status,
        pence=_pence(session, "amount_total"),
        url=session.get("url"),
        intent=session.get("payment_intent"),
    )


def _pence(about: Mapping[str, Any], name: str) -> int | None:
    """An amount in pence. None of another currency."""
    return about.get(name) if about.get("currency") == CURRENCY else None
