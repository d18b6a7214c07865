"""What a symbolic link in content/ or prompts/ leads to is read where that is inside of the folder."""

from pathlib import Path

import pytest

from agent_server.db import Database
from agent_server.errors import WorkspaceInvalid
from agent_server.knowledge.embedders.wordllama import WordLlama
from agent_server.knowledge.files import content_files
from agent_server.knowledge.ingest import ingest
from agent_server.knowledge.parse import read_content
from agent_server.workspace import load_workspace
from tests.commands import agent_server
from tests.knowledge.conftest import Write

SECRET = "OPENAI_API_KEY=canary-of-the-operator\n"


@pytest.fixture
def linked(write: Write, content: Path) -> Path:
    """A folder with links that stay in it, and links of each kind that lead out of it."""
    outside = content.parent / "outside"
    outside.mkdir()
    (content.parent / ".env").write_text(SECRET)
    (outside / "plans.md").write_text(f"# Plans\n\n{SECRET}")
    write("guide/real.md", "# Real\n\nWe ship.\n")
    (content / "again.md").symlink_to("guide/real.md")
    (content / "again-and-again.md").symlink_to(content / "again.md")
    (content / "settings.md").symlink_to("../.env")
    (content / "absolute.md").symlink_to(outside / "plans.md")
    (content / "folder").symlink_to(outside)
    (content / "chain.md").symlink_to("settings.md")
    (content / "through.md").symlink_to("folder/plans.md")
    (content / "gone.md").symlink_to("../nothing.md")
    (content / "loop.md").symlink_to("loop.md")
    return content


OUT = ["absolute.md", "chain.md", "settings.md", "through.md"]


def test_a_link_that_leads_out_of_the_folder_is_not_read_and_one_that_stays_in_it_is(linked: Path) -> None:
    pages, mistakes = read_content(linked)
    assert [page.path for page in pages] == ["again-and-again.md", "again.md", "guide/real.md"]
    assert all("canary" not in page.text for page in pages)
    assert [(mistake.file, mistake.line) for mistake in mistakes] == [(f"content/{name}", None) for name in OUT]


def test_a_content_folder_that_is_a_link_itself_is_read(linked: Path, tmp_path: Path) -> None:
    (tmp_path / "mounted").symlink_to(linked)
    assert len(content_files(tmp_path / "mounted")) == 3


async def test_nothing_that_a_link_out_of_the_folder_leads_to_is_found_also_where_it_was_stored_before(
    database: Database, linked: Path
) -> None:
    (linked / "settings.md").unlink()
    (linked / "settings.md").write_text(f"# Settings\n\n{SECRET}")
    assert (await ingest(database, WordLlama(), linked)).added == 5
    (linked / "settings.md").unlink()
    (linked / "settings.md").symlink_to("../.env")
    report = await ingest(database, WordLlama(), linked)
    assert (report.removed, report.unchanged) == (2, 3)
    assert [problem.file for problem in report.problems] == [f"content/{name}" for name in OUT]


def test_check_names_the_links_that_lead_out_of_content_and_of_prompts(linked: Path) -> None:
    root = linked.parent
    (root / "prompts").mkdir()
    (root / "prompts" / "spy.md").symlink_to("../outside/plans.md")
    checked = agent_server("check", cwd=root)
    assert checked.returncode == 1
    for name in (*(f"content/{name}" for name in OUT), "prompts/spy.md"):
        assert f"{name}: is a link out of this folder; copy the file" in checked.stderr + checked.stdout
    with pytest.raises(WorkspaceInvalid, match=r"prompts/spy\.md"):
        load_workspace(root)
