"""What became of cases: for people as a matrix, for programs as JSON and JUnit's XML, and beside an earlier run."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent_server.errors import InvalidInput
from agent_server.evals.compare import PromptComparison
from agent_server.evals.difference import reply_json
from agent_server.evals.run import Result
from agent_server.routing import Decision, Ranked
from agent_server.routing.report import RoutingReport, describe_report, report_routing
from agent_server.turns.events import AgentChosen
from agent_server.wording import count

_MARKS = {"passed": ("✓", "green"), "failed": ("✗", "red"), "missing": ("?", "yellow")}
PASSED, FAILED, WRONG, MISSING = 0, 1, 2, 3
"""Exit statuses of `eval run`."""

Verdicts = Mapping[str, Mapping[str, str]]
"""By id of the case and name of the variant."""


@dataclass(frozen=True)
class Changes:
    """How a run differs from another one: the cases that fail now and those that pass now, each as `id [variant]`."""

    regressions: Sequence[str]
    repairs: Sequence[str]


def exit_status(results: Sequence[Result]) -> int:
    verdicts = {result.verdict for result in results}
    return FAILED if "failed" in verdicts else MISSING if "missing" in verdicts else PASSED


def print_matrix(console: Console, results: Sequence[Result]) -> None:
    """The cases by variant, and below what failed and why, a line each."""
    variants = list(dict.fromkeys(result.variant for result in results))
    by_case: dict[str, list[Result]] = {}
    for result in results:
        by_case.setdefault(result.case.id, []).append(result)
    table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=len(variants) > 1)
    table.add_column("case", ratio=1)
    for variant in variants:
        table.add_column(variant, justify="center")
    file = ""
    for found in by_case.values():
        if found[0].case.file != file:
            file = found[0].case.file
            table.add_row(Text(file, "bold"))
        table.add_row(Text(f"  {found[0].case.name}"), *(Text(*_MARKS[one.verdict]) for one in found))
    console.print(table)
    for result in results:
        for reason in result.reasons:
            which = f" [{result.variant}]" if len(variants) > 1 else ""
            place = f"{result.case.file}:{result.case.line}"
            mark, style = _MARKS[result.verdict]
            line = Text.assemble((f"{mark} ", style), f"{place} {result.case.name}{which}: {reason}")
            console.print(line, soft_wrap=True)


def print_summary(
    console: Console,
    results: Sequence[Result],
    changes: Changes | None,
    compared: Sequence[PromptComparison] = (),
) -> None:
    for title, named in (("Regression", changes.regressions), ("Repair", changes.repairs)) if changes else ():
        for one in named:
            console.print(Text(f"{title}: {one}", "red" if title == "Regression" else "green"), soft_wrap=True)
    for one in list_different(results):
        console.print(Text(f"Differs: {one}"), soft_wrap=True)
    for told in (told for comparison in compared for told in comparison.tell()):
        console.print(told, soft_wrap=True)
    numbers = _count(results)
    line = f"{numbers['passed']} of {count(len(results), 'case')} passed"
    line += f", {numbers['missing']} without a recording" if numbers["missing"] else ""
    unjudged = sum(len(result.unjudged) for result in results)
    line += f"; {count(unjudged, 'judge')} not asked, for want of a model" if unjudged else ""
    console.print(line, soft_wrap=True, highlight=False)
    reports = report_routes(results)
    several = len(set(map(describe_report, reports.values()))) > 1
    for variant, report in list(reports.items())[: None if several else 1]:
        which = f" with {variant}" if several else ""
        console.print(f"Routing{which}: {describe_report(report)}", soft_wrap=True, highlight=False)


def report_json(
    results: Sequence[Result], changes: Changes | None, compared: Sequence[PromptComparison] = ()
) -> dict[str, Any]:
    """The whole run as one document."""
    more: dict[str, Any] = (
        {"regressions": list(changes.regressions), "repairs": list(changes.repairs)} if changes else {}
    )
    if compared:
        more["compared"] = [comparison.as_json() for comparison in compared]
    return {
        **_count(results),
        "routing": {variant: asdict(report) for variant, report in report_routes(results).items()},
        **more,
        "differs": list_different(results),
        "cases": [_result_json(result) for result in results],
    }


def write_junit(file: Path, results: Sequence[Result]) -> None:
    """The run as JUnit's XML, which CI servers read."""
    root = ElementTree.Element("testsuites")
    suites: dict[str, ElementTree.Element] = {}
    several = len({result.variant for result in results}) > 1
    for result in results:
        suite = suites.get(result.case.file)
        if suite is None:
            suite = suites[result.case.file] = ElementTree.SubElement(root, "testsuite", name=result.case.file)
        name = f"{result.case.name} [{result.variant}]" if several else result.case.name
        seconds = sum(reply.seconds for reply in result.replies)
        case = ElementTree.SubElement(suite, "testcase", classname=result.case.file, name=name, time=f"{seconds:.3f}")
        if not result.passed:
            kind = "error" if result.verdict == "missing" else "failure"
            ElementTree.SubElement(case, kind, message=result.reasons[0]).text = "\n".join(result.reasons)
    for name, suite in suites.items():
        of_file = [result for result in results if result.case.file == name]
        suite.set("tests", str(len(of_file)))
        suite.set("failures", str(sum(result.verdict == "failed" for result in of_file)))
        suite.set("errors", str(sum(result.verdict == "missing" for result in of_file)))
    file.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)


