"""The panel of the user's own documents, in a real browser."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.web.conftest import Open
from tests.web.fake_server import Fake
from tests.web.test_page import FAINT, PHONE

pytestmark = pytest.mark.needs("chromium")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = [tmp_path / name for name in ("plan.md", "ביטוח.md", "odd.exe")]
    for path, text in zip(made, ("# The plan\n\nText.", "# ביטוח צלילה\n\nטקסט.", "MZ"), strict=True):
        path.write_text(text, encoding="utf-8")
    return made


def test_files_are_added_listed_and_deleted(fake: Fake, open_page: Open, files: list[Path]) -> None:
    page = open_page("#key=as_key")
    page.get_by_role("button", name="My documents").click()
    dialog = page.get_by_role("dialog", name="My documents")
    expect(dialog.get_by_text("There are none yet.")).to_be_visible()
    dialog.get_by_label("Add files").set_input_files(files)
    expect(dialog.get_by_text("odd.exe was not added: this kind is not read; send .md")).to_be_visible()
    expect(dialog.get_by_role("list", name="Documents").get_by_role("listitem")).to_have_count(2)
    size = sum(file.stat().st_size for file in files[:2])
    expect(dialog.get_by_text(f"2 of 3 documents, {size} bytes of 2 MB")).to_be_visible()
    assert next(body for _, body in fake.sent("POST", "/api/documents")) == "# The plan\n\nText."
    dialog.get_by_role("button", name="Delete plan.md").click()
    page.get_by_role("dialog", name="Delete this document?").get_by_role("button", name="Delete").click()
    expect(dialog.get_by_text("plan.md")).to_have_count(0)
    assert [each["name"] for each in fake.documents] == ["ביטוח.md"]
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("button", name="My documents")).to_be_focused()


def test_a_guest_is_offered_no_documents(open_page: Open) -> None:
    page = open_page()
    expect(page.get_by_role("button", name="Use a key")).to_be_visible()
    expect(page.get_by_role("button", name="My documents")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_panel_fits_a_phone_in_both_directions_and_is_no_faint_reading(
    open_page: Open, files: list[Path], scheme: str
) -> None:
    page = open_page("#key=as_key", color_scheme=scheme, **PHONE)
    if scheme == "dark":
        page.evaluate("document.documentElement.dir = 'rtl'")
    page.get_by_role("button", name="Conversations").tap()
    page.get_by_role("button", name="My documents").tap()
    dialog = page.get_by_role("dialog", name="My documents")
    dialog.get_by_label("Add files").set_input_files(files)
    expect(dialog.get_by_role("listitem")).to_have_count(2)
    expect(dialog.get_by_text("odd.exe was not added")).to_be_visible()
    for part in (dialog, dialog.get_by_role("button", name="Delete plan.md"), dialog.locator(".own-drop")):
        box = part.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 375 and box["height"] >= 39.5
    assert dialog.evaluate("(e) => e.scrollWidth <= e.clientWidth")
    assert page.evaluate(FAINT) == []
