"""The example of docs/outside-servers.md runs as it stands."""

import json
import sys
from pathlib import Path

from tests.docs.blocks import Shell, read_blocks, write_programs


def test_the_example_of_the_page_runs(tmp_path: Path) -> None:
    blocks = read_blocks("outside-servers.md")
    shell = Shell(tmp_path, [write_programs(tmp_path / "programs")], {"python3": sys.executable})
    files = {block.file: block.text for block in blocks if block.file is not None}
    (prompt,) = (block.text for block in blocks if block.language == "markdown")
    (tmp_path / "prompts").mkdir()
    for file, text in {**files, "prompts/seller.md": prompt}.items():
        (tmp_path / file).write_text(shell.replace(text))
    first, test = (block for block in blocks if block.language == "sh")
    *_, last = shell.run(first.text).strip().splitlines()
    assert "fins cost 12.50 EUR." in last, last
    assert "find_price is accepted" in shell.run(test.text)
    listed = json.loads(shell.run("agent-server mcp list --json"))
    assert {tool["name"]: (tool["effect"], tool["confirm"]) for tool in listed[0]["tools"]} == {
        "shop_find_price": ("read", False),
        "shop_place_order": ("once", True),
    }
    assert "The workspace is in order" in shell.run("agent-server check")
