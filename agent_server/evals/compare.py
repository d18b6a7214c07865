"""The same cases with two prompts: which verdicts and which answers differ."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rich.text import Text

from agent_server.db import Database
from agent_server.errors import InvalidInput, name_known
from agent_server.evals.cases import FOLDER, list_files, load_cases
from agent_server.evals.difference import diff_words, list_changed, reply_json, tell_changed
from agent_server.evals.edited import put_prompt
from agent_server.evals.prepared import scratch_database
from agent_server.evals.recordings import Recordings
from agent_server.evals.run import Result, Variant, choose_mode, choose_models, run_cases
from agent_server.models.choice import choose_model
from agent_server.prompts import AgentPrompt
from agent_server.settings import Settings
from agent_server.wording import count
from agent_server.workspace import Workspace


class Context(Protocol):
    """What is needed of a command."""

    settings: Settings

    @property
    def workspace(self) -> Workspace: ...

    async def raw_database(self) -> Database: ...


@dataclass(frozen=True)
class PromptComparison:
    """The results of the same cases with two variants, in the same order."""

    before: Sequence[Result]
    after: Sequence[Result]

    @property
    def pairs(self) -> Sequence[tuple[Result, Result]]:
        return list(zip(self.before, self.after, strict=True))

    def tell(self) -> Iterator[Text]:
        """For people: the cases that come out otherwise or are answered otherwise, and the sums."""
        answers = differ = 0
        for one, other in self.pairs:
            replies = list(zip(one.replies, other.replies, strict=False))
            changed = [pair for pair in replies if list_changed(*pair)]
            answers, differ = answers + len(replies), differ + len(changed)
            if not changed and one.verdict == other.verdict:
                continue
            verdicts = one.verdict if one.verdict == other.verdict else f"{one.verdict} -> {other.verdict}"
            style = "" if one.verdict == other.verdict else "green" if other.passed else "red"
            shown = Text.assemble((f"{one.case.file}:{one.case.line} {one.case.name}", "bold"), ": ", (verdicts, style))
            yield shown
            if one.verdict != other.verdict:
                yield from (Text(f"  {reason}") for reason in (one.reasons or other.reasons))
            for before, now in changed:
                if len(replies) > 1:
                    yield Text(f"  {before.message!r}")
                told = tell_changed(before, now)
                told.rstrip()
                yield told
        yield Text(
            f"{_name(self.before)}: {_passed(self.before)}, {_tokens(self.before)} tokens; "
            f"{_name(self.after)}: {_passed(self.after)}, {_tokens(self.after)} tokens; "
            f"{differ} of {count(answers, 'answer')} {'differs' if differ == 1 else 'differ'}"
        )

    def as_json(self) -> dict[str, Any]:
        """As JSON-ready data. In `text_diff` [-this-] is gone and {+this+} is new."""
        return {
            "before": _sums(self.before),
            "after": _sums(self.after),
            "cases": [
                {
                    "id": one.case.id,
                    "verdicts": [one.verdict, other.verdict],
                    "reasons": [list(one.reasons), list(other.reasons)],
                    "replies": [
                        {
                            "changed": list(list_changed(before, now)),
                            "before": reply_json(before),
                            "after": reply_json(now),
                            "text_diff": diff_words(before.answer.text, now.answer.text).plain,
                        }
                        for before, now in zip(one.replies, other.replies, strict=False)
                    ],
                }
                for one, other in self.pairs
            ],
        }


async def compare_prompts(context: Context, one: AgentPrompt, other: AgentPrompt) -> PromptComparison:
    """Run the cases of the workspace with both prompts of an agent. Raises InvalidInput and WorkspaceInvalid.

    The model that is configured is asked. Without one the recordings answer, and an edited prompt misses its own.
    """
    workspace, settings = context.workspace, context.settings
    if one.name != other.name:
        raise InvalidInput(
            f"--cases: {one.file} is of {one.name} and {other.file} of {other.name}; name two of one agent"
        )
    if one.name not in workspace.agents:
        raise InvalidInput(f"--cases: there is no agent {one.name!r}; {name_known(one.name, workspace.agents)}")
    files = list_files(workspace.root, workspace.left_out.evals)
    if not files:
        raise InvalidInput(f"--cases: there are no cases; write {FOLDER}/first.yaml, as docs/testing.md shows")
    cases = load_cases(files, workspace)
    recordings = Recordings(workspace.root, "off")
    recorded = recordings.list_models(cases)
    if choose_model(settings).offline:
        recordings.mode = choose_mode(None, recorded)
    model = choose_models(settings, (), recordings.mode, recorded, workspace)[0]
    variants = [
        Variant(model=model, workspace=put_prompt(prompt, workspace), label=f"{prompt.file} ({prompt.sha})")
        for prompt in (one, other)
    ]
    async with scratch_database(settings, workspace, await context.raw_database()) as database:
        results = await run_cases(settings, variants, cases, database, recordings)
    return PromptComparison(results[: len(cases)], results[len(cases) :])


def pair_variants(results: Sequence[Result], prompts: int) -> Sequence[PromptComparison]:
    """The comparisons of a run with two prompts, one for each model."""
    names = list(dict.fromkeys(result.variant for result in results))
    if prompts != 2 or len(names) % 2:
        return []
    of = {name: [result for result in results if result.variant == name] for name in names}
    return [PromptComparison(of[one], of[other]) for one, other in zip(names[::2], names[1::2], strict=True)]


def _sums(results: Sequence[Result]) -> dict[str, Any]:
    passed = sum(result.passed for result in results)
    return {"variant": _name(results), "passed": passed, "cases": len(results), "tokens": _tokens(results)}


def _name(results: Sequence[Result]) -> str:
    return results[0].variant if results else ""


def _passed(results: Sequence[Result]) -> str:
    return f"{sum(result.passed for result in results)} of {count(len(results), 'case')} passed"


def _tokens(results: Sequence[Result]) -> int:
    return sum(reply.tokens for result in results for reply in result.replies)
