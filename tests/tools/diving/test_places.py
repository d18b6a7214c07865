"""Destinations and dive sites: what is found by which words, and what the files must hold."""

from typing import Any, get_args

import pytest

from agent_server import Conflict, Forbidden, InvalidInput, NotFound, Tool
from agent_server.phrases import match, template_problems
from agent_server.seed import find_seed_mistakes
from agent_server.workspace import Workspace
from tests.tools.conftest import Tools
from tools.diving.destinations import get_destination, list_destinations
from tools.diving.models import LEVELS, Kind
from tools.diving.sites import get_site, search_sites

TOOLS: tuple[Tool[..., Any], ...] = (list_destinations, get_destination, search_sites, get_site)


async def found(tools: Tools, **arguments: Any) -> list[dict[str, Any]]:
    result = await tools(search_sites, limit=100, **arguments)
    assert result["total"] == len(result["items"])
    items: list[dict[str, Any]] = result["items"]
    return items


async def slugs(tools: Tools, **arguments: Any) -> set[str]:
    return {site["slug"] for site in await found(tools, **arguments)}


@pytest.mark.parametrize(
    ("tool", "scope", "arguments"),
    [
        (list_destinations, "destinations:read", {}),
        (get_destination, "destinations:read", {"slug": "palau"}),
        (search_sites, "sites:read", {}),
        (get_site, "sites:read", {"slug": "silfra"}),
    ],
)
async def test_a_caller_without_the_scope_is_refused(
    mine: Tools, tool: Tool[..., Any], scope: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(Forbidden) as refused:
        await mine.limited_to("tasks:*")(tool, **arguments)
    assert refused.value.scope == scope
    assert await mine.limited_to(scope)(tool, **arguments)


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        (list_destinations, {"month": 0}),
        (list_destinations, {"month": 13}),
        (list_destinations, {"month": "ma"}),
        (list_destinations, {"month": "whenever"}),
        (list_destinations, {"level": "fish"}),
        (list_destinations, {"country": "Egypt"}),
        (get_destination, {}),
        (get_destination, {"slug": ""}),
        (get_destination, {"slug": "palau\x00"}),
        (get_destination, {"slug": "x" * 101}),
        (search_sites, {"kind": "shop"}),
        (search_sites, {"max_depth_m": 0}),
        (search_sites, {"max_depth_m": "deep"}),
        (search_sites, {"limit": 101}),
        (search_sites, {"text": "x" * 201}),
        (search_sites, {"destination": "\x00"}),
        (get_site, {"slug": "x" * 101}),
    ],
)
async def test_an_argument_that_is_not_right_is_refused(
    mine: Tools, tool: Tool[..., Any], arguments: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        await mine(tool, **arguments)


async def test_an_unknown_place_is_answered_with_those_there_are(mine: Tools) -> None:
    with pytest.raises(NotFound, match="red-sea-egypt"):
        await mine(get_destination, slug="atlantis")
    with pytest.raises(NotFound, match="Maldives"):
        await mine(search_sites, destination="Atlantis")
    with pytest.raises(NotFound, match="search_sites"):
        await mine(get_site, slug="atlantis")


async def test_a_name_that_several_have_is_a_conflict_that_names_them(mine: Tools) -> None:
    with pytest.raises(Conflict, match="bali-komodo, raja-ampat"):
        await mine(get_destination, slug="Indonesia")
    with pytest.raises(Conflict, match="blue-hole-dahab"):
        await mine(get_site, slug="Blue Hole")


@pytest.mark.parametrize("named", ["%", "_", "--", "(", "\\"])
async def test_signs_that_mean_something_to_the_database_mean_nothing_here(mine: Tools, named: str) -> None:
    with pytest.raises(NotFound):
        await mine(get_destination, slug=named)
    with pytest.raises(NotFound):
        await mine(get_site, slug=named)
    assert await found(mine, text=named * 2) == []


async def test_there_are_enough_of_them_and_every_destination_has_sites_and_a_page(
    theirs: Tools, agent_workspace: Workspace
) -> None:
    assert find_seed_mistakes(agent_workspace.seeds, agent_workspace.root) == []
    destinations = (await theirs(list_destinations))["items"]
    sites = await found(theirs)
    assert (len(destinations), len(sites)) >= (12, 40)
    assert [d["slug"] for d in destinations if not (agent_workspace.content / d["page"]).is_file()] == []
    assert {site["destination"] for site in sites} == {d["slug"] for d in destinations}
    assert all(d["season_months"] and set(d["season_months"]) <= set(range(1, 13)) for d in destinations)
    assert all(d["water_min_c"] <= d["water_max_c"] for d in destinations)
    assert all(site["hazards"] and 0 < site["max_depth_m"] <= 300 for site in sites)


@pytest.mark.parametrize("named", ["red-sea-egypt", "Red Sea (Egypt)", "red sea", "The Red Sea", "EGYPT"])
async def test_a_destination_is_found_by_slug_name_region_or_country(mine: Tools, named: str) -> None:
    destination = await mine(get_destination, slug=named)
    assert destination["slug"] == "red-sea-egypt"
    assert {site["slug"] for site in destination["sites"]} == await slugs(mine, destination=named)
    assert "ss-thistlegorm" in await slugs(mine, destination=named)


async def test_accents_need_not_be_typed(mine: Tools) -> None:
    assert (await mine(get_destination, slug="Galapagos"))["name"] == "Galápagos"
    assert (await mine(get_site, slug="Strytan"))["name"] == "Strýtan"
    assert (await mine(get_site, slug="strýtan"))["name"] == "Strýtan"


async def test_a_country_with_two_destinations_gives_the_sites_of_both(mine: Tools) -> None:
    sites = await found(mine, destination="Indonesia")
    assert {site["destination"] for site in sites} == {"bali-komodo", "raja-ampat"}


async def test_a_town_is_found_in_the_words_about_a_site(mine: Tools) -> None:
    assert "blue-hole-dahab" in await slugs(mine, destination="Dahab")


@pytest.mark.parametrize("month", [2, "2", "february", "Feb", "feb."])
async def test_destinations_are_listed_by_month_however_it_is_written(mine: Tools, month: Any) -> None:
    listed = (await mine(list_destinations, month=month))["items"]
    every = (await mine(list_destinations))["items"]
    assert 0 < len(listed) < len(every)
    assert listed == [d for d in every if 2 in d["season_months"]]


@pytest.mark.parametrize("position", range(len(LEVELS)))
async def test_a_level_leaves_out_what_asks_for_more_and_keeps_what_asks_for_less(mine: Tools, position: int) -> None:
    level = LEVELS[position]
    every, kept = await found(mine), await found(mine, level=level)
    assert kept == [site for site in every if LEVELS.index(site["level"]) <= position]
    destinations = (await mine(list_destinations, level=level.replace("_", " ").title()))["items"]
    assert all(LEVELS.index(d["level"]) <= position for d in destinations)


@pytest.mark.parametrize("kind", get_args(Kind))
async def test_sites_are_found_by_kind_and_depth(mine: Tools, kind: str) -> None:
    every = await found(mine)
    assert await found(mine, kind=kind) == [site for site in every if site["kind"] == kind] != []
    shallow = [site for site in every if site["kind"] == kind and site["max_depth_m"] <= 25]
    assert await found(mine, kind=kind, max_depth_m=25) == shallow


async def test_all_words_must_be_there_in_singular_or_plural(mine: Tools) -> None:
    assert "ss-thistlegorm" in await slugs(mine, text="motorcycle")
    assert "ss-thistlegorm" in await slugs(mine, text="WRECKS motorcycles")
    assert await slugs(mine, text="motorcycle penguin") == set()
    assert await slugs(mine, text="motorcycle", destination="Palau") == set()


async def test_what_is_left_out_of_a_short_answer_is_counted(mine: Tools) -> None:
    answer = await mine(search_sites, limit=2)
    assert len(answer["items"]) == 2
    assert answer["total"] == len(await found(mine))
    assert answer["items"] == (await found(mine))[:2]


async def test_a_site_is_read_whole(mine: Tools) -> None:
    site = await mine(get_site, slug="SS Thistlegorm")
    known = {"slug": "ss-thistlegorm", "destination": "red-sea-egypt", "kind": "wreck", "max_depth_m": 30}
    assert site == {**site, **known}
    assert site == await mine(get_site, slug="ss-thistlegorm")
    assert site in await found(mine, kind="wreck")
    assert "id" not in site and "owner_id" not in site


@pytest.mark.parametrize("tool", TOOLS)
def test_every_phrase_can_be_used(tool: Tool[..., Any]) -> None:
    assert tool.phrases
    assert template_problems(tool) == []


@pytest.mark.parametrize(
    ("message", "name", "arguments"),
    [
        ("Show dive sites in the Red Sea", "search_sites", {"destination": "Red Sea"}),
        ("List dive sites in Malta", "search_sites", {"destination": "Malta"}),
        ("Which sites are there in the Red Sea?", "search_sites", {"destination": "Red Sea"}),
        ("Which dive sites are there in Palau?", "search_sites", {"destination": "Palau"}),
        ("find dive sites near Dahab", "search_sites", {"destination": "Dahab"}),
        ("find dive sites around the Galapagos", "search_sites", {"destination": "Galapagos"}),
        ("Show me wreck dives in Egypt", "search_sites", {"destination": "Egypt", "kind": "wreck"}),
        (
            "Show wall dives in the Philippines not deeper than 25 m",
            "search_sites",
            {"destination": "Philippines", "kind": "wall", "max_depth_m": "25"},
        ),
        ("Show the dive site Blue Corner", "get_site", {"slug": "Blue Corner"}),
        ("Show me all destinations", "list_destinations", {}),
        ("Where should I dive in February?", "list_destinations", {"month": "February"}),
        ("Where should I dive in Egypt?", None, None),
        ("Show the destination Palau", "get_destination", {"slug": "Palau"}),
        ("Is Palau worth it?", None, None),
    ],
)
def test_a_plain_request_is_recognised(message: str, name: str | None, arguments: dict[str, str] | None) -> None:
    found = match(message, TOOLS)
    assert (found and found.tool.name, found and found.arguments) == (name, arguments)
