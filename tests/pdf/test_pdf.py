"""PDF files of Markdown: what is in them, and that no text makes the typesetter do anything."""

import asyncio
import importlib.util
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent_server import InvalidInput, Unavailable, render_pdf
from agent_server.pdf import LONGEST

pytestmark = [pytest.mark.needs("pdf"), pytest.mark.needs("documents")]

INVOICE = """## Invoice 7

To **Ann *Müller***, [our shop](https://shop.example/a?b=c), <ann@example.org>. Ελληνικά, Русский.

| Article | Price |
|:--|--:|
| Fins, *long* | 39.90 € |
| `Mask` | 25.00 € |

3. Third
   - inner

![a picture](https://evil.example/x.png) <b>not bold</b> [a page](/orders/1)
"""


def read(pdf: bytes) -> Any:
    import pypdfium2  # an extra

    return pypdfium2.PdfDocument(pdf)


def words(pdf: bytes) -> str:
    """The text of all pages."""
    found = "\n".join(page.get_textpage().get_text_range() for page in read(pdf))
    return found.replace("\r\n", "\n").replace("\u200b", "")


async def test_an_invoice_has_what_is_written_and_the_same_bytes_each_time() -> None:
    about: dict[str, Any] = {"title": "Invoice for *Ann*", "language": "de-AT", "author": "Shop", "footer": "Shop Ltd"}
    pdf = await render_pdf(INVOICE, **about, made_at=datetime(2026, 11, 29, 12, tzinfo=UTC))
    assert pdf == await render_pdf(INVOICE, **about, made_at=datetime(2026, 11, 29, 12, tzinfo=UTC))
    text = words(pdf)
    for line in (
        "Invoice for *Ann*",
        "To Ann Müller, our shop (https://shop.example/a?b=c), ann@example.org. Ελληνικά, Русский.",
        "Fins, long 39.90 €",
        "Mask 25.00 €",
        "3. Third",
        "a picture (https://evil.example/x.png) <b>not bold</b> a page (/orders/1)",
        "Shop Ltd",
        "1 / 1",
    ):
        assert line in text
    about_it = read(pdf).get_metadata_dict()
    assert (about_it["Title"], about_it["Author"]) == ("Invoice for *Ann*", "Shop")
    assert about_it["CreationDate"].startswith("D:20261129120000")
    assert re.search(rb"/Lang\s*\(de-AT\)", pdf)
    assert {uri.decode() for uri in re.findall(rb"/URI\s*\((.*?)\)", pdf)} == {
        "https://shop.example/a?b=c",
        "mailto:ann@example.org",
        "https://evil.example/x.png",
    }


async def test_a_table_goes_on_over_pages_with_its_head_on_each_and_pages_are_numbered() -> None:
    rows = "\n".join(f"| row {n} | {n} |" for n in range(120))
    pdf = await render_pdf(f"| Article | Number |\n|--|--|\n{rows}", title="Stock")
    pages = [page.get_textpage().get_text_range() for page in read(pdf)]
    assert len(pages) > 2
    assert all("Article Number" in page for page in pages)
    assert [f"{n} / {len(pages)}" in page for n, page in enumerate(pages, 1)] == [True] * len(pages)


HOSTILE = (
    '#read("/etc/passwd")',
    '#import "@preview/cetz:0.3.0"; #include "document.typ"',
    '#image("https://evil.example/x.png") #panic("x")',
    '#eval("1+1") #sys.inputs $ x^2 $ @label <label> \\ #{ while true {} }',
    '"]} #json("/etc/hostname") {["',
    "[x](file:///etc/passwd) ![y](/etc/passwd) [z](javascript:alert(1)) [q](http://[)",
    "<iframe src='https://evil.example'></iframe><!-- # -->",
    "|" + "a|" * 3000 + "\n|" + "-|" * 3000 + "\n|" + "b|" * 3000,
    "|a|b|\n|-|-|\n" + "|x|\n" * 300,
    "> " * 3000 + "deep",
    "- " * 3000 + "deep",
    "".join("  " * n + "- in\n" for n in range(150)),
    "*" * 3000 + "a" + "*" * 3000,
    "[" * 3000,
    "x" * 20_000,
    "e\u0301" * 500 + "\u200d" * 500,
    "\x00\x07\ud800\uffff\u202e\ue000",
    "99999999999. one\n999999999. two\n-1. three",
    "\u05e9\u05dc\u05d5\u05dd \u4f60\u597d \U0001f600",
)


def with_examples(test: Any) -> Any:
    for text in HOSTILE:
        test = example(text=text, title="T")(test)
    return test


@settings(max_examples=15)
@given(
    text=st.lists(st.sampled_from([part for part in HOSTILE if len(part) < 200]) | st.text(max_size=30)).map("\n".join),
    title=st.text(min_size=1, max_size=40).filter(lambda text: text.strip()),
)
@with_examples
def test_no_text_reads_fetches_or_breaks_anything(text: str, title: str) -> None:
    pdf = asyncio.run(render_pdf(text, title=title, footer=text[:50], author=title))
    assert pdf.startswith(b"%PDF-")
    shown = words(pdf)
    for secret in (Path("/etc/passwd"), Path("/etc/hostname")):
        if secret.is_file() and len(content := secret.read_text().strip()) > 3:
            assert content not in shown
    # Of a picture there is no image, and of a link no other scheme.
    assert not re.search(rb"/Subtype\s*/Image", pdf)
    assert not re.search(rb"/URI\s*\((?!https?:|mailto:|tel:)", pdf)
    assert not re.search(rb"/(JavaScript|Launch|EmbeddedFile|GoToR)\b", pdf)


async def test_other_work_goes_on_while_a_pdf_is_made() -> None:
    done = asyncio.create_task(render_pdf("word " * 8_000, title="Long"))
    turns = 0
    while not done.done():
        await asyncio.sleep(0)
        turns += 1
    assert (await done).startswith(b"%PDF-")
    assert turns > 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"markdown": "x" * (LONGEST + 1)}, "are too many for one PDF"),
        ({"title": " "}, "title: write one of 1 to 300 characters"),
        ({"language": "German"}, "write a code as in de or pt-BR"),
        ({"made_at": datetime(2026, 1, 1)}, "with its time zone"),  # noqa: DTZ001  # what is refused
    ],
)
async def test_what_cannot_be_made_is_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        await render_pdf(**{"markdown": "x", "title": "T", **arguments})


async def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)  # as where it is not installed
    assert importlib.util.find_spec("typst") is None
    with pytest.raises(Unavailable, match=r"run `pip install 'agent-server\[pdf\]'`"):
        await render_pdf("x", title="T")
