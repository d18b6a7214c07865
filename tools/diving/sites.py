"""Tools for dive sites; data/sites.yaml is where they come from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import col

from agent_server import Conflict, NotFound, SeedFile, ToolContext, tool
from tools.diving.arguments import SuitsLevel
from tools.diving.models import Current, DiveSite, Kind, Level
from tools.diving.repository import DestinationRepository, SiteRepository, mentioning

SITES = """
{% if not items %}
There are no such dive sites.
{% elif items | length < 4 %}
{% for site in items %}
- **{{ site.name }}** ({{ site.kind }}, {{ site.level | words }}, to {{ site.max_depth_m }} m): {{ site.summary }}
{% endfor %}
{% else %}
| Dive site | Kind | Level | Depth | Current |
| --- | --- | --- | --- | --- |
{% for site in items %}
| **{{ site.name }}** | {{ site.kind }} | {{ site.level | words }} | {{ site.max_depth_m }} m | {{ site.current }} |
{% endfor %}
{% endif %}
{% if total > items | length %}

And {{ total - items | length }} more.
{% endif %}
"""
SITE = """
**{{ name }}**: {{ summary }}

- {{ kind | capitalize }} to {{ max_depth_m }} m, {{ "no" if current == "none" else current }} current, for {{ level | words }} divers
{% if hazards %}
- Watch out for: {{ hazards }}
{% endif %}
- Position, not for navigation: {{ latitude | abs }}° {{ "N" if latitude >= 0 else "S" }}, {{ longitude | abs }}° {{ "E" if longitude >= 0 else "W" }}
"""
"""How dive sites read."""

seed = SeedFile(DiveSite, Path(__file__).parent / "data" / "sites.yaml", key="slug")


class SiteView(BaseModel):
    """A dive site; `destination` is its destination's slug, `max_depth_m` the deepest point that a visitor of its
    `level` plans to reach. The position is not for navigation."""

    model_config = ConfigDict(from_attributes=True)

    slug: str
    name: str
    destination: str
    kind: Kind
    level: Level
    max_depth_m: int
    current: Current
    latitude: float
    longitude: float
    summary: str
    hazards: list[str]


class Sites(BaseModel):
    """Dive sites by name; `total` is how many there are, of which `items` are the first."""

    items: list[SiteView]
    total: int


@tool(
    scope="sites:read",
    effect="read",
    phrases=(
        "show [me] [all] [the] [dive|diving] sites [near|at|in|around|of] [the] {destination}",
        "list [all] [the] [dive|diving] sites [near|at|in|around|of] [the] {destination}",
        "find [me] [all] [the] [dive|diving] sites [near|at|in|around] [the] {destination}",
        "which [dive|diving] sites are there [near|at|in|around] [the] {destination}",
        "what [dive|diving] sites are there [near|at|in|around] [the] {destination}",
        "what are the [best] [dive|diving] sites [near|at|in|around|of] [the] {destination}",
        "show [me] [all] [the] {kind} dives [near|at|in|around] [the] {destination}",
        "list [all] [the] {kind} dives [near|at|in|around] [the] {destination}",
        "find [me] [all] [the] {kind} dives [near|at|in|around] [the] {destination}",
        "show [me] [all] [the] {kind} dives [near|at|in|around] [the] {destination} not deeper than {max_depth_m} m",
    ),
    result=SITES,
)
async def search_sites(
    context: ToolContext,
    text: Annotated[
        str | None, Field(max_length=200, description="Words of its name, summary or hazards, as in: manta rays.")
    ] = None,
    destination: Annotated[
        str | None,
        Field(
            min_length=1, max_length=100, description="A destination's slug or name, a country, a region or a place."
        ),
    ] = None,
    level: SuitsLevel = None,
    kind: Annotated[Kind | None, Field(description="What sort of dive it is.")] = None,
    max_depth_m: Annotated[
        int | None, Field(ge=1, le=300, description="Leaves out sites that are planned deeper than this, metres.")
    ] = None,
    limit: Annotated[int, Field(ge=1, le=100, description="How many, at most.")] = 20,
) -> Sites:
    """Find dive sites by place, level, kind, depth and words. What is not given does not matter."""
    sites = context.repository(SiteRepository)
    wanted = mentioning(sites.suited(level, kind, max_depth_m), text or "")
    if destination is None:
        return _view(*await sites.first(wanted, limit))
    destinations = context.repository(DestinationRepository)
    if found := await destinations.named(destination):
        wanted = wanted.where(col(DiveSite.destination).in_([row.slug for row in found]))
        return _view(*await sites.first(wanted, limit))
    rows, total = await sites.first(mentioning(wanted, destination), limit)  # a town or an island
    if not rows:
        known = ", ".join(row.name for row in await destinations.suited())
        raise NotFound(f"There are no such sites at a place called {destination!r}; the destinations are {known}")
    return _view(rows, total)


@tool(scope="sites:read", effect="read", phrases=("show [me] [the] [dive|diving] site {slug}",), result=SITE)
async def get_site(
    context: ToolContext,
    slug: Annotated[
        str, Field(min_length=1, max_length=100, description="The site's slug, as in ss-thistlegorm, or its name.")
    ],
) -> SiteView:
    """Read one dive site: kind, level, depth, current, position, what it is like and its hazards."""
    found = await context.repository(SiteRepository).named(slug)
    if not found:
        raise NotFound(f"There is no dive site {slug!r}; search_sites finds those there are")
    if len(found) > 1:
        choices = ", ".join(row.slug for row in found[:10])
        raise Conflict(f"{slug!r} could be any of {choices}; give the slug of one")
    return SiteView.model_validate(found[0])


def _view(rows: Sequence[DiveSite], total: int) -> Sites:
    return Sites(items=[SiteView.model_validate(row) for row in rows], total=total)
