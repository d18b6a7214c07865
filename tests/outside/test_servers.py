"""mcp.yaml and mcp.lock: what is wrong with them, and what is remarked."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent_server.inspection import inspect_workspace
from agent_server.outside.pins import Pin, hash_declaration, write_pins
from agent_server.outside.servers import OutsideServer
from agent_server.settings import Settings
from agent_server.workspace import load_workspace, read_workspace

DECLARED = {"name": "act", "description": "Act.", "inputSchema": {"type": "object"}}
ACT = Pin("shop_act", DECLARED, hash_declaration(DECLARED))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("shop: {}", "give it either `url: https://...` or `command: [program, argument]`"),
        ("shop: {url: https://a.example/mcp, command: [a]}", "give it either `url"),
        ("shop: words", "shop: is no mapping; write `url:` or `command:` below it"),
        ("2shop: {command: [a]}", "is no name of a server"),
        ("shop: {comand: [a]}", "comand is no key there; did you mean 'command'?"),
        (
            "shop: {command: [a], tools: {act: {efect: read}}}",
            "tools.act.efect is no key there; did you mean 'effect'?",
        ),
        ("shop: {command: [a], tools: {act: {effect: stored}}}", "tools.act.effect: is one of read, keyed and once"),
        ("shop: {command: [a], tools: {act: {scope: all}}}", "scope 'all' is not resource:verb"),
        ("shop: {command: [a], tools: {act: {name: Act!}}}", "name 'Act!' is not 1 to 64"),
        ("shop: {command: [a], prefix: '9-'}", "prefix: is not of a-z, 0-9 and _"),
        ("shop: {url: 'ftp://a.example'}", "url: is no address"),
        ("shop: {url: 'http://a.example/mcp'}", "url: without https others read along"),
        ("shop: {url: 'https://ann:canary@a.example/mcp'}", "url: holds a password"),
        ("shop: {url: 'https://a.example/mcp?api_key=canary'}", "url: holds a secret"),
        ("shop: {url: https://a.example/mcp, headers: {Authorization: Bearer canary}}", "Authorization holds a secret"),
        (
            "shop: {url: https://a.example/mcp, headers: {X: '${OPENAI_API_KEY}'}}",
            "only variables that begin with MCP_",
        ),
        ('shop: {url: https://a.example/mcp, headers: {X: "a\\r\\nHost: b"}}', "characters that no line of text has"),
        ("shop: {url: https://a.example/mcp, env: {A: b}}", "env: is for a `command`"),
        ("shop: {command: [a], env: {SHOP_KEY: canary}}", "write SHOP_KEY: ${MCP_SHOP_SHOP_KEY}"),
        ("shop: {command: [a, '${MCP_A}']}", "would stand in the list of processes"),
        ("shop: {command: [a], headers: {A: b}}", "headers: are for a `url`"),
        ("shop: {command: [a]}\nshop: {command: [b]}", "stands in line 1 already"),
        ("shop: [", "is not YAML"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_keeps_the_workspace_from_loading(
    root: Path, written: str, message: str
) -> None:
    (root / "mcp.yaml").write_text(f"{written}\n")
    _, mistakes = read_workspace(root)
    said = [str(each) for each in mistakes]
    assert any(each.startswith("mcp.yaml:") and message in each for each in said), said
    assert "canary" not in "".join(said)


def test_the_defaults_are_safe(root: Path) -> None:
    (root / "mcp.yaml").write_text("shop: {url: https://a.example/mcp}")
    write_pins(root, {"shop": {"act": ACT}})
    tool = load_workspace(root).tools["shop_act"]
    assert (tool.effect, tool.destructive, tool.scope, tool.staff) == ("once", True, "shop:use", False)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"effect": "read"}, ("read", False)),
        ({"effect": "keyed"}, ("keyed", True)),
        ({"effect": "once", "confirm": False}, ("once", False)),
        ({"effect": "read", "confirm": True}, ("read", True)),
        ({"scope": "shop:write"}, ("once", True)),
    ],
)
def test_what_the_file_says_of_a_tool_counts_and_what_its_server_hints_does_not(
    root: Path, said: dict[str, Any], expected: tuple[str, bool]
) -> None:
    (root / "mcp.yaml").write_text(json.dumps({"shop": {"command": ["a"], "tools": {"act": said}}}))
    write_pins(root, {"shop": {"act": ACT}})
    tool = load_workspace(root).tools["shop_act"]
    assert (tool.effect, tool.destructive) == expected
    assert tool.scope == said.get("scope", "shop:use")


def test_only_the_tools_that_are_listed_are_offered(root: Path) -> None:
    (root / "mcp.yaml").write_text("shop: {command: [a], tools: [other]}")
    write_pins(root, {"shop": {"act": ACT}})
    workspace = load_workspace(root)
    assert "shop_act" not in workspace.tools
    remarks = [str(each) for each in inspect_workspace(Settings(workspace=root)).remarks]
    assert "mcp.yaml:1: shop: 1 tool is not accepted yet (other); run `agent-server mcp accept shop`" in remarks


def test_a_lock_that_was_edited_and_a_name_that_is_taken_are_mistakes(root: Path) -> None:
    (root / "mcp.yaml").write_text("shop: {command: [a]}\nother: {command: [b], prefix: shop}")
    write_pins(root, {"shop": {"act": ACT}, "other": {"act": ACT}})
    _, mistakes = read_workspace(root)
    assert [str(each) for each in mistakes] == [
        "mcp.yaml:2: other: act is called shop_act, as shop: act is; give one of them `name:`",
        "mcp.yaml:2: tool shop_act: there is one already, mcp.yaml:1; rename one",
    ]
    edited = (root / "mcp.lock").read_text().replace("Act.", "Act and obey.")
    (root / "mcp.lock").write_text(edited)
    _, mistakes = read_workspace(root)
    assert "mcp.lock: shop: act was edited by hand; run `agent-server mcp accept shop`" in map(str, mistakes)
    (root / "mcp.lock").write_text("{}")
    _, mistakes = read_workspace(root)
    assert any("is not as `agent-server mcp accept` writes it" in str(each) for each in mistakes)


def test_an_agent_may_name_an_accepted_tool_and_no_other(root: Path) -> None:
    (root / "mcp.yaml").write_text("shop: {command: [a]}")
    prompt = "---\nname: seller\ndescription: Sells.\ntools: [shop_act]\n---\nYou sell.\n"
    (root / "prompts/seller.md").write_text(prompt)
    _, mistakes = read_workspace(root)
    assert "there is no tool 'shop_act'" in str(mistakes[0])
    write_pins(root, {"shop": {"act": ACT}})
    assert load_workspace(root).agents["seller"].tools == ("shop_act",)


def test_a_place_shows_no_query(root: Path) -> None:
    assert OutsideServer(name="shop", url="https://a.example/mcp?team=1").place == "https://a.example/mcp"


def test_loading_asks_no_server_anything(root: Path) -> None:
    # A program that would leave a file behind.
    said = {"shop": {"command": ["touch", str(root / "asked")]}}
    (root / "mcp.yaml").write_text(json.dumps(said))
    write_pins(root, {"shop": {"act": ACT}})
    assert "shop_act" in load_workspace(root).tools
    assert inspect_workspace(Settings(workspace=root)).mistakes == []
    assert not (root / "asked").exists()


def test_a_secret_that_is_not_set_is_remarked_and_one_in_an_env_file_is_found(root: Path) -> None:
    (root / "mcp.yaml").write_text("shop: {url: https://a.example/mcp, headers: {Authorization: 'Bearer ${MCP_A}'}}")
    said = "mcp.yaml:1: shop: MCP_A is not set; put it into .env"
    assert said in [str(each) for each in inspect_workspace(Settings(workspace=root)).remarks]
    (root / ".env").write_text("MCP_A=canary\n")
    assert said not in [str(each) for each in inspect_workspace(Settings(workspace=root)).remarks]
