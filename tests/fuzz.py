"""python -m tests.fuzz: requests made from the OpenAPI document, valid and invalid ones, and what is wrong with the answers.

python -m tests.fuzz [--cases 10000] [--seed 0]

A case is wrong where it is answered with a 5xx, with a status, type or body that the document does not describe, where
an invalid request is taken, where a valid one is refused for its shape, and where an operation that asks for a
credential answers without. Exit code 1 if any is.
"""

import argparse
import asyncio
import json
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, product
from pathlib import Path
from typing import Any, Literal

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from requests.structures import CaseInsensitiveDict
from rich.console import Console
from rich.table import Table
from schemathesis import Case, CheckContext, GenerationMode, Response
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    missing_required_header,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from agent_server.db import Database
from agent_server.db.embedded import start_embedded
from agent_server.db.migrate import upgrade
from agent_server.log import configure_logging
from agent_server.settings import Settings
from agent_server.workspace import load_workspace
from tests.conftest import ROOT
from tests.server import Client, starter

Kind = Literal["key", "guest", "nobody"]
WEIGHTS: Mapping[Kind, int] = {"key": 3, "guest": 1, "nobody": 1}
"""The callers, and how much each is drawn for: one who may do everything gets furthest."""
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
ROUND = 12
"""Cases that are made at once of one operation, for one caller, of one mode."""
COVERAGE = 0.4
"""The part of the cases that are the edges of the schemas, one by one; the others are drawn."""
NAMES = {"id", "slug", "document", "agent"}
"""The fields of an answer that name something."""
KNOWN = 50
"""Names of each kind that are kept, to ask for what is there."""
SHOWN = 40
"""Findings that are shown."""
UNSAYABLE = "NUL byte|not a valid email address|not one of our tokens|This token (is not known|has expired)|; give both"
"""Text that JSON can say and Postgres cannot keep; addresses by the rules of mail, beyond `format: email`; tokens that
were never given; an address that is null beside a password."""
Operation = APIOperation[Any, Any, Any, Any]
OperationCase = Case[Operation]
Told = Callable[[int, int], None]
"""What is told of the cases made so far, and of the findings."""


def noun_of(path: str) -> str:
    """What an id from `path` is the id of: of `/api/conversations` and of `/api/tools/create_task` the last word."""
    return re.split("[/_-]", path)[-1].removesuffix("s")


@dataclass
class Row:
    """What became of the cases of one operation."""

    statuses: Counter[int] = field(default_factory=Counter)
    breaches: int = 0

    @property
    def failed(self) -> int:
        return sum(count for status, count in self.statuses.items() if status >= 500)


@dataclass
class Caller:
    """One of the three. A credential that ends on the way (a logout, an erasure) is followed by another."""

    kind: Kind
    new_key: Callable[[], str]
    base: str
    headers: dict[str, str] = field(default_factory=dict)
    known: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def begin(self) -> None:
        """Take a new credential, and have something of everything."""
        if self.kind == "nobody":
            return
        self.known.clear()
        key = self.new_key() if self.kind == "key" else self._post("/api/session", {})["token"]
        self.headers = {"Authorization": f"Bearer {key}"}
        answer = self._post("/api/chat", {"message": "How long do I wait before flying?", "stream": False})
        for noun in ("conversation", "chat"):
            self.learn(noun, {"id": answer["conversation_id"]})
        self.learn("turn", {"id": answer["turn_id"], "agent": answer["agent"]})
        self.learn("passage", [{"id": source["passage"]} for source in answer["sources"]])

    def learn(self, path: str, answer: Any) -> None:
        """Note what names something in an answer from `path`: an id by what it is the id of."""
        rows = answer.get("items", [answer]) if isinstance(answer, dict) else answer
        for row in (row for row in rows if isinstance(row, dict)):
            for name in NAMES & row.keys():
                known = noun_of(path) if name == "id" else name
                self.known[known] = [*self.known[known], row[name]][-KNOWN:]

    def named(self, given: Mapping[str, Any], path: str, place: int) -> dict[str, Any]:
        """What `given` has a name for, each with something that is there."""
        nouns = {name: noun_of(path if name == "id" else re.sub("[_-]id$", "", name.lower())) for name in given}
        there = {name: self.known[noun] for name, noun in nouns.items() if noun in self.known}
        return {name: known[place % len(known)] for name, known in there.items()}

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        response = requests.post(self.base + path, json=body, headers=self.headers, timeout=30)
        assert response.ok, response.text
        self.learn(path, response.json())
        return response.json()


