"""How good the offline model's answers are: real ingest, real search, the questions of bench/offline_questions.yaml.

python -m bench.offline_answers [--show [WORD]]      --show prints the answers (to questions with WORD in them)
"""

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

import yaml

from agent_server.db import Database
from agent_server.db.embedded import start_embedded
from agent_server.db.migrate import upgrade
from agent_server.knowledge.embedders.wordllama import WordLlama
from agent_server.knowledge.ingest import ingest
from agent_server.knowledge.passages import CitedPassage
from agent_server.knowledge.rarity import count_words
from agent_server.knowledge.search import search
from agent_server.knowledge.words import content_words, language_of
from agent_server.offline.quote import select
from agent_server.settings import Settings
from tests.conftest import everything

ROOT = Path(__file__).parent.parent


async def measure(url: str, show: str | None) -> None:
    settings, database, embedder = Settings(), Database(url), WordLlama()
    await upgrade(database, ROOT)
    report = await ingest(database, embedder, ROOT / "content")
    print(f"{report.added} documents, {report.chunks} passages")
    questions = yaml.safe_load((ROOT / "bench" / "offline_questions.yaml").read_text())
    cited_first, held, refused, inside = 0, 0, 0, 0
    for asked in questions:
        async with everything(database) as session:
            passages = await search(
                session,
                embedder,
                asked["question"],
                limit=settings.search_limit,
                min_score=settings.search_min_score,
            )
            language = language_of(asked["question"])
            rarity = await count_words(session, content_words(asked["question"], language), language)
        cited = [CitedPassage(n, passage) for n, passage in enumerate(passages, 1)]
        answer = await select(asked["question"], cited, embedder, rarity=rarity)
        text = answer.text if answer else "-"
        wrong = []
        if asked["documents"]:
            inside += 1
            first = passages[answer.cited[0] - 1].document if answer else "nothing"
            if first in asked["documents"]:
                cited_first += 1
            else:
                wrong.append(f"cites {first} first")
            if answer and asked["needle"].lower() in text.lower():
                held += 1
            else:
                wrong.append(f"lacks {asked['needle']!r}")
        elif answer is None:
            refused += 1
        else:
            wrong.append("answers what is out of scope")
        if wrong or (show is not None and show.lower() in asked["question"].lower()):
            print(f"\n=== {asked['question']}  {'; '.join(wrong)}")
            print(text, [f"{c.n} {c.passage.heading} {c.passage.score:.2f}" for c in cited])
    outside = len(questions) - inside
    print(f"\nright document first {cited_first}/{inside}, needle held {held}/{inside}, refused {refused}/{outside}")
    await database.close()


def main() -> None:
    show = (sys.argv[2] if len(sys.argv) > 2 else "") if "--show" in sys.argv else None
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        asyncio.run(measure(start_embedded(folder), show))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
