"""What may follow each status of a report and of a payment for one, in any order of steps."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent_server import Conflict, new_id, now
from tools.study.models import PAYMENT_MOVES, REPORT_MOVES, Payment, PaymentStatus, Report
from tools.study.repository import move_payment, move_report


@given(st.lists(st.sampled_from(["created", "pending", "succeeded", "failed", "refunded"]), max_size=8))
def test_a_payment_is_paid_once_and_given_back_once(steps: list[PaymentStatus]) -> None:
    payment = Payment(report_id=new_id(), number=1, pence=1900, status="created")
    seen: list[PaymentStatus] = []
    for step in steps:
        before = payment.status
        try:
            move_payment(payment, step)
        except Conflict:
            assert payment.status == before and step not in PAYMENT_MOVES[before]
        else:
            seen.append(step)
    assert seen.count("succeeded") <= 1 and seen.count("refunded") <= 1 and "created" not in seen
    assert "refunded" not in seen or seen[-2:] == ["succeeded", "refunded"]
    assert not set(seen[seen.index("succeeded") + 1 :] if "succeeded" in seen else ()) - {"refunded"}


@given(st.lists(st.sampled_from(["requested", "drafted", "delivered", "expired"]), max_size=8), st.booleans())
def test_a_report_is_delivered_once_from_a_draft_and_never_after_its_time(steps: list[Any], over: bool) -> None:
    at = now()
    report = Report(topic="x", status="requested", expires_at=at.replace(year=at.year + (-1 if over else 1)))
    seen = ["requested"]
    for step in steps:
        before = report.status
        try:
            move_report(report, step)
        except Conflict:
            assert report.status == before and (over or step not in REPORT_MOVES[before])
        else:
            seen.append(step)
    assert not over or seen == ["requested"]
    order = ["requested", "drafted", "delivered", "expired"]
    assert [order.index(each) for each in seen] == sorted({order.index(each) for each in seen})
    assert "delivered" not in seen or seen[seen.index("delivered") - 1] == "drafted"