@dataclass
class Fuzz:
    """A run over the document of the server at `base`."""

    base: str
    document: dict[str, Any]
    new_key: Callable[[], str]
    cases: int
    seed: int
    told: Told
    rows: dict[str, Row] = field(default_factory=lambda: defaultdict(Row))
    findings: dict[str, str] = field(default_factory=dict)
    done: int = 0
    barren: set[tuple[str, GenerationMode]] = field(default_factory=set)
    """Operations that there are no cases of: one without parameters cannot be called wrongly, by no caller."""

    def run(self) -> None:
        """Make so many cases in all, spread over the operations and the callers."""
        configuration = schemathesis.Config.from_dict({"generation": {"with-security-parameters": False}})
        schema = schemathesis.openapi.from_dict(self.document, config=configuration)
        operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
        assert len(operations) == sum(len(path) for path in self.document["paths"].values())
        self.session = requests.Session()
        self.callers = [Caller(kind, self.new_key, self.base) for kind in WEIGHTS]
        for caller in self.callers:
            caller.begin()
        self._cover(operations)
        self._draw(operations)

    def _cover(self, operations: Sequence[Operation]) -> None:
        each = max(int(self.cases * COVERAGE) // (len(operations) * len(MODES)), 1)
        for operation in operations:
            for mode in MODES:
                edges = operation.schema.iter_coverage_cases(
                    operation,
                    generation_modes=[mode],
                    generation_config=operation.schema.config.generation_for(operation=operation, phase="coverage"),
                )
                for number, case in enumerate(islice(edges, each)):
                    self._send(self.callers[number % len(self.callers)], case, place=number)

    def _draw(self, operations: Sequence[Operation]) -> None:
        """Rounds, until there are enough: an operation that has no more to offer is left out of the next."""
        chance = random.Random(self.seed)
        live = [each for each in product(operations, self.callers, MODES) for _ in range(WEIGHTS[each[1].kind])]
        while self.done < self.cases and live:
            chance.shuffle(live)
            size = min(ROUND, max(1, -(-(self.cases - self.done) // len(live))))
            live = [each for each in live if self._round(each, size, chance.randrange(1 << 32)) == size]

    def _round(self, drawn: tuple[Operation, Caller, GenerationMode], size: int, number: int) -> int:
        """Draw so many cases; returns how many there were."""
        operation, caller, mode = drawn
        made = 0
        if (operation.label, mode) in self.barren:  # to find that again takes as long as ten cases
            return made

        @seed(number)
        @settings(
            max_examples=size,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(mode), place=st.integers(0, KNOWN))
        def one(case: OperationCase, place: int) -> None:
            nonlocal made
            if self.done < self.cases:
                made += 1
                self._send(caller, case, place)

        try:
            one()
        except Unsatisfiable:
            if not made:
                self.barren.add((operation.label, mode))
        return made

    def _send(self, caller: Caller, case: OperationCase, place: int) -> None:
        """Send `case`; every other one for something that is there, where it names something."""
        if place % 2:
            self._aim(caller, case, place // 2)
        response = case.call(base_url=self.base, session=self.session, headers=caller.headers)
        self.done += 1
        row = self.rows[case.operation.label]
        row.statuses[response.status_code] += 1
        try:
            case.validate_response(response, checks=CHECKS, headers=caller.headers)
        except FailureGroup as group:
            for failure in group.exceptions:
                row.breaches += response.status_code < 500
                self._found(case, caller, failure, response)
        if response.status_code in (200, 201) and "json" in response.headers["content-type"][0]:
            caller.learn(case.operation.path, response.json())
        if response.status_code == 401 and caller.kind != "nobody":
            caller.begin()
        self.told(self.done, len(self.findings))

    def _aim(self, caller: Caller, case: OperationCase, place: int) -> None:
        """Name what is there in place of what is not, and leave out what only an earlier answer could have given."""
        path = case.operation.path.partition("/{")[0]
        if case.path_parameters:
            case.path_parameters = {**case.path_parameters, **caller.named(case.path_parameters, path, place)}
        if case.query:
            case.query = {name: value for name, value in case.query.items() if name != "cursor"}
        if case.meta is None or not case.meta.generation.mode.is_positive:
            return
        if isinstance(case.body, dict):
            body = {name: value for name, value in case.body.items() if name != "cursor"}
            case.body = {**body, **caller.named(body, path, place)}
        if case.headers:
            case.headers = CaseInsensitiveDict(caller.named(case.headers, path, place))

    def _found(self, case: OperationCase, caller: Caller, failure: BaseException, response: Response) -> None:
        title = f"{case.operation.label}: {failure.title if isinstance(failure, Failure) else failure}"
        what = f"{title}, as {caller.kind}: {response.status_code}\n{str(failure)[:500]}\n{response.text[:500]}\n"
        self.findings.setdefault(f"{title} {response.status_code}", what + case.as_curl_command())


class RefusedForItsShape(Failure):
    """A request was refused that the document allows."""


def shape_is_taken(_: CheckContext, response: Response, case: OperationCase) -> None:
    """A valid request is refused for what it means, never for its shape: the document would have to say so.

    The exceptions are what a schema has no words for (`UNSAYABLE`).
    """
    positive = case.meta is not None and case.meta.generation.mode.is_positive
    if not positive or response.status_code not in (400, 415, 422) or is_padded(case.body):
        return
    # What is in a file no schema says.
    errors = [error["message"] for error in response.json().get("errors", ()) if error["field"] != "file"]
    if response.status_code != 422 or any(not re.search(UNSAYABLE, error) for error in errors):
        raise RefusedForItsShape(operation=case.operation.label, title="Valid data refused", message=response.text)


def invalid_is_refused(context: CheckContext, response: Response, case: OperationCase) -> None:
    """An invalid request is refused."""
    if not is_padded(case.body) and not spells_json(case.body):
        negative_data_rejection(context, response, case)


def is_padded(value: Any) -> bool:
    """Whether a text in `value` has white space at an end, which some fields drop before they are measured."""
    if isinstance(value, Mapping):
        return any(is_padded(each) for each in value.values())
    return value != value.strip() if isinstance(value, str) else isinstance(value, list) and any(map(is_padded, value))


def spells_json(value: Any) -> bool:
    """Whether a text in `value` is JSON, which tools take in place of what it spells."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return False
        return True
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(map(spells_json, parts))


class AnsweredWithoutCredential(Failure):
    """An operation that asks for a credential answered without one."""


def credential_is_asked_for(_: CheckContext, response: Response, case: OperationCase) -> None:
    """What the document guards is refused without a credential, whatever else is wrong with the request."""
    asked = case.operation.definition.raw.get("security", [])
    if asked and {} not in asked and "Authorization" not in response.request.headers and response.status_code < 400:
        raise AnsweredWithoutCredential(
            operation=case.operation.label, title="Answered without a credential", message=response.text
        )


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    invalid_is_refused,
    missing_required_header,
    unsupported_method,
    shape_is_taken,
    credential_is_asked_for,
]


async def fuzzed(
    client: Client, document: dict[str, Any], cases: int, *, seed: int = 0, told: Told | None = None
) -> Fuzz:
    """A run against a server of this event loop."""
    loop = asyncio.get_running_loop()

    def new_key() -> str:
        return asyncio.run_coroutine_threadsafe(client.new_key("*"), loop).result()

    run = Fuzz(str(client.http.base_url), document, new_key, cases, seed, told or (lambda done, findings: None))
    await asyncio.to_thread(run.run)
    return run


UNLIMITED = {name: 0 for name in Settings.model_fields if name.startswith("rate_")}
"""Settings under which nobody asks too often."""


async def whole(url: str, cases: int, seed: int, told: Told) -> Fuzz:
    """The run against a server of the reference workspace on the empty database at `url`."""
    database = Database(url)
    load_workspace(ROOT)  # the rights to its tables follow from its models
    await upgrade(database, ROOT)
    async with starter(database)(**UNLIMITED) as client:
        run = await fuzzed(client, await client.get("/openapi.json"), cases, seed=seed, told=told)
    await database.close()
    return run


def report(console: Console, rows: Mapping[str, Row], findings: Mapping[str, str]) -> None:
    table = Table("operation", "cases", "2xx", "4xx", "5xx", "breaches")
    for label, row in sorted(rows.items(), key=lambda each: each[0].split()[::-1]):
        table.add_row(label, *_counts([row]), style="red" if row.failed or row.breaches else None)
    table.add_section()
    table.add_row(f"{len(rows)} operations", *_counts(list(rows.values())))
    console.print(table)
    for what in islice(findings.values(), SHOWN):
        console.print(what + "\n", markup=False, soft_wrap=True)


def _counts(rows: Sequence[Row]) -> Iterator[str]:
    yield str(sum(row.statuses.total() for row in rows))
    for hundred in (2, 4):
        yield str(sum(n for row in rows for status, n in row.statuses.items() if status // 100 == hundred))
    yield str(sum(row.failed for row in rows))
    yield str(sum(row.breaches for row in rows))


def progress(console: Console, cases: int) -> Told:
    """A line that is written over; where there is no terminal, one for each tenth of the cases."""
    shown = -1

    def told(done: int, findings: int) -> None:
        nonlocal shown
        if (part := done * (100 if console.is_terminal else 10) // cases) != shown:
            shown = part
            console.print(f"{done} of {cases} cases, {findings} findings", end="\r" if console.is_terminal else "\n")

    return told


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--cases", type=int, default=10_000, help="in all")
    parser.add_argument("--seed", type=int, default=0, help="another one draws other cases")
    options = parser.parse_args()
    configure_logging("CRITICAL", "console")
    console = Console(stderr=True, highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    started = time.monotonic()
    told = progress(console, options.cases)
    run = asyncio.run(whole(start_embedded(folder), options.cases, options.seed, told))
    report(console, run.rows, run.findings)
    console.print(f"{run.done} cases in {time.monotonic() - started:.0f} seconds, {len(run.findings)} findings")
    shutil.rmtree(folder, ignore_errors=True)
    return 1 if run.findings else 0


if __name__ == "__main__":
    sys.exit(main())
