"""What a user does with documents of their own: add, list, read, replace, delete, and ask."""

import asyncio
import io
import zipfile
from typing import Any

import pytest
from dirty_equals import IsPartialDict

from tests.documents.conftest import LOCKER, Person
from tests.server import Start


async def test_an_added_document_is_listed_read_and_deleted(ann: Person) -> None:
    added = await ann.add("locker.md", LOCKER)
    document = added.json()
    assert (added.status_code, document["remarks"]) == (201, [])
    assert document == IsPartialDict(name="locker.md", title="Locker", size=len(LOCKER), passages=1)
    del document["remarks"]
    assert await ann.list() == [document]
    assert (await ann.send("GET", f"/api/documents/{document['id']}")).json() == {**document, "text": LOCKER}
    assert (await ann.send("DELETE", f"/api/documents/{document['id']}")).status_code == 204
    assert await ann.list() == []
    assert (await ann.send("DELETE", f"/api/documents/{document['id']}")).status_code == 404


async def test_a_question_is_answered_from_an_own_document_with_a_citation_that_opens_it(ann: Person) -> None:
    question = "What is the code of my blue locker at the harbour?"
    assert "4711" not in (await ann.ask(question))["text"]
    await ann.add("locker.md", LOCKER)
    answer = await ann.ask(question)
    assert "4711 [1]" in answer["text"] or ("[1]" in answer["text"] and "4711" in answer["text"])
    (source,) = answer["sources"]
    assert source == IsPartialDict(document="locker.md", title="Locker", collection="own documents")
    assert "4711" in (await ann.send("GET", f"/api/passages/{source['passage']}")).json()["html"]
    (document,) = await ann.list()
    await ann.send("DELETE", f"/api/documents/{document['id']}")
    assert (await ann.send("GET", f"/api/passages/{source['passage']}")).status_code == 404
    assert "4711" not in (await ann.ask(question))["text"]


async def test_what_the_content_answers_is_answered_from_it_beside_own_documents(ann: Person) -> None:
    question = "How long should I wait to fly after a single dive?"
    before = await ann.ask(question)
    await ann.add("locker.md", LOCKER)
    assert (await ann.ask(question))["text"] == before["text"]


async def test_the_same_file_again_changes_nothing_and_another_of_its_name_replaces_it(ann: Person) -> None:
    first = (await ann.add("locker.md", LOCKER)).json()
    again = await ann.add("locker.md", LOCKER)
    assert (again.status_code, again.json()) == (200, first)
    changed = await ann.add("locker.md", LOCKER.replace("4711", "0815"))
    assert (changed.status_code, changed.json()["id"]) == (200, first["id"])
    assert changed.json()["updated_at"] > first["updated_at"]
    hits = (await ann.call("search_knowledge", query="code of my blue locker"))["hits"]
    assert "0815" in str(hits) and "4711" not in str(hits)
    assert len(await ann.list()) == 1


async def test_tools_add_list_read_and_delete_as_routes_do(ann: Person) -> None:
    added = await ann.call("add_my_document", name="Wishes", text="I wish for a red drysuit.")
    assert added == IsPartialDict(name="Wishes", title="Wishes")
    assert await ann.list() == (await ann.call("list_my_documents"))["items"] == [added]
    assert await ann.call("add_my_document", name="Wishes", text="I wish for a red drysuit.") == added
    assert await ann.call("read_my_document", document="Wishes", start=2) == {
        "id": added["id"],
        "name": "Wishes",
        "text": "wish for a red drysuit.",
        "next_start": None,
    }
    odd = await ann.call("add_my_document", name="../plans/a.pdf", text="Some words.")
    assert odd["name"] == "-plans-a.pdf.md"
    assert (await ann.send("DELETE", f"/api/documents/{odd['id']}")).status_code == 204
    deleted = await ann.call("delete_my_document", document="Wishes")
    assert deleted == {"id": added["id"], "name": "Wishes"}, deleted
    assert await ann.list() == []


