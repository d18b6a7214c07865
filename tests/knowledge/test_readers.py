"""Any file of a folder is read or named: how projects write Markdown, other kinds of files, any encoding."""

import io
import json
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_server.inspection import inspect_workspace
from agent_server.knowledge.chunk import chunk
from agent_server.knowledge.parse import ContentPage, read_folder, read_page
from agent_server.knowledge.readers import KINDS
from agent_server.knowledge.readers.base import NoContent, Unreadable
from agent_server.knowledge.readers.child import Child
from agent_server.knowledge.readers.encoding import decode
from agent_server.knowledge.readers.html import convert_html
from agent_server.knowledge.readers.markdown import clean, find_unclosed
from agent_server.knowledge.readers.rst import read_rst
from agent_server.knowledge.readers.titles import name_title
from agent_server.settings import load_settings
from tests.knowledge.conftest import Write


def read(content: Path, name: str, written: bytes) -> tuple[ContentPage | None, list[str], list[str]]:
    """What became of one file: its page, its mistakes and its remarks."""
    file = content / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(written)
    found = read_folder(content)
    return (
        found.pages[0] if found.pages else None,
        [f"{one.line}: {one.message}" for one in found.mistakes],
        [f"{one.line}: {one.message}" for one in found.remarks],
    )


def page_of(content: Path, name: str, written: str) -> ContentPage:
    page, mistakes, _ = read(content, name, written.encode())
    assert page is not None, mistakes
    return page


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("guide/01-dry_suits.md", "Dry suits"),
        ("2024-05-01-what-is-new.md", "What is new"),
        ("guide/install/index.md", "Install"),
        ("shop/patterns/aaron/fabric/en.md", "Aaron fabric"),
        ("guide/README.md", "Guide"),
        ("README.md", "README"),
        ("404.html", "404"),
        ("no-suffix", "No suffix"),
    ],
)
def test_a_file_gives_a_page_its_title_where_the_page_has_none(path: str, title: str) -> None:
    assert name_title(path) == title


@pytest.mark.parametrize(
    ("written", "title"),
    [
        ("Just text.\n", "A page"),
        ("## Below\n\ntext\n", "A page"),
        ("---\ntitle: <em>Big</em> &amp; <code>small</code>\n---\ntext\n", "Big & small"),
        ("---\ntitle: Vec<T> and <Keep>\n---\ntext\n", "Vec<T> and <Keep>"),
        ('+++\ntitle = "In TOML"\ntags = ["a"]\n+++\ntext\n', "In TOML"),
        ("---\ntitle:No space\n---\ntext\n", "No space"),
    ],
)
def test_a_page_has_a_title_wherever_it_is_written(content: Path, written: str, title: str) -> None:
    assert page_of(content, "guide/a-page.md", written).title == title


