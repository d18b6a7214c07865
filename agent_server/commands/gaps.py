"""agent-server content gaps"""

from datetime import UTC, datetime, timedelta

from agent_server.commands.context import CommandContext
from agent_server.commands.dates import read_since
from agent_server.commands.terminal import say, show
from agent_server.evals.gaps import Gap, find_gaps
from agent_server.knowledge.embedders import open_embedder
from agent_server.wording import shorten

DAYS = 30


async def list_gaps(context: CommandContext, since: str | None, as_json: bool) -> None:
    begin = read_since(since) if since else datetime.now(UTC) - timedelta(days=DAYS)
    database, caller = await context.database(), await context.caller()
    gaps = await find_gaps(database, open_embedder(context.settings), begin, caller)
    if as_json:
        show([_view(gap) for gap in gaps])
        return
    if not gaps:
        say(f"Since {begin:%Y-%m-%d} the content has answered all that was asked.")
    for gap in gaps:
        say(f"{gap.count:4} {gap.last_asked:%Y-%m-%d}  {shorten(gap.questions[0])}")
        for other in gap.questions[1:]:
            say(f"                 {shorten(other)}")
        if gap.nearest is not None:
            say(f"                 nearest: {gap.nearest.document} ({gap.nearest.heading})")


def _view(gap: Gap) -> dict[str, object]:
    nearest = gap.nearest
    return {
        "count": gap.count,
        "last_asked": gap.last_asked,
        "questions": gap.questions,
        "nearest": nearest and {"document": nearest.document, "heading": nearest.heading, "score": nearest.score},
    }
