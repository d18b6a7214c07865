"""The figures of labelled messages."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_server.knowledge.embedders.wordllama import WordLlama
from agent_server.routing import Decision, Ranked, build_router
from agent_server.routing.report import describe_report, report_routing
from bench.routing import load_sets

AGENTS = ("bread", "bikes", "notes")


def decide(agent: str, confidence: float, *, sure: bool) -> Decision:
    return Decision(agent, confidence, "meaning" if sure else "model", [Ranked(agent, confidence)])


def test_the_figures_of_a_few_messages() -> None:
    report = report_routing(
        [
            ("a", "bread", decide("bread", 0.9, sure=True)),
            ("b", "bikes", decide("bikes", 0.8, sure=True)),
            ("c", "bread", decide("bikes", 0.7, sure=True)),
            ("d", "notes", decide("notes", 0.2, sure=False)),
            ("e", None, decide("bread", 0.6, sure=True)),
            ("f", None, decide("bread", 0.1, sure=False)),
        ]
    )

    assert (report.messages, report.out_of_scope) == (4, 2)
    assert (report.accuracy, report.coverage_95, report.coverage_98) == (0.75, 0.5, 0.5)
    assert (report.sure, report.sure_out_of_scope) == (0.75, 0.5)
    assert report.precision == pytest.approx(2 / 3)
    assert report.wrong == [("c", "bread", "bikes")]
    assert describe_report(report) == (
        "4 messages: accuracy 75.0%, coverage 50.0% at 95 % precision and 50.0% at 98 %, "
        "sure on 75.0% and right on 66.7% of these; of 2 out of scope taken as sure 50.0%"
    )


def test_messages_of_one_confidence_are_covered_together_or_not_at_all() -> None:
    rows: list[tuple[str, str | None, Decision]] = [("a", "bread", decide("bread", 0.5, sure=False))] * 3
    rows += [("b", "bikes", decide("bread", 0.5, sure=False))]

    assert report_routing(rows).coverage_95 == 0
    assert report_routing(list(reversed(rows))).coverage_95 == 0


def test_no_message_has_no_figures() -> None:
    assert report_routing([]).accuracy is None
    assert describe_report(report_routing([])).startswith("0 messages: accuracy -,")
    one = report_routing([("a", "bread", decide("bread", 0.9, sure=True))])
    assert describe_report(one).startswith("1 message: accuracy 100.0%")


rows_of = st.lists(
    st.tuples(
        st.just("m"),
        st.one_of(st.none(), st.sampled_from(AGENTS)),
        st.builds(
            lambda agent, confidence, sure: decide(agent, confidence, sure=sure),
            st.sampled_from(AGENTS),
            st.sampled_from([0.1, 0.5, 0.9]),
            st.booleans(),
        ),
    ),
    max_size=30,
)


@given(rows_of, st.randoms(use_true_random=False))
def test_the_figures_are_shares_and_do_not_depend_on_the_order(
    rows: list[tuple[str, str | None, Decision]], random: Random
) -> None:
    report = report_routing(rows)
    shuffled = list(rows)
    random.shuffle(shuffled)

    other = report_routing(shuffled)
    figures = ("accuracy", "coverage_95", "coverage_98", "sure", "precision", "sure_out_of_scope")
    assert [getattr(other, f) for f in figures] == [getattr(report, f) for f in figures]
    assert all(0 <= getattr(report, f) <= 1 for f in figures if getattr(report, f) is not None)
    if report.coverage_95 is not None and report.coverage_98 is not None and report.accuracy is not None:
        assert report.coverage_98 <= report.coverage_95
        assert report.accuracy < 0.95 or report.coverage_95 == 1


async def test_strangers_agents_are_found_by_their_messages() -> None:
    """The labelled sets of the bench: agents of seven houses with 15 examples each, more than 3,000 messages.

    The figures are those of python -m bench.routing, less what a small change of the router may cost.
    """
    reports = []
    for labelled in load_sets():
        router = await build_router(WordLlama(), labelled.agents)
        reports.append(report_routing([(m, agent, await router.decide(m, None)) for m, agent in labelled.messages]))

    sure = [report.sure or 0.0 for report in reports]
    right = [share * (report.precision or 0.0) for share, report in zip(sure, reports, strict=True)]
    assert sum(r.messages for r in reports) > 2000
    assert _mean([r.accuracy for r in reports]) > 0.64
    assert sum(right) / sum(sure) > 0.93
    assert _mean([r.sure_out_of_scope for r in reports]) <= 0.02


def _mean(shares: Sequence[float | None]) -> float:
    return sum(share or 0.0 for share in shares) / len(shares)
