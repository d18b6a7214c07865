"""agent-server eval run"""

import functools
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from agent_server.commands.context import CommandContext
from agent_server.commands.stores import open_database
from agent_server.commands.terminal import fail, show
from agent_server.errors import InvalidInput, WorkspaceInvalid, name_known
from agent_server.evals.cases import FOLDER, Case, list_files, load_cases
from agent_server.evals.compare import pair_variants
from agent_server.evals.edited import put_prompt, read_edited
from agent_server.evals.format import case_schema
from agent_server.evals.prepared import scratch_database
from agent_server.evals.recordings import MODES, Mode, Recordings
from agent_server.evals.report import (
    WRONG,
    compare,
    exit_status,
    print_matrix,
    print_summary,
    read_baseline,
    report_json,
    save_baseline,
    write_junit,
)
from agent_server.evals.run import Variant, choose_mode, choose_models, run_cases
from agent_server.models.choice import OFFLINE, find_problem_of_name, full_name
from agent_server.workspace import Workspace

Command = Callable[..., Awaitable[int]]


def answers_mistakes(command: Command) -> Command:
    """Ends with 2 where the files or what was asked for are wrong: 1 says that a case failed."""

    @functools.wraps(command)
    async def run(*args: Any, **options: Any) -> int:
        try:
            return await command(*args, **options)
        except WorkspaceInvalid as error:
            for problem in error.problems:
                fail(str(problem))
        except InvalidInput as error:
            fail(f"{error.code}: {error.message}")
        return WRONG

    return run


@answers_mistakes
async def run(
    context: CommandContext,
    files: Sequence[str],
    prompt: Path | None,
    versus: Path | None,
    models: Sequence[str],
    recordings: str | None,
    watch: bool,
    as_json: bool,
    junit: Path | None,
    baseline: Path | None,
    save: bool,
) -> int:
    if versus is not None and prompt is None:
        raise typer.BadParameter("give both, --prompt X --vs Y, to run the cases with each")
    if recordings is not None and recordings not in MODES:
        raise typer.BadParameter(f"--recordings: {name_known(recordings, MODES)}")
    if watch and (as_json or junit or save or prompt):
        raise typer.BadParameter(
            "--watch shows what people read; leave out --json, --junit, --save-baseline and --prompt"
        )
    workspace = context.workspace
    cases = choose_cases(files, workspace)
    kept = Recordings(workspace.root, "off")
    recorded = kept.list_models(cases)
    kept.mode = choose_mode(_mode(recordings), recorded)
    variants = _list_variants(context, models, prompt, versus, kept.mode, recorded)
    before_file = baseline or workspace.root / FOLDER / "baseline.json"
    before = read_baseline(before_file)
    if baseline is not None and before is None and not save:
        raise InvalidInput(f"{baseline}: there is no such file; write it with --save-baseline")
    beside = await open_database(context.settings)
    try:
        async with scratch_database(context.settings, workspace, beside) as database:
            if watch:
                from agent_server.commands.watching import watch_cases  # noqa: PLC0415  # heavy

                return await watch_cases(context.settings, variants[0], files, cases, database, kept)
            results = await run_cases(context.settings, variants, cases, database, kept)
    finally:
        await beside.close()
    changes = compare(results, before) if before is not None else None
    if save:
        save_baseline(before_file, results, before)
    if junit is not None:
        write_junit(junit, results)
    compared = pair_variants(results, sum(path is not None for path in (prompt, versus)))
    if as_json:
        show(report_json(results, changes, compared))
    else:
        console = Console()
        print_matrix(console, results)
        print_summary(console, results, changes, compared)
    return exit_status(results)


async def schema(context: CommandContext) -> int:
    show(case_schema())
    return 0


def choose_cases(files: Sequence[str], workspace: Workspace) -> Sequence[Case]:
    """The cases of these files, or those of all. `file::name` is one case. Raises InvalidInput and WorkspaceInvalid."""
    names = {str(Path(file.partition("::")[0]).resolve()): Path(file.partition("::")[0]) for file in files}
    for path in names.values():
        if path.stem in workspace.left_out.evals and path.resolve().parent == workspace.root / FOLDER:
            raise InvalidInput(f"{path}: is of a slice that AGENT_SERVER_SLICES leaves out; add the slice to it")
    paths = list(names.values()) or list_files(workspace.root, workspace.left_out.evals)
    if not paths:
        raise InvalidInput(f"There are no cases; write {FOLDER}/first.yaml, as docs/testing.md shows")
    cases = load_cases(paths, workspace)
    single = {(str(Path(path).resolve()), name) for path, colons, name in (f.partition("::") for f in files) if colons}
    whole = {str(Path(file).resolve()) for file in files if "::" not in file}
    if not single:
        return cases

    def chosen(case: Case) -> bool:
        file = str((workspace.root / case.file).resolve())
        return file in whole or (file, case.name) in single

    found = [case for case in cases if chosen(case)]
    there = {(str((workspace.root / case.file).resolve()), case.name) for case in cases}
    for file, name in sorted(single - there):
        raise InvalidInput(f"{file}: there is no case {name!r}; {name_known(name, [n for f, n in there if f == file])}")
    return found


def _mode(given: str | None) -> Mode | None:
    return next((mode for mode in MODES if mode == given), None)


def _list_variants(
    context: CommandContext,
    models: Sequence[str],
    prompt: Path | None,
    versus: Path | None,
    mode: Mode,
    recorded: Sequence[str],
) -> Sequence[Variant]:
    workspace, settings = context.workspace, context.settings
    for model in models:
        if model != OFFLINE and (problem := find_problem_of_name(model, settings)):
            raise InvalidInput(f"--model: {problem}")
    names = [full_name(model, settings) for model in models]
    edited = [(str(path), put_prompt(read_edited(path, workspace), workspace)) for path in (prompt, versus) if path]
    # One prompt is told from none by nothing: a baseline was made with the one that is saved.
    labelled = [("" if len(edited) == 1 else label, changed) for label, changed in edited] or [("", workspace)]
    return [
        Variant(model=model, workspace=changed, label=label, only=bool(models))
        for model in choose_models(settings, names, mode, recorded, workspace)
        for label, changed in labelled
    ]
