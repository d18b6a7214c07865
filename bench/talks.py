"""Conversations to search in: of one caller very many, beside those of others, in words as common as those of people.

How often a word is used falls with its rank, as in any language. A few kinds of talk are about one
thing or in another script, so that there are words for each kind of search (`SEARCHES`).
"""

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from uuid import UUID, uuid5

import asyncpg

from bench.cost import Tell
from bench.stage import ROOT

OWNERS = 100
"""Other callers, who have as many conversations together as a tenth of the one's."""
CHUNK = 5_000
"""Conversations that are stored at once."""
_FRENCH = ["où est l'été", "une très belle plongée", "ça coûte combien", "l’hôtel est fermé", "à bientôt, José"]
_ARABIC = ["أين دورة الغوص", "شكرا جزيلا لك", "كم يكلف ذلك", "البحر الأحمر جميل"]
_HAN = ["潜水课程多少钱", "ダイビングを始めたい", "海の中はきれいです", "谢谢你的帮助", "東京から来ました"]
_EMOJI = ["🐠", "🤿🌊", "👍🏽", "❤️", "🙏"]
_NAMES = ["Müller", "O'Brien", "Nguyễn", "Smith", "García", "Ångström"]

SEARCHES = {
    "one letter": ["a", "q", "é", "7"],
    "two letters": ["an", "zo", "qx", "7 ", "st", "er"],
    "three letters": ["str", "qqq", "dan", "9 1"],
    "a common word": ["{0}", "{1}", "{5}", "{20}", "thank you"],
    "a word": ["{200}", "{800}", "{1500}", "{3000}"],
    "a rare word": ["{8000}", "{12000}", "{19000}"],
    "many words of one": ["{said}", "{said long}", "{said old}"],
    "many words of none": ["{0} {1} {2} {3} {4} {5} {6} {7} {8} {9}", "{100} {101} {102} {103}", "{0} {0} {0}"],
    "two words": ["{0} {1}", "{3} {40}", "{300} {2}", "{2} {900}"],
    "accents": ["où est", "TRES BELLE PLONGEE", "ça coûte combien", "hôtel fermé", "jose"],
    "Arabic": ["الغوص", "شكرا", "ين", "القاهرة"],
    "Japanese, Chinese": ["潜水", "ダイビング", "水", "海の中", "北京", "ダイビン グ"],
    "emoji": ["🐠", "🤿🌊", "❤️", "🦑", "👍"],
    "names in titles": ["Müller", "o'brien", "nguyen", "Ångström {0}"],
    "numbers": ["4711", "no. 99", "2026", "00", "order 12"],
    "of the older half": ["ago", "before the move", "bef"],
    "of all": ["thank you for your question", "?", "question"],
    "of none": ["zzyzx", "xq", "thank you for your questions", "noitseuq"],
}
"""By kind. A number in braces is the rank of a word; `said` a piece of one message."""


def make_vocabulary() -> list[str]:
    """20,000 words, the most common first: those of the content here, and then words made of their halves."""
    counts = Counter[str]()
    for path in sorted((ROOT / "content").rglob("*.md")):
        counts.update(re.findall(r"[^\W\d_]+", path.read_text().lower()))
    chance, words = random.Random(1), dict.fromkeys(word for word, _ in counts.most_common())
    long = [word for word in words if len(word) > 5]
    while len(words) < 20_000:
        first, last = chance.choices(long, k=2)
        words[first[: len(first) // 2] + last[len(last) // 2 :]] = None
    return list(words)


class Talk:
    """What people and agents say."""

    def __init__(self, seed: int) -> None:
        self.chance, self.words = random.Random(seed), make_vocabulary()
        self.weights = list(accumulate(1 / (rank + 3) for rank in range(len(self.words))))

    def say(self, fewest: int, most: int) -> str:
        chance = self.chance
        said = chance.choices(self.words, cum_weights=self.weights, k=chance.randint(fewest, most))
        kind = chance.random()
        for share, pieces in ((0.03, _FRENCH), (0.05, _ARABIC), (0.09, _HAN), (0.12, _EMOJI)):
            if kind < share:
                said.insert(len(said) // 2, chance.choice(pieces))
                break
        return " ".join(said)

    def title(self, number: int) -> str:
        name = f"{self.chance.choice(_NAMES)} " if self.chance.random() < 0.02 else ""
        return f"{name}{self.say(2, 5)}" + (f", order {number}" if number % 10 == 0 else "")

    def messages(self, number: int, *, old: bool) -> Iterator[tuple[str, str]]:
        """Roles and texts: most conversations are of one turn, a few of many."""
        for _ in range(1 + int(self.chance.expovariate(2))):
            yield "user", f"{self.say(4, 14)}?"
            before = "Ago, before the move, " if old and self.chance.random() < 0.3 else ""
            yield "assistant", f"Thank you for your question no. {number}. {before}{self.say(30, 70)}."


async def fill_talks(connection: asyncpg.Connection, conversations: int, tell: Tell) -> UUID:
    """Store so many conversations of one owner, and a tenth of them of others. Returns whose the many are."""
    talk, now, many = Talk(2), datetime.now(UTC), UUID(int=7 << 100)
    owners = [many] * 10 + [uuid5(many, str(n)) for n in range(OWNERS)]
    await connection.execute("set session_replication_role = replica; set synchronous_commit = off")
    total = conversations + conversations // 10
    for first in range(0, total, CHUNK):
        tell(f"{first:,} of {total:,} conversations stored")
        rows: list[Sequence[object]] = []
        items: list[Sequence[object]] = []
        for n in range(first, min(first + CHUNK, total)):
            owner = many if n % 11 else owners[10 + n // 11 % OWNERS]
            id, at = uuid5(many, f"talk {n}"), now - timedelta(minutes=5 * n)
            messages = list(talk.messages(n, old=n > total / 2))
            rows.append((owner, id, talk.title(n), len(messages) // 2 + 1, at, at))
            items += [
                (owner, id, k // 2 + 1, k % 2, id, role, said, "{}", "[]", at)
                for k, (role, said) in enumerate(messages)
            ]
        # A search reads them as they lie, and they were not stored by age.
        talk.chance.shuffle(rows)
        columns = ["owner_id", "id", "title", "next_turn", "created_at", "updated_at"]
        await connection.copy_records_to_table("conversation", records=rows, columns=columns)
        columns = [
            "owner_id",
            "conversation_id",
            "turn_no",
            "k",
            "turn_id",
            "role",
            "text",
            "body",
            "sources",
            "created_at",
        ]
        await connection.copy_records_to_table("item", records=items, columns=columns)
    await connection.execute("reset session_replication_role")
    return many


async def spell_searches(connection: asyncpg.Connection, owner: UUID) -> list[tuple[str, str]]:
    """Each search with its kind, in the words that there are."""
    words = make_vocabulary()
    said = await connection.fetch(
        """select i.text from conversation c join item i on i.owner_id = c.owner_id and i.conversation_id = c.id
           where c.owner_id = $1 and i.role = 'assistant' and i.turn_no = 1 order by c.updated_at""",
        owner,
    )
    pieces = {
        "said": said[len(said) // 2][0][40:90],
        "said long": said[len(said) // 3][0][45:250],
        "said old": said[0][0][-60:],
    }

    def spell(template: str) -> str:
        for name, piece in pieces.items():
            template = template.replace(f"{{{name}}}", piece)
        return template.format(*words) if "{" in template else template

    return [(kind, spell(template)) for kind, templates in SEARCHES.items() for template in templates]
