"""Outside servers that hang, lie, flood, change and die."""

import asyncio
import resource
from pathlib import Path

import pytest

from agent_server.calls.ledger import OutcomeUnknown
from agent_server.errors import AgentServerError, Conflict, OutsideFailed, TimedOut
from agent_server.outside.connections import Connection
from agent_server.outside.servers import OutsideServer
from tests.outside.conftest import Workshop, command


def hostile(mode: str, *arguments: str, effect: str = "read", **more: object) -> dict[str, object]:
    tools = {"act": {"effect": effect, "confirm": False}}
    return {"command": command("tests.outside.hostile", mode, *arguments), "tools": tools, **more}


@pytest.mark.parametrize(
    ("mode", "error"),
    [
        ("dies", OutsideFailed),
        ("floods", OutsideFailed),
        ("notifies", OutsideFailed),
        ("asks", OutsideFailed),
        ("wrong_form", OutsideFailed),
        ("lies_about_result", OutsideFailed),
        ("nan", OutsideFailed),
        ("hangs", TimedOut),
        ("wrong_id", TimedOut),
    ],
)
async def test_a_server_that_does_what_none_should_do_fails_its_call_alone(
    workshop: Workshop, mode: str, error: type[AgentServerError]
) -> None:
    seconds = 2.0 if error is TimedOut else 60.0
    workshop.write(bad=hostile(mode, timeout=seconds), good=hostile("works"))
    await workshop.accept()
    tools = workshop.load()
    good = asyncio.create_task(workshop.call(tools["good_act"]))
    with pytest.raises(error):
        await workshop.call(tools["bad_act"])
    assert (await good)[1] == "Done."


async def test_a_flood_is_not_kept_in_memory(workshop: Workshop) -> None:
    workshop.write(bad=hostile("floods"))
    await workshop.accept()
    tools = workshop.load()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(OutsideFailed):
        await workshop.call(tools["bad_act"])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB; it would write without end


async def test_what_is_no_message_is_passed_over(workshop: Workshop) -> None:
    workshop.write(bad=hostile("no_json"))
    await workshop.accept()
    assert (await workshop.call(workshop.load()["bad_act"]))[1] == "Done."


@pytest.mark.parametrize(("effect", "calls"), [("read", 2), ("keyed", 2), ("once", 1)])
async def test_a_call_that_was_cut_off_is_sent_again_only_where_that_is_safe(
    workshop: Workshop, tmp_path: Path, effect: str, calls: int
) -> None:
    file = tmp_path / "calls"
    workshop.write(bad=hostile("dies", str(file), effect=effect))
    await workshop.accept()
    with pytest.raises(OutsideFailed if effect == "read" else OutcomeUnknown):
        await workshop.call(workshop.load()["bad_act"])
    assert file.read_text().count("call\n") == calls


@pytest.mark.parametrize("effect", ["read", "once"])
async def test_a_tool_that_has_changed_is_held_back_until_it_is_accepted(
    workshop: Workshop, tmp_path: Path, effect: str
) -> None:
    file = tmp_path / "calls"
    workshop.write(bad=hostile("changes", str(file), effect=effect))
    await workshop.accept()
    tools = workshop.load()
    before = tools["bad_act"].description
    with pytest.raises(Conflict, match="held back until somebody accepts it"):
        await workshop.call(tools["bad_act"])
    # Another replica, and one that cannot reach the server, offers the same.
    assert workshop.load()["bad_act"].description == before
    assert "secrets" not in before
    assert file.read_text().count("call\n") == 0
    await workshop.accept()
    assert "secrets" in workshop.load()["bad_act"].description
    assert (await workshop.call(workshop.load()["bad_act"]))[1] == "Done."


async def test_a_list_without_end_is_cut_and_of_two_of_a_name_the_first_counts(tmp_path: Path) -> None:
    for mode, expected in (("endless_list", 500), ("same_names", 1)):
        server = OutsideServer(name="bad", command=tuple(command("tests.outside.hostile", mode)))
        connection = Connection(server, tmp_path)
        declared = await connection.list_tools()
        await connection.close()
        assert len(declared) == expected
    assert declared["act"]["description"] == "Act."


async def test_a_server_that_is_not_there_degrades_to_a_message_and_is_left_alone(workshop: Workshop) -> None:
    workshop.write(shop=hostile("works"))
    await workshop.accept()
    workshop.write(shop={**hostile("works"), "command": ["no-such-program"]})
    act = workshop.load()["shop_act"]
    for _ in range(6):
        with pytest.raises(OutsideFailed, match="was not called: shop is away, there is no program"):
            await workshop.call(act)
    with pytest.raises(OutsideFailed, match="left alone"):
        await workshop.call(act)


async def test_a_command_ends_when_nobody_uses_it_and_starts_again(workshop: Workshop, tmp_path: Path) -> None:
    file = tmp_path / "calls"
    workshop.write(shop=hostile("works", str(file)))
    await workshop.accept()
    workshop.idle_seconds = 0.05
    act = workshop.load()["shop_act"]
    connection = workshop._outside[-1].connect(workshop._outside[-1].servers["shop"])
    for _ in range(2):
        assert (await workshop.call(act))[1] == "Done."
        await asyncio.wait([*connection._owners])
    assert file.read_text().split() == ["list", "list", "call", "list", "call"]


async def test_a_command_that_never_answers_is_given_up(workshop: Workshop) -> None:
    workshop.write(shop=hostile("works"))
    await workshop.accept()
    workshop.write(shop={**hostile("works"), "command": ["sleep", "3600"]})
    with pytest.raises(OutsideFailed, match="it did not answer within 10 seconds"):
        await workshop.call(workshop.load()["shop_act"])
