"""Tools for programmes of universities; data/programmes.yaml is where they come from."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from agent_server import Conflict, NotFound, SeedFile, ToolContext, tool
from tools.study.arguments import Level
from tools.study.models import Programme, StudyLevel
from tools.study.repository import ProgrammeRepository

PROGRAMMES = """
{% if not items %}
I know of no such programme. My list has {{ known }} programmes and is far from complete; search at https://www.ucas.com as well.
{% else %}
| Programme | University | Length | Source, read as of |
| --- | --- | --- | --- |
{% for p in items %}
| **{{ p.name }}** {{ p.award }} | {{ p.university }}, {{ p.city }} | {{ p.months }} months, {{ p.mode }} | {{ p.source }}, {{ p.source_date }} |
{% endfor %}
{% if total > items | length %}

And {{ total - items | length }} more.
{% endif %}

Fees and deadlines change with each year of entry: check them with the university.
{% endif %}
"""
PROGRAMME = """
**{{ name }}** {{ award }}, {{ university }}, {{ city }}

- Level: {{ level }} · Subject: {{ subject }}
- Length: {{ months }} months, {{ mode }} · Start: {{ start }}
- Tuition: {% if fee %}{{ fee }}{% else %}not stated in my source; check {{ check }}{% endif %}

{% if deposit_pounds %}
- Deposit: £{{ deposit_pounds }}
{% endif %}
- Deadline and present fee: check {{ check }}
- Source: {{ source }}, as of {{ source_date }}
"""
"""How programmes read."""

seed = SeedFile(Programme, Path(__file__).parent / "data" / "programmes.yaml", key="slug")


class ProgrammeView(BaseModel):
    """A programme. `months` is its length. `fee` and `deposit_pounds` are null where the source does not state them:
    then `check` is the page to look at, as always for deadlines. `source_date` says how old the facts are."""

    model_config = ConfigDict(from_attributes=True)

    slug: str
    university: str
    city: str
    nation: str
    name: str
    award: str
    level: StudyLevel
    subject: str
    months: int
    mode: str
    start: str
    fee: str | None
    deposit_pounds: int | None
    source: str
    source_date: str
    check: str


class Programmes(BaseModel):
    """Programmes by university; `total` is how many match, `known` how many there are in all."""

    items: list[ProgrammeView]
    total: int
    known: int


@tool(
    scope="programmes:read",
    effect="read",
    phrases=(
        "find [me] [all] [the|a] {level} [degree] [programmes|programme|programs|courses|course|degrees] in {subject}",
        "find [me] [all] [the|a] {level} [degree] [programmes|programme|programs|courses|course|degrees] in {subject} at {university}",
        "show [me] [all] [the] {level} [degree] [programmes|programs|courses|degrees] in {subject}",
        "list [all] [the] {level} [degree] [programmes|programs|courses|degrees] in {subject}",
        "search [for] [all] [the] {level} [degree] [programmes|programs|courses|degrees] in {subject}",
        "find [me] [all] [the] programmes in {subject}",
        "find [me] [all] [the] {subject} programmes in {city}",
        "which {level} [programmes|programs|courses|degrees] in {subject} are there",
        "which programmes are there in {subject}",
        "list [all] [the] programmes at {university}",
        "show [me] [all] [the] programmes at {university}",
    ),
    result=PROGRAMMES,
)
async def search_programmes(
    context: ToolContext,
    subject: Annotated[
        str | None,
        Field(min_length=1, max_length=100, description="Words of its name or subject, as in: data science."),
    ] = None,
    level: Level | None = None,
    city: Annotated[str | None, Field(min_length=1, max_length=100, description="A city or nation of the UK.")] = None,
    university: Annotated[str | None, Field(min_length=1, max_length=100, description="A part of its name.")] = None,
    limit: Annotated[int, Field(ge=1, le=60, description="How many, at most.")] = 10,
) -> Programmes:
    """Find programmes of UK universities by subject, level, city and university, each with its source and date. The list is a selection."""
    programmes = context.repository(ProgrammeRepository)
    rows, total = await programmes.first(programmes.wanted(subject, level, city, university), limit)
    _, known = await programmes.first(programmes.visible(), 1)
    return Programmes(items=[view_programme(row) for row in rows], total=total, known=known)


@tool(
    scope="programmes:read",
    effect="read",
    phrases=(
        "show [me] [the] programme {programme}",
        "tell me about the programme {programme}",
        "what does the programme {programme} cost",
    ),
    result=PROGRAMME,
)
async def get_programme(
    context: ToolContext,
    programme: Annotated[
        str, Field(min_length=1, max_length=200, description="Its slug, or words of its name and university.")
    ],
) -> ProgrammeView:
    """Read one programme with its source and date. Say a fee or deposit only where it is given here; for deadlines, and
    for whatever is null, name the page in `check`."""
    found = await context.repository(ProgrammeRepository).named(programme)
    if not found:
        raise NotFound(f"There is no programme {programme!r}; search_programmes finds those there are")
    if len(found) > 1:
        raise Conflict(
            f"{programme!r} could be any of {', '.join(row.slug for row in found[:10])}; give the slug of one"
        )
    return view_programme(found[0])


def view_programme(row: Programme) -> ProgrammeView:
    fields: dict[str, Any] = {name: getattr(row, name) for name in ProgrammeView.model_fields if hasattr(row, name)}
    fee = row.tuition and f"£{row.tuition['amount']:,} for {row.tuition['for']} students in {row.tuition['year']}"
    return ProgrammeView(**fields, fee=fee, deposit_pounds=row.deposit)
