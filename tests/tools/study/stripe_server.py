"""A server on this machine that speaks as much of Stripe's protocol as the slice uses, and keeps what was charged."""

import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

SECRET_KEY = "sk_test_0123456789"  # made up  # pragma: allowlist secret
WEBHOOK_SECRET = "whsec_0123456789"  # made up  # pragma: allowlist secret


@dataclass
class StripeServer:
    """`sessions` and `refunds` are what there is by now, `asked` how often something was to be changed."""

    url: str = ""
    sessions: dict[str, dict[str, Any]] = field(default_factory=dict)
    intents: dict[str, dict[str, Any]] = field(default_factory=dict)
    refunds: list[str] = field(default_factory=list)
    asked: int = 0
    cut: str | None = None
    """Where the next change is cut off: `before` it is made, or `after`, when nobody hears of it."""
    _kept: dict[str, tuple[Mapping[str, str], dict[str, Any]]] = field(default_factory=dict)

    async def create_session(self, request: web.Request) -> web.StreamResponse:
        return await self._once(request, self._make_session)

    async def create_refund(self, request: web.Request) -> web.StreamResponse:
        return await self._once(request, self._make_refund)

    async def read_session(self, request: web.Request) -> web.StreamResponse:
        found = self.sessions.get(request.match_info["id"])
        return web.json_response(found or {"error": {"type": "invalid_request_error"}}, status=200 if found else 404)

    async def _once(self, request: web.Request, make: Any) -> web.StreamResponse:
        """Stripe's rule: the same key with the same parameters is the same answer, with others it is refused."""
        assert request.headers["Authorization"] == f"Bearer {SECRET_KEY}"
        assert request.content_type == "application/x-www-form-urlencoded"
        key, form = request.headers["Idempotency-Key"], dict((await request.post()).items())
        self.asked += 1
        cut, self.cut = self.cut, None
        if cut == "before":
            return web.json_response({}, status=503)
        if key in self._kept and self._kept[key][0] != form:
            return web.json_response({"error": {"type": "idempotency_error"}}, status=400)
        if key not in self._kept:
            self._kept[key] = (form, make(form))  # type: ignore[assignment]  # forms here hold no files
        if cut == "after":
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(self._kept[key][1])

    def _make_session(self, form: Mapping[str, str]) -> dict[str, Any]:
        id = f"cs_test_{len(self.sessions) + 1}"
        session = {
            "id": id,
            "object": "checkout.session",
            "url": f"https://checkout.stripe.example/{id}",
            "status": "open",
            "payment_status": "unpaid",
            "payment_intent": None,
            "amount_total": int(form["line_items[0][price_data][unit_amount]"]),
            "currency": form["line_items[0][price_data][currency]"],
            "client_reference_id": form["client_reference_id"],
            "metadata": _nested(form, "metadata"),
        }
        self.sessions[id] = session
        self.intents[id] = _nested(form, "payment_intent_data[metadata]")
        return dict(session)

    def _make_refund(self, form: Mapping[str, str]) -> dict[str, Any]:
        self.refunds.append(form["payment_intent"])
        return {"id": f"re_{len(self.refunds)}", "object": "refund", "status": "succeeded"}

    def pay(self, id: str) -> dict[str, Any]:
        """Have a session paid; the event of it."""
        session = self.sessions[id]
        assert session["status"] == "open", "nobody pays twice on one page"
        session |= {"status": "complete", "payment_status": "paid", "payment_intent": f"pi_{id}", "url": None}
        return self.tell("checkout.session.completed", session)

    def expire(self, id: str) -> dict[str, Any]:
        self.sessions[id] |= {"status": "expired", "url": None}
        return self.tell("checkout.session.expired", self.sessions[id])

    def give_back(self, id: str) -> dict[str, Any]:
        """The event of a refund that somebody made on Stripe's own page."""
        session = self.sessions[id]
        charge = {
            "object": "charge",
            "refunded": True,
            "amount": session["amount_total"],
            "currency": session["currency"],
        }
        return self.tell(
            "charge.refunded", {**charge, "payment_intent": session["payment_intent"], "metadata": self.intents[id]}
        )

    def tell(self, type: str, about: Mapping[str, Any]) -> dict[str, Any]:
        """A new event."""
        self._events = getattr(self, "_events", 0) + 1
        return {"id": f"evt_{self._events}", "object": "event", "type": type, "data": {"object": dict(about)}}


def _nested(form: Mapping[str, str], name: str) -> dict[str, str]:
    return {key[len(name) + 1 : -1]: value for key, value in form.items() if key.startswith(f"{name}[")}


def sign(body: bytes, *, secret: str = WEBHOOK_SECRET, at: float | None = None) -> dict[str, str]:
    """The headers with which Stripe sends an event."""
    seconds = int(time.time() if at is None else at)
    signature = hmac.new(secret.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return {"Stripe-Signature": f"t={seconds},v1={signature},v0=0", "Content-Type": "application/json; charset=utf-8"}


def dump(event: Mapping[str, Any]) -> bytes:
    # As Stripe writes it: who reads it as JSON and writes it again has other bytes.
    return json.dumps(event, indent=2).encode()


@asynccontextmanager
async def run_stripe() -> AsyncIterator[StripeServer]:
    server = StripeServer()
    app = web.Application()
    app.add_routes(
        [
            web.post("/v1/checkout/sessions", server.create_session),
            web.get("/v1/checkout/sessions/{id}", server.read_session),
            web.post("/v1/refunds", server.create_refund),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = "http://{}:{}".format(*runner.addresses[0][:2])
        yield server
    finally:
        await runner.cleanup()