def read_baseline(file: Path) -> Verdicts | None:
    """The verdicts of an earlier run, None where none was saved. Raises InvalidInput."""
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        read = None
    if not isinstance(read, dict) or not all(isinstance(verdicts, dict) for verdicts in read.values()):
        raise InvalidInput(f"{file} is no baseline; write one with --save-baseline")
    return read


def save_baseline(file: Path, results: Sequence[Result], before: Verdicts | None) -> None:
    """Keep the verdicts of this run, and those of an earlier one of what did not run now."""
    kept = {id: dict(verdicts) for id, verdicts in (before or {}).items()}
    for result in results:
        kept.setdefault(result.case.id, {})[result.variant] = result.verdict
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(kept, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def compare(results: Sequence[Result], before: Verdicts) -> Changes:
    """What fails that passed before, and what passes that did not."""
    regressions: list[str] = []
    repairs: list[str] = []
    for result in results:
        verdict = before.get(result.case.id, {}).get(result.variant)
        if verdict is not None and (verdict == "passed") != result.passed:
            (repairs if result.passed else regressions).append(f"{result.case.id} [{result.variant}]")
    return Changes(regressions, repairs)


def list_different(results: Sequence[Result]) -> Sequence[str]:
    """The cases that pass with one variant and not with another."""
    by_case: dict[str, list[Result]] = {}
    for result in results:
        by_case.setdefault(result.case.id, []).append(result)
    return [
        f"{id}: {', '.join(f'{one.verdict} with {one.variant}' for one in found)}"
        for id, found in by_case.items()
        if len({one.verdict for one in found}) > 1
    ]


def report_routes(results: Sequence[Result]) -> Mapping[str, RoutingReport]:
    """How well messages found their agent, by variant: those of which the agent is expected, and as messages of nobody
    those that are out of scope. What a case sends to an agent is not routed."""
    rows: dict[str, list[tuple[str, str | None, Decision]]] = {}
    for result in results:
        if result.case.metadata.agent is None:
            rows.setdefault(result.variant, []).extend(_list_routed(result))
    return {variant: report_routing(found) for variant, found in rows.items() if found}


def _list_routed(result: Result) -> Iterator[tuple[str, str | None, Decision]]:
    routed = [*result.routed, *[None] * len(result.replies)]
    for reply, expected, decision in zip(result.replies, result.case.expected, routed, strict=False):
        # One that is to be declined may be about an agent's subject all the same.
        if expected.agent is None and not expected.out_of_scope:
            continue
        chosen = next((event for event in reply.answer.events if isinstance(event, AgentChosen)), None)
        if decision is None and chosen is not None:
            # small talk, which no router is asked about
            ranked = [Ranked(chosen.name, chosen.confidence)]
            by: Literal["model", "meaning"] = "model" if chosen.decided_by == "model" else "meaning"
            decision = Decision(chosen.name, chosen.confidence, by, ranked)
        if decision is not None:
            yield reply.message, expected.agent, decision


def _count(results: Sequence[Result]) -> dict[str, int]:
    return {name: sum(result.verdict == name for result in results) for name in _MARKS}


def _result_json(result: Result) -> dict[str, Any]:
    return {
        "id": result.case.id,
        "file": result.case.file,
        "line": result.case.line,
        "case": result.case.name,
        "variant": result.variant,
        "verdict": result.verdict,
        "reasons": list(result.reasons),
        "unjudged": list(result.unjudged),
        "replies": [reply_json(reply) for reply in result.replies],
    }
