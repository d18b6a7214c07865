"""Tools for dive destinations; data/destinations.yaml is where they come from."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from agent_server import Conflict, NotFound, SeedFile, ToolContext, tool
from tools.diving.arguments import Month, SuitsLevel
from tools.diving.models import Destination, DiveSite, Kind, Level
from tools.diving.repository import DestinationRepository, SiteRepository

DESTINATIONS = """
{% if not items %}
There are no such destinations.
{% elif items | length < 4 %}
{% for place in items %}
- **{{ place.name }}**: {{ place.summary }} Best in {{ place.season_months | months }}, water {{ place.water_min_c }} to {{ place.water_max_c }} °C, level from {{ place.level | words }} up.
{% endfor %}
{% else %}
| Destination | Best months | Water | Known for |
| --- | --- | --- | --- |
{% for place in items %}
| **{{ place.name }}**, {{ place.level | words }} | {{ place.season_months | months }} | {{ place.water_min_c }} to {{ place.water_max_c }} °C | {{ place.known_for[:3] }} |
{% endfor %}
{% endif %}
"""
DESTINATION = """
**{{ name }}**: {{ summary }}

- Best months: {{ season_months | months }}
- Water over the year: {{ water_min_c }} to {{ water_max_c }} °C
- Level: {{ level | words }} and up · Known for: {{ known_for }}
{% if sites %}

| Dive site | Kind | Level | Depth |
| --- | --- | --- | --- |
{% for site in sites %}
| {{ site.name }} | {{ site.kind }} | {{ site.level | words }} | {{ site.max_depth_m }} m |
{% endfor %}
{% endif %}
"""
"""How destinations read."""

seed = SeedFile(Destination, Path(__file__).parent / "data" / "destinations.yaml", key="slug")


class DestinationView(BaseModel):
    """A destination. Months are 1 to 12, the best to go; water in degrees Celsius over the year; `level` is the lowest
    that makes good use of it; `page` is its text in the knowledge base."""

    model_config = ConfigDict(from_attributes=True)

    slug: str
    name: str
    country: str
    region: str
    summary: str
    season_months: list[int]
    water_min_c: int
    water_max_c: int
    level: Level
    known_for: list[str]
    page: str


class Destinations(BaseModel):
    """Destinations by name."""

    items: list[DestinationView]


class SiteSummary(BaseModel):
    """A dive site in short."""

    model_config = ConfigDict(from_attributes=True)

    slug: str
    name: str
    kind: Kind
    level: Level
    max_depth_m: int


class DestinationDetail(DestinationView):
    """A destination with its dive sites."""

    sites: list[SiteSummary]


@tool(
    scope="destinations:read",
    effect="read",
    phrases=(
        "show [me] [all] [the|your] [dive|diving] destinations",
        "list [all] [the|your] [dive|diving] destinations",
        "which [dive|diving] destinations are there",
        "what [dive|diving] destinations are there",
        "which [dive|diving] destinations are good in {month}",
        "where should [i|we] [go] [dive|diving] in {month}",
        "where can [i|we] [go] [dive|diving] in {month}",
        "where to [go] [dive|diving] in {month}",
    ),
    result=DESTINATIONS,
)
async def list_destinations(
    context: ToolContext,
    month: Month = None,
    level: SuitsLevel = None,
) -> Destinations:
    """List dive destinations, by the month to travel in and by what the diver is up to."""
    rows = await context.repository(DestinationRepository).suited(month, level)
    return Destinations(items=[DestinationView.model_validate(row) for row in rows])


@tool(
    scope="destinations:read",
    effect="read",
    phrases=("show [me] [the] [dive|diving] destination {slug}",),
    result=DESTINATION,
)
async def get_destination(
    context: ToolContext,
    slug: Annotated[
        str,
        Field(min_length=1, max_length=100, description="The destination's slug, as in red-sea-egypt, or its name."),
    ],
) -> DestinationDetail:
    """Read one dive destination: season, water, level, what it is known for, and its dive sites."""
    destinations = context.repository(DestinationRepository)
    found = await destinations.named(slug)
    if not found:
        known = ", ".join(row.slug for row in await destinations.suited())
        raise NotFound(f"There is no destination {slug!r}; there are {known}")
    if len(found) > 1:
        raise Conflict(f"{slug!r} could be any of {', '.join(row.slug for row in found)}; give the slug of one")
    sites = context.repository(SiteRepository)
    wanted = sites.suited().where(DiveSite.destination == found[0].slug)
    rows, _ = await sites.first(wanted, limit=100)
    return DestinationDetail(
        **DestinationView.model_validate(found[0]).model_dump(), sites=[SiteSummary.model_validate(row) for row in rows]
    )