@pytest.mark.parametrize(
    ("written", "remark"),
    [
        ("", "None: has no text; it is left out"),
        ("---\ntitle: A section\n---\n", "None: has no text; it is left out"),
        ("<!-- nothing yet -->\n", "None: has no text; it is left out"),
        ("---\ntitle: Old\nredirect_to: /new\n---\n", "None: only leads to another page; it is left out"),
        ("# Old name\n\nThis page has moved to [new](new.md).\n".partition("\n\n")[2], "None: only leads to another page; it is left out"),
        ('<meta http-equiv="refresh" content="0; url=new.html">\n', "None: only leads to another page; it is left out"),
        ("#REDIRECT [[New]]\n", "None: only leads to another page; it is left out"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_page_is_named_and_is_no_mistake(content: Path, written: str, remark: str) -> None:
    assert read(content, "a.md", written.encode()) == (None, [], [remark])


def test_a_page_that_was_redirected_to_is_read(content: Path) -> None:
    assert page_of(content, "a.md", "---\nredirect_from: /old\n---\n# New\n\ntext\n").title == "New"


def test_toml_that_is_wrong_is_a_mistake_with_its_line(content: Path) -> None:
    page, mistakes, _ = read(content, "a.md", b'+++\ntitle = "A"\nb = \n+++\ntext\n')
    assert page is None
    assert [mistake.partition(";")[0] for mistake in mistakes] == ["3: front matter is not TOML: Invalid value"]


def test_an_unclosed_fence_is_a_remark_and_the_page_is_read(content: Path) -> None:
    page, mistakes, remarks = read(content, "a.md", b"---\ntitle: A\n---\ntext\n\n```sh\nls\n\nmore\n")
    assert page is not None and mistakes == []
    assert remarks == ["6: the code that begins here is not closed: write a line ``` below it"]


def test_a_fence_in_a_quotation_or_an_item_that_is_closed_is_no_remark() -> None:
    body = "> ```\n> a\n> ```\n\n- x\n\n  ~~~~\n  ```\n  ~~~~\n\n````\n```\n````\n\n``` not a fence ```\n"
    assert find_unclosed(body) == []


ENCODINGS = {"utf-8": "", "utf-8-sig": "", "utf-16": "", "utf-32": "", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16",
             "latin-1": "Windows-1252", "cp1252": "Windows-1252"}  # fmt: skip


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_page_in_any_encoding_is_read_and_a_guess_is_named(content: Path, encoding: str) -> None:
    page, mistakes, remarks = read(content, "a.md", "# Grüße\n\nDie Straße, naïve.\n".encode(encoding))
    assert page is not None, mistakes
    assert (page.title, page.body.strip().endswith("Die Straße, naïve.")) == ("Grüße", True)
    guessed = ENCODINGS[encoding]
    assert [remark.partition(": ")[2] for remark in remarks] == (
        [f"is not UTF-8; it was read as {guessed}. Save it as UTF-8"] if guessed else []
    )


@given(text=st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=100))
def test_any_text_in_utf_8_is_read_as_it_is_and_any_in_latin_1_is_read(text: str) -> None:
    assert decode(text.encode()).text == text
    assert len(decode(text.encode("latin-1")).text) <= len(text)


def test_one_damaged_byte_does_not_spoil_the_other_letters() -> None:
    damaged = decode("Größe, Straße, Grüße ".encode() + b"\xff end")
    assert damaged.text == "Größe, Straße, Grüße \ufffd end"
    assert damaged.remarks[0][0] == 1


FOREIGN = [
    ("a {{ page.title }} b", "a  b"),
    ("{% include x.html %}\ntext", "\ntext"),
    ("{{< note >}}\nKeep it.\n{{< /note >}}", "\nKeep it.\n"),
    ("see [[Page|the page]], [[Other#Part]]", "see the page, Other > Part"),
    ("![[a.png]] text ^block1", " text"),
    ("> [!warning] Careful\n> Never.", "> **Careful:**\n> Never."),
    ("> [!NOTE]\n> Text.", ">\n> Text."),
    ('!!! note "Heads"\n    One.', "> **Heads:**\n> One."),
    (":::tip Title\nInside\n:::", "**Title:**\nInside\n"),
    ("import X from './x'\n\n<Card title='Go'>\ntext\n</Card>", "\n\n**Go:** \ntext\n"),
    ("A fact.[^1]\n\n[^1]: The source.", "A fact.\n\n- The source."),
    ("# Head {#id}\n{: .no_toc}\n[TOC]", "# Head {#id}\n\n"),
    ("{% highlight rb %}\n{{ x }}\n{% endhighlight %}", "```rb\n{{ x }}\n```"),
    ("```{note}\nText.\n```", "\nText.\n"),
    ("code `{{ x }}` and ``[[a]]`` stay", "code `{{ x }}` and ``[[a]]`` stay"),
    ("```\n{{ x }}\n[[a]]\n```", "```\n{{ x }}\n[[a]]\n```"),
    ("a [[link]](x) and <PATH> and Vec<String>", "a [[link]](x) and <PATH> and Vec<String>"),
]


@pytest.mark.parametrize(("written", "cleaned"), FOREIGN)
def test_the_syntax_of_other_programs_is_left_out_and_code_is_kept(written: str, cleaned: str) -> None:
    assert clean(written) == cleaned


def test_expressions_are_left_out_of_mdx_alone() -> None:
    assert clean("Hello {props.name}!", is_mdx=True) == "Hello !"
    assert clean("Hello {name}!") == "Hello {name}!"


PARTS = st.sampled_from(
    [part for pair in FOREIGN for part in pair[0].split("\n")] + ["", "text", "    indented", "- item"]
)


@settings(deadline=None)
@given(lines=st.lists(PARTS, max_size=30))
def test_no_line_is_added_or_lost_and_what_is_clean_stays(lines: list[str]) -> None:
    text = "\n".join(lines)
    once = clean(text)
    assert once.count("\n") == text.count("\n")
    assert ("text" in once) or "text" not in text


def test_a_page_of_html_keeps_blocks_cells_and_code_apart() -> None:
    found = convert_html(
        "<title>T | Site</title><nav>menu</nav><main><h1>Rules</h1><p>One<p>two &lt;div&gt;</p>"
        "<ul><li>a<li>b<ul><li>c</ul></ul><table><tr><th>A<th>B<tr><td>1<td>2|3</table>"
        "<pre><code class='language-py'>x = 1\n</code></pre></main><footer>foot</footer>"
    )
    assert found.title == "Rules"
    assert found.text == (
        "# Rules\n\nOne\n\ntwo `<div>`\n\n- a\n- b\n   - c\n\n| A | B |\n|---|---|\n| 1 | 2\\|3 |\n\n```py\nx = 1\n```\n"
    )


def test_a_markdown_file_that_is_html_alone_is_read_as_html(content: Path) -> None:
    page = page_of(
        content,
        "a.md",
        "---\ntags: [x]\n---\n<h1>Rules</h1><p>One.</p>\n<table><tr><td>a</td><td>b</td></tr></table>\n",
    )
    assert (page.title, page.body) == ("Rules", "# Rules\n\nOne.\n\na b\n")


def test_an_html_page_that_only_leads_elsewhere_is_no_page() -> None:
    with pytest.raises(NoContent):
        convert_html("<meta http-equiv=refresh content='0; url=/new'><p>Redirecting...")


def test_restructured_text_becomes_markdown() -> None:
    found = read_rst(
        b"=====\nGuide\n=====\n\nUse :func:`~a.b.run` of |v|::\n\n    run()\n\n.. |v| replace:: 2.0\n\nSteps\n-----\n\n"
        b"1. one\n#. two\n\n* a\n\n  * b\n\n.. warning:: Never twice.\n\n.. unknown:: x\n\n   Kept.\n\n.. toctree::\n\n   a\n\n"
        b"=====  =====\nA      B\n=====  =====\n1      2\n=====  =====\n\n.. a comment\n\nterm\n   meaning\n"
    )
    assert found.title == "Guide"
    assert found.text == (
        "# Guide\n\nUse `run` of 2.0:\n\n```\nrun()\n```\n\n## Steps\n\n1. one\n2. two\n\n- a\n  - b\n\n> Never twice.\n\n"
        "**x**\n\nKept.\n\n| A | B |\n|---|---|\n| 1 | 2 |\n\n**term**: meaning\n"
    )


def test_restructured_text_reads_no_other_file(content: Path) -> None:
    (content / "secret.inc").write_text("canary")
    text = ".. include:: secret.inc\n\n.. raw:: html\n   :file: secret.inc\n\n.. literalinclude:: secret.inc\n\nBody.\n"
    assert page_of(content, "a.rst", text).text == "Body.\n"


def test_a_notebook_is_its_text_and_its_code(content: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Load\n", "text"]},
        {"cell_type": "code", "source": "x = 1", "outputs": [{"text": "canary"}]},
        {"cell_type": "raw", "source": "raw"},
    ]
    written = json.dumps({"cells": cells, "metadata": {"language_info": {"name": "python"}}})
    page = page_of(content, "a.ipynb", written)
    assert (page.title, page.text) == ("Load", "# Load\ntext\n\n```python\nx = 1\n```\n")


def test_a_text_file_has_its_first_line_as_its_title_where_that_stands_alone(content: Path) -> None:
    page = page_of(content, "guide/rules.txt", "   House rules\n\n   No fire.\n")
    assert (page.title, page.text) == ("House rules", "House rules\n\nNo fire.")


TEXT_KINDS = [".md", ".mdx", *(suffix for suffix, kind in KINDS.items() if kind.package is None)]
PIECES = st.sampled_from(
    ["<p>", "</td>", "<table>", "<li>", "<pre>", "```", "{%", "[[", "===\n", ".. note::\n", "* ", "   ", "\n", "|", "`", "+--+\n",
     "word ", "::\n", "<!--", "]]>", "&lt;", "\\", "> ", "1. ", "> [!x]", "\x0c", "🐟"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    suffix=st.sampled_from(TEXT_KINDS),
    pieces=st.lists(PIECES | st.text(max_size=5), max_size=40),
    raw=st.binary(max_size=30),
)
def test_any_file_is_a_page_a_mistake_or_a_remark(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, pieces: list[str], raw: bytes
) -> None:
    content = tmp_path_factory.mktemp("content")
    page, mistakes, remarks = read(content, f"a{suffix}", "".join(pieces).encode(errors="replace") + raw)
    assert page or mistakes or remarks
    if page:
        assert page.title and "\x00" not in page.text
        assert chunk(page)


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\x00"), min_size=1, max_size=30).filter(
    lambda name: not name.startswith(".")
)


@given(name=NAMES)
def test_a_file_of_any_name_has_a_title(name: str) -> None:
    assert name_title(f"{name}.md").strip() == name_title(f"{name}.md") != ""


def zip_bomb() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("word/document.xml", b" " * 300_000_000)
    return packed.getvalue()


HOSTILE = {
    "nested.html": b"<div>" * 50_000 + b"deep",
    "lists.html": b"<ul><li>" * 20_000 + b"deep",
    "deep.ipynb": b"[" * 100_000,
    "line.txt": b"x" * 1_000_000,
    "line.md": b"{{ [[ <A " * 200_000,
    "quotes.rst": b"\n".join(b" " * n + b"x" for n in range(2000)),
    "fields.rst": b":" + b"a" * 500_000 + b"\n" + b"`" * 300_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_read_or_named(content: Path, name: str) -> None:
    page, mistakes, _ = read(content, name, HOSTILE[name])
    assert (page is None) == bool(mistakes)


def test_many_kinds_of_backticks_are_cleaned_in_one_look() -> None:
    text = "{{ x }} " + "".join("`" * n + " " for n in range(1, 1500))
    assert "{{" not in clean(text) and clean(text).count("`") == text.count("`")


def test_what_takes_too_long_or_too_much_ends_its_own_process_and_the_next_file_is_read() -> None:
    with Child(seconds=1) as child, pytest.raises(Unreadable, match="more memory or time"):
        child.read(".html", b"<!" * 400_000 + b"<" * 400_000)
    with Child(seconds=3, memory=150_000_000) as child:
        with pytest.raises(Unreadable, match="more memory"):
            child.read(".txt", b"text " * 24_000_000)
        assert child.read(".html", b"<p>text").text == "text\n"


def test_a_file_whose_reader_is_not_installed_is_named_with_the_command(
    write: Write, content: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mammoth", None)  # as where it is not installed
    write("a.docx", "x")
    write("guide/a.md", "# A\n\ntext\n")
    found = inspect_workspace(load_settings(workspace=content.parent))
    assert not (found.mistakes or found.pages)
    said = "content/: 1 file of type .docx is not read (a.docx); install their reader: pip install 'agent-server[documents]'"
    assert said in [str(remark) for remark in found.remarks]


needs_documents = pytest.mark.needs("documents")


@needs_documents
@pytest.mark.parametrize("name", ["bomb.docx", "broken.docx", "broken.pdf", "cut.pdf"])
def test_a_document_that_cannot_be_opened_is_a_mistake(content: Path, name: str) -> None:
    written = (
        zip_bomb() if name == "bomb.docx" else b"%PDF-1.7\n1 0 obj\n<<" if name == "cut.pdf" else b"PK\x03\x04 nothing"
    )
    page, mistakes, _ = read(content, name, written)
    assert page is None
    assert len(mistakes) == 1


def write_docx(document: str) -> bytes:
    """A Word document of one part."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr(
            "[Content_Types].xml", '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>'
        )
        file.writestr(
            "_rels/.rels",
            '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r" '
            'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
            'Target="word/document.xml"/></Relationships>',
        )
        file.writestr("word/document.xml", document)
    return packed.getvalue()


WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


@needs_documents
def test_a_word_document_is_read_with_its_tables(content: Path) -> None:
    def text(words: str) -> str:
        return f"<w:p><w:r><w:t>{words}</w:t></w:r></w:p>"

    cells = "".join(f"<w:tc>{text(words)}</w:tc>" for words in ("A", "B"))
    table = f"<w:tbl><w:tr>{cells}</w:tr><w:tr>{cells}</w:tr></w:tbl>"
    document = f"<w:document {WORD}><w:body>{text('No fire.')}{table}</w:body></w:document>"
    page, mistakes, _ = read(content, "house-rules.docx", write_docx(document))
    assert page is not None, mistakes
    assert (page.title, page.text) == ("House rules", "No fire.\n\n| A | B |\n|---|---|\n| A | B |\n")


@needs_documents
def test_entities_in_a_word_document_do_not_stop_the_process(content: Path) -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<!DOCTYPE x [<!ENTITY e0 "boom">{entities}]><w:document {WORD}><w:body>&e11;</w:body></w:document>'
    page, mistakes, _ = read(content, "a.docx", write_docx(bomb))
    assert page is None
    assert len(mistakes) == 1


def write_pdf(pages: list[list[str]]) -> bytes:
    """A PDF with these lines on its pages."""
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"", b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"]
    kids = []
    for lines in pages:
        shown = b"BT /F 12 Tf 14 TL 72 720 Td " + b"".join(b"(%s) Tj T* " % line.encode() for line in lines) + b"ET"
        objects.append(b"<</Length %d>>stream\n%s\nendstream" % (len(shown), shown))
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources<</Font<</F 3 0 R>>>>/Contents %d 0 R>>"
            % len(objects)
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<</Type/Pages/Count %d/Kids[%s]>>" % (len(kids), b" ".join(kids))
    written, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(written))
        written += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(written)
    written += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    written += b"".join(b"%010d 00000 n \n" % place for place in places)
    return written + b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, start)


@needs_documents
def test_a_pdf_is_read_without_what_stands_on_every_page(content: Path) -> None:
    pages = [["The shop", f"Rule {n} is kept.", str(n)] for n in range(1, 5)]
    page, mistakes, _ = read(content, "shop-rules.pdf", write_pdf(pages))
    assert page is not None, mistakes
    assert (page.title, page.text) == ("Shop rules", "\n\n".join(f"Rule {n} is kept." for n in range(1, 5)) + "\n")


@needs_documents
def test_a_pdf_without_text_is_named(content: Path) -> None:
    assert read(content, "a.pdf", write_pdf([[]]))[1] == [
        "None: has no text: its pages are pictures; make their text out first (OCR)"
    ]


def test_a_page_that_is_left_out_is_no_mistake_of_one_page(write: Write, content: Path) -> None:
    assert read_page(write("a.md", ""), content) == []
