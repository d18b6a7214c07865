"""The text of a report: what is put together of profile, programmes and pages, and what an agent has written."""

import re
from collections.abc import Mapping, Sequence
from datetime import date

from agent_server import InvalidInput, Passage, ToolContext, list_documents, search_knowledge
from tools.study.models import Programme
from tools.study.profile import StudentProfile
from tools.study.programmes import view_programme
from tools.study.repository import ProgrammeRepository

COLLECTION = "study"
LONGEST_QUOTE = 700
_MOST_PROGRAMMES = 8
_MARK = re.compile(r"\[(\d{1,3})\]")
_FIRST: Mapping[str | None, Sequence[tuple[str, str]]] = {
    "bachelor": (
        ("Entry", "What grades do I need to get into a bachelor's degree in the UK?"),
        ("Applying", "When is the UCAS deadline?"),
    ),
    "master": (
        ("Entry", "What degree and grade does a master's ask for, what is a 2:1?"),
        ("Applying", "Do I apply for a master's degree through UCAS or directly to the university?"),
    ),
}
"""What is looked up for a level, as heading and question."""
_VISA = (
    ("The Student visa", "What does the Student visa cost, and when can I apply?"),
    ("Money to show", "How much money do I need to show for the Student visa?"),
    ("English", "What level of English does the Student visa need?"),
    ("Health surcharge", "How much is the immigration health surcharge for students?"),
    ("Work during the studies", "How many hours can I work during term?"),
    ("After the studies", "How long can I stay on the Graduate visa?"),
)
_ALWAYS = (
    ("Fees", "Do I pay home or overseas tuition fees?"),
    ("Living", "What does living in the UK cost a student, and what is the rent?"),
)


async def compose(context: ToolContext, topic: str, profile: StudentProfile, on: date) -> tuple[str, list[str]]:
    """A report in Markdown and the documents that it quotes: of each question the passage that answers it best."""
    asked = [("Your question", topic), *_FIRST.get(_first_of(profile.level), ()), *_ALWAYS]
    asked += _VISA if profile.needs_visa is not False else ()
    parts, cited = [], list[Passage]()
    for number, (heading, question) in enumerate(asked, 1):
        await context.report_progress(number, len(asked), heading)
        found = (await search_knowledge(context, query=question, limit=1, collections=[COLLECTION])).hits
        new = [passage for passage in found if passage.id not in {each.id for each in cited}]
        if not new:  # said already under another heading, or not known
            continue
        cited += new
        quote = "\n".join(f"> {line}".rstrip() for line in shorten(new[0].text).splitlines())
        parts.append(f"## {heading}\n\n{quote} [{len(cited)}]")
    text = "\n\n".join([*parts, await _describe_programmes(context, profile)])
    documents = [f"{passage.title}, {passage.heading} ({passage.document})" for passage in cited]
    return frame(topic, profile, text, documents, on), [passage.document for passage in cited]


async def edit(
    context: ToolContext, topic: str, profile: StudentProfile, text: str, sources: Sequence[str], on: date
) -> str:
    """The report that an agent has written, whose marks [1], [2] ... stand for `sources`. Raises InvalidInput for a text
    without marks, for a mark that stands for nothing, and for a source that is no page of the content."""
    marks = {int(mark) for mark in _MARK.findall(text)}
    if not marks:
        raise InvalidInput("text: cites nothing; write [1] behind what the first page of sources says, and so on")
    if wrong := sorted(mark for mark in marks if not 1 <= mark <= len(sources)):
        raise InvalidInput(f"text: [{wrong[0]}] stands for nothing; sources has {len(sources)} pages")
    known = {document.path for document in (await list_documents(context)).items if document.collection == COLLECTION}
    if unknown := [source for source in sources if source not in known]:
        raise InvalidInput(f"sources: there is no page {unknown[0]!r}; name pages as search_knowledge gives them")
    whole = f"{text.strip()}\n\n{await _describe_programmes(context, profile)}"
    return frame(topic, profile, whole, sources, on)


def frame(topic: str, profile: StudentProfile, text: str, sources: Sequence[str], on: date) -> str:
    """A report with its head and its sources."""
    told = [
        ("Level", profile.level),
        ("Subjects", profile.subjects),
        ("Goals", profile.goals),
        ("Budget for a year", f"£{profile.budget_pounds:,}" if profile.budget_pounds is not None else None),
        ("English test", profile.english_test),
        ("Needs a visa", None if profile.needs_visa is None else "yes" if profile.needs_visa else "no"),
    ]
    lines = "\n".join(f"- {name}: {value}" for name, value in told if value is not None)
    about = (
        lines or "- Nothing was known of you: tell the adviser your level and subject for a report that fits better."
    )
    listed = "\n".join(f"{number}. {source}" for number, source in enumerate(sources, 1))
    return (
        f"# {topic}\n\nAs of {on.isoformat()}. Rules, fees and deadlines change: check each with the page that its "
        f"source names. This is no immigration advice in the sense of the law.\n\n## About you\n\n{about}\n\n{text}\n\n"
        f"## Sources\n\n{listed}\n"
    )


async def _describe_programmes(context: ToolContext, profile: StudentProfile) -> str:
    programmes = context.repository(ProgrammeRepository)
    rows: Sequence[Programme] = ()
    if profile.subjects:
        rows, _ = await programmes.first(programmes.wanted(profile.subjects, profile.level), _MOST_PROGRAMMES)
    if not rows:
        none = "The list has no programme that fits what is known of you; search at https://www.ucas.com"
        return f"## Programmes\n\n{none}"
    lines = []
    for view in map(view_programme, rows):
        fee = view.fee or f"not stated in the source; check {view.check}"
        lines.append(
            f"- {view.name} {view.award}, {view.university}, {view.city}, {view.months} months. Fee: {fee}. "
            f"Deadline: check {view.check}. Source: {view.source}, as of {view.source_date}"
        )
    return "## Programmes\n\nA selection, not a ranking.\n\n" + "\n".join(lines)


def shorten(text: str) -> str:
    """The text up to the last sentence or line that ends within `LONGEST_QUOTE`."""
    text = text.strip()
    if len(text) <= LONGEST_QUOTE:
        return text
    cut = text[:LONGEST_QUOTE]
    end = max(cut.rfind(". ") + 1, cut.rfind("\n"))
    return cut[: end if end > 0 else LONGEST_QUOTE].rstrip()


def _first_of(level: str | None) -> str | None:
    return "bachelor" if level in ("bachelor", "integrated master") else level