async def test_documents_are_listed_latest_first_in_pages_that_miss_and_repeat_none(ann: Person) -> None:
    for n in range(5):
        await ann.call("add_my_document", name=f"{n}.md", text=f"Text number {n}.")
    listed: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        page = (await ann.send("GET", "/api/documents", params={"limit": 2, **cursor})).json()
        listed += [item["name"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert listed == [f"{n}.md" for n in (4, 3, 2, 1, 0)]
    assert (await ann.send("GET", "/api/documents", params={"cursor": "x"})).status_code == 422


async def test_there_is_room_for_so_many_documents_of_so_many_bytes(start: Start) -> None:
    async with start(documents_per_user=2, document_bytes_per_user=1_000, document_limit=900) as client:
        ann = Person(client, client.key)
        assert (await ann.add("a.md", "# A\n\n" + "word " * 100)).status_code == 201
        refused = await ann.add("b.md", "# B\n\n" + "word " * 120)
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
        assert refused.json()["detail"].startswith("Your documents have 505 bytes, and 1000 are the most")
        assert (await ann.add("b.md", "# B\n\nShort.")).status_code == 201
        refused = await ann.add("c.md", "# C\n\nShort.")
        assert refused.json()["detail"] == "You have 2 documents, and 2 are the most; delete one first"
        assert (await ann.call("add_my_document", name="c", text="Short."))["code"] == "conflict"
        assert (await ann.add("b.md", "# B\n\nAnother.")).status_code == 200
        large = await ann.add("b.md", "x" * 901)
        assert (large.status_code, large.json()["detail"]) == (413, "The file is larger than 900 bytes; split it")
        room = (await ann.send("GET", "/api/documents")).json()["room"]
        assert room == IsPartialDict(documents=2, most_documents=2, size=518, most_size=1_000, largest=900)


async def test_two_uploads_at_once_do_not_take_more_than_there_is_room_for(start: Start) -> None:
    async with start(documents_per_user=1) as client:
        ann = Person(client, client.key)
        answers = await asyncio.gather(*(ann.add(f"{n}.md", f"# N\n\nText {n}.") for n in range(2)))
        assert sorted(answer.status_code for answer in answers) == [201, 409]
        assert len(await ann.list()) == 1


async def test_of_many_files_that_one_caller_sends_at_once_two_are_taken(ann: Person, ben: Person) -> None:
    answers = await asyncio.gather(
        *(ann.add(f"{n}.md", f"# N\n\nText {n}.") for n in range(6)), ben.add("b.md", LOCKER)
    )
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [429] * 4
    assert answers[-1].status_code == 201
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["detail"] == "2 of your files are being read already; wait for one of them"
    assert (await ann.add("again.md", LOCKER)).status_code == 201


async def test_a_server_may_take_no_documents_of_users(start: Start) -> None:
    async with start(documents_per_user=0) as client:
        refused = await Person(client, client.key).add("a.md", "# A\n\nText.")
    assert (refused.status_code, refused.json()["detail"]) == (
        409,
        "This server takes no documents of users; AGENT_SERVER_DOCUMENTS_PER_USER says how many it takes",
    )


FILES: dict[str, bytes] = {
    "a.txt": b"Title\n\nThe locker is green.",
    "a.html": b"<html><head><title>T</title></head><body><h1>Title</h1><p>The locker is green.</p></body></html>",
    "a.rst": b"Title\n=====\n\nThe locker is green.\n",
    "a.ipynb": b'{"cells": [{"cell_type": "markdown", "source": ["# Title\\n", "\\n", "The locker is green."]}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}',
    "latin.md": "# Schließfach\n\nThe locker is grün.".encode("latin-1"),
}


@pytest.mark.parametrize("name", FILES)
async def test_every_kind_of_file_is_read_and_found(ann: Person, name: str) -> None:
    added = await ann.add(name, FILES[name])
    assert added.status_code == 201, added.text
    (hit, *_) = (await ann.call("search_knowledge", query="Which colour is the locker? green grün"))["hits"]
    assert "The locker is" in hit["text"] and hit["document"] == name
    assert bool(added.json()["remarks"]) == (name == "latin.md")


def _docx(text: str) -> bytes:
    packed = io.BytesIO()
    kinds = (
        '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
    )
    relations = (
        '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        '<Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>'
    )
    body = (
        '<?xml version="1.0"?><w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
        f"<w:body><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:body></w:document>"
    )
    with zipfile.ZipFile(packed, "w") as file:
        for name, content in (("[Content_Types].xml", kinds), ("_rels/.rels", relations), ("word/document.xml", body)):
            file.writestr(name, content)
    return packed.getvalue()


async def test_a_word_document_is_read_and_found(ann: Person) -> None:
    added = await ann.add("plan.docx", _docx("The locker is green."))
    assert added.status_code == 201, added.text
    assert (await ann.call("search_knowledge", query="colour of the locker"))["hits"][0]["document"] == "plan.docx"


WRONG: list[tuple[str, bytes, str]] = [
    ("a.exe", b"MZ", "name: files of the kind '.exe' are not read; send one of .md, .mdx"),
    ("noending", b"x", "name: a file without an ending is not read; send one of .md"),
    ("a/b.md", b"# A\n\nText.", "name: is no name of a file"),
    ("a.md", b"", "file: has no text"),
    ("a.md", b"\x00\x01\x02", "file: holds a NUL byte"),
    ("a.pdf", b"%PDF-1.4 nothing", "file: is no PDF that can be opened"),
    ("a.docx", b"PK nothing", "file: is no Word document that can be opened"),
    ("a.ipynb", b"{", "file: "),
]


@pytest.mark.parametrize(("name", "content", "says"), WRONG)
async def test_what_cannot_be_read_is_refused_by_name(ann: Person, name: str, content: bytes, says: str) -> None:
    refused = await ann.add(name, content)
    assert refused.status_code == 422, refused.text
    assert refused.json()["detail"].startswith(says)
    assert await ann.list() == []


async def test_a_file_that_is_packed_or_in_a_form_is_refused(ann: Person) -> None:
    for headers in ({"Content-Encoding": "gzip"}, {"Content-Type": "multipart/form-data; boundary=x"}):
        refused = await ann.client.http.post(
            "/api/documents", params={"name": "a.md"}, content=b"x", headers={**ann.auth, **headers}
        )
        assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media_type")


async def test_a_file_without_a_credential_is_refused_before_it_is_read(ann: Person) -> None:
    refused = await ann.client.http.post("/api/documents", params={"name": "a.md"}, content=b"x" * 100)
    assert refused.status_code == 401
