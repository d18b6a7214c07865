"""How well labelled messages find their agent."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent_server.routing import Decision
from agent_server.wording import count

OUT_OF_SCOPE = "-"
"""The label of a message that no agent should take."""


@dataclass(frozen=True)
class RoutingReport:
    """Shares are 0 to 1, and None where there is no message to count.

    `accuracy`: the best guess is right. `coverage_95`: the largest share of the messages with an agent, taken from the
    most confident one on, of which 95 % are right. `sure`: decided without the model; `precision`: right of these.
    `sure_out_of_scope`: messages that no agent should take, and one was sure to.
    """

    messages: int
    out_of_scope: int
    accuracy: float | None
    coverage_95: float | None
    coverage_98: float | None
    sure: float | None
    precision: float | None
    sure_out_of_scope: float | None
    wrong: Sequence[tuple[str, str, str]] = ()
    """Message, the agent that should take it, and the one that would."""


def report_routing(rows: Sequence[tuple[str, str | None, Decision]]) -> RoutingReport:
    """The figures of messages, each with the agent that should take it (None: no agent) and the router's decision."""
    inside = [(agent, decision) for _, agent, decision in rows if agent is not None]
    outside = [_is_sure(decision) for _, agent, decision in rows if agent is None]
    judged = sorted(
        ((d.ranked[0].confidence, d.ranked[0].name == agent) for agent, d in inside), key=lambda row: -row[0]
    )
    sure = [decision.agent == agent for agent, decision in inside if _is_sure(decision)]
    return RoutingReport(
        messages=len(inside),
        out_of_scope=len(outside),
        accuracy=_share([right for _, right in judged]),
        coverage_95=_coverage(judged, 0.95),
        coverage_98=_coverage(judged, 0.98),
        sure=len(sure) / len(inside) if inside else None,
        precision=_share(sure),
        sure_out_of_scope=_share(outside),
        wrong=[(m, agent, d.ranked[0].name) for m, agent, d in rows if agent and d.ranked[0].name != agent],
    )


def describe_report(report: RoutingReport) -> str:
    """The figures in one line for people."""
    return (
        f"{count(report.messages, 'message')}: accuracy {_percent(report.accuracy)}, "
        f"coverage {_percent(report.coverage_95)} at 95 % precision and {_percent(report.coverage_98)} at 98 %, "
        f"sure on {_percent(report.sure)} and right on {_percent(report.precision)} of these; "
        f"of {report.out_of_scope} out of scope taken as sure {_percent(report.sure_out_of_scope)}"
    )


def _is_sure(decision: Decision) -> bool:
    return decision.decided_by in ("meaning", "only")


def _coverage(judged: Sequence[tuple[float, bool]], precision: float) -> float | None:
    """The share of the messages, from the most confident one on, of which `precision` are right."""
    right, covered = 0, 0
    for n, (confidence, is_right) in enumerate(judged, start=1):
        right += is_right
        # Messages of one confidence are taken together: no threshold parts them.
        if (n == len(judged) or judged[n][0] < confidence) and right / n >= precision:
            covered = n
    return covered / len(judged) if judged else None


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
