"""The developer page and the drawer of the chat page, in a real browser against `agent-server serve`."""

import asyncio
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect

from agent_server.testing import Call, Say, Step, copy_database, scripted_openai
from agent_server.web import __file__ as web
from tests.commands import Serving, serving
from tests.web.conftest import ROUTINE
from tests.web.test_page import FAINT

FILES = Path(web).parent / "developer"
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
ASKED = "How long should dough rise?"
HOSTILE = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>"
WORKSPACE = {
    "prompts/baker.md": """\
---
name: baker
description: Answers questions about bread.
tools: [read_book, read_page, drop_book]
examples: [How long should dough rise?]
---
You are a baker. Answer from the passages.
{% if profile.name %}The user is {{ profile.name }}.{% endif %}
""",
    "prompts/brewer.md": "---\nname: brewer\ndescription: Answers questions about beer.\n---\nYou are a brewer.\n",
    "content/baking/dough.md": "---\ntitle: Dough\ndescription: How dough rises.\n---\n# Dough\n\n"
    "Dough should rise for two hours in a warm place.\n",
    "tools/books.py": f'''\
from agent_server import ToolContext, tool

@tool(scope="books:read", effect="read")
async def read_book(context: ToolContext, title: str) -> str:
    """Read a whole book."""
    return {HOSTILE!r} + "מים מלוחים. " * 8000

@tool(scope="books:read", effect="read")
async def read_page(context: ToolContext, page: int) -> dict[str, int]:
    """Read a page."""
    return {{"page": page}}

@tool(scope="books:write", effect="stored", destructive=True)
async def drop_book(context: ToolContext, title: str) -> str:
    """Delete a book."""
    return title
''',
}

pytestmark = pytest.mark.needs("chromium")


def answer(request: dict[str, Any]) -> Step:
    """What the model says. It reads its prompt, and who edits that sees another answer."""
    told, said = request["messages"][0]["content"], request["messages"]
    asked = next(m["content"] for m in reversed(said) if m["role"] == "user")
    results = sum(m["role"] == "tool" for m in said[[m["content"] for m in said].index(asked) :])
    if "book" in asked and not results:
        return Call("read_book", {"title": HOSTILE})
    if "pages" in asked and results < 39:
        return Call("read_page", {"page": results + 1})
    if "delete" in asked and not results:
        return Call("drop_book", {"title": "Bread"})
    if "You are a terse baker" in told:
        return Say("Two hours [1].")
    if "You are a patient baker" in told:
        return Say("Patience: two hours, in a warm place [1].")
    return Say("Dough should rise for two hours, and in a warm place [1].")


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    """A scripted model in a thread of its own: Playwright's loop is this one's."""
    loop, ready, urls = asyncio.new_event_loop(), threading.Event(), list[str]()
    over = asyncio.Event()

    async def serve() -> None:
        async with scripted_openai(answer) as served:
            urls.append(served.url)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait()
    yield urls[0]
    loop.call_soon_threadsafe(over.set)
    thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shelf")
    for name, text in WORKSPACE.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture(scope="module")
def server(folder: Path, model: str, postgres: str) -> Iterator[Serving]:
    more = {"OPENAI_BASE_URL": model, "AGENT_SERVER_MODEL": "m", "AGENT_SERVER_MODEL_CALLS_PER_TURN": "60"}
    with copy_database(postgres) as url, serving(folder, url, AGENT_SERVER_TITLE="Bakery", **more) as server:
        yield server


Open = Callable[..., Page]


# The server first: what makes its database runs a loop, which it could not beside Playwright's.
@pytest.fixture
def open_page(server: Serving, browser: Browser) -> Iterator[Open]:
    """`open_page(path, **context)`, as the developer; the browser must find nothing to complain of, and ask nobody else."""
    complaints: list[str] = []
    contexts = []
    address = str(server.http.base_url).rstrip("/")
    key = server.http.headers["Authorization"].removeprefix("Bearer ")

    def heard(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not ROUTINE.match(message.text):
            complaints.append(message.text)

    def asked(request: Request) -> None:
        if not request.url.startswith((address, "blob:", "data:")):
            complaints.append(request.url)

    def open_page(path: str = "/dev", **context: Any) -> Page:
        contexts.append(browser.new_context(**context))
        page = contexts[-1].new_page()
        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", asked)
        page.goto(f"{address}{path}#key={key}")
        page.get_by_text(f"Key …{key[-4:]}").first.wait_for(state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def shoot(page: Page, name: str, *, full_page: bool = True) -> None:
    """Keep a picture for people to look at, in the folder of $SCREENSHOTS."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=full_page)


def run(page: Page, text: str | None = None, *, agent: str | None = "baker") -> None:
    if agent is not None:
        page.get_by_label("Who answers").select_option(agent)
    if text is not None:
        page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name=re.compile("^Run")).click()
    expect(page.get_by_role("button", name="Run again")).to_be_enabled()
    expect(page.locator(".shown").last.locator(".timeline")).to_be_visible()


def editor(page: Page) -> Any:
    return page.get_by_label("Text of the prompt")


def test_a_prompt_is_edited_run_again_compared_saved_and_kept_as_a_case(
    open_page: Open, server: Serving, folder: Path
) -> None:
    page = open_page(viewport={"width": 1440, "height": 1000}, color_scheme="light")
    file = folder / "prompts/baker.md"
    expect(page.get_by_role("heading", name="Bakery Developer page")).to_be_visible()
    expect(page.get_by_label("Who answers").locator("option")).to_have_text(
        ["Whoever the message is routed to", "Baker", "Brewer", "Triage"]
    )
    expect(editor(page)).to_have_value(WORKSPACE["prompts/baker.md"])
    run(page, ASKED, agent=None)
    shown = page.locator(".shown")
    expect(shown.locator(".text")).to_contain_text("and in a warm place")
    timeline = shown.get_by_role("region")
    expect(timeline.filter(has_text="Routing")).to_contain_text("baker")
    expect(page.get_by_role("region", name="Passages (1)")).to_contain_text("score")
    shoot(page, "one-light")

    # the prompt as sent is read when its call is opened
    call = page.get_by_role("region", name="Calls (1 of models, 0 of tools)").locator("details")
    expect(call.locator("summary")).to_contain_text(re.compile(r"Model 1.*baker · .*m.* in, .* out"))
    call.locator("summary").click()
    expect(call.locator("pre").first).to_contain_text("You are a baker.")
    expect(call.get_by_role("heading", name="Messages (1)")).to_be_visible()
    expect(call.locator(".item").last).to_contain_text(ASKED)
    expect(call.get_by_role("heading", name="Tools (3)")).to_be_visible()

    # edited and not saved
    editor(page).fill(WORKSPACE["prompts/baker.md"].replace("You are a baker", "You are a terse baker"))
    expect(page.get_by_text("edited, not saved")).to_be_visible()
    page.locator("#profile-field > summary").click()
    page.get_by_label("What agents are told of the caller, as JSON").fill('{"name": "Ann"}')
    run(page)
    expect(shown).to_have_count(2)
    expect(shown.get_by_role("heading", level=2, name=re.compile("Before|Now"))).to_have_text(["Before", "Now"])
    expect(shown.last.locator(".label")).to_have_text("Baker, edited")
    expect(shown.last.locator(".text")).to_contain_text("Two hours")
    differences = page.get_by_role("region", name="Differences")
    expect(differences.locator("del").first).to_contain_text("Dough should rise for")
    expect(differences.locator("ins").first).to_contain_text("Two")
    expect(differences.get_by_role("row", name=re.compile("Cited"))).to_contain_text("baking/dough.md")
    shown.last.locator("summary", has_text="Model 1").click()
    expect(shown.last.locator("pre").filter(has_text="You are a terse baker")).to_contain_text('The user is "Ann".')
    assert file.read_text() == WORKSPACE["prompts/baker.md"]
    assert server.ask(ASKED)["text"].startswith("Dough should rise")
    shoot(page, "two-light")
    page.emulate_media(color_scheme="dark")
    shoot(page, "two-dark")
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(FAINT) == []

    # a mistake is told where it is, and nothing is written
    editor(page).fill(WORKSPACE["prompts/baker.md"] + "{{ nothing }}")
    page.get_by_role("button", name="Save the file").click()
    expect(page.get_by_role("alert").filter(has_text="line 9")).to_be_visible()
    run_button = page.get_by_role("button", name="Run again")
    run_button.click()
    expect(page.locator("#run-error")).to_contain_text("line 9")
    shoot(page, "mistake")
    assert file.read_text() == WORKSPACE["prompts/baker.md"]

    # saved, the next message is answered by it
    patient = WORKSPACE["prompts/baker.md"].replace("You are a baker", "You are a patient baker")
    editor(page).fill(patient)
    page.get_by_role("button", name="Save the file").click()
    expect(page.get_by_text("edited, not saved")).to_be_hidden()
    assert file.read_text() == patient
    assert server.ask(ASKED)["text"].startswith("Patience")
    file.write_text(WORKSPACE["prompts/baker.md"])  # by somebody else
    editor(page).fill(patient + "And more.\n")
    page.get_by_role("button", name="Save the file").click()
    expect(page.locator("#prompt-error")).to_contain_text("has changed since it was read")
    page.get_by_role("button", name="Load the file again").click()
    expect(editor(page)).to_have_value(WORKSPACE["prompts/baker.md"])
    expect(editor(page)).to_be_focused()

    # a case, with what happened as what is expected
    shown.last.get_by_role("button", name="Save as a case").click()
    dialog = page.get_by_role("dialog", name="Save as a case")
    expect(dialog.get_by_label("File in evals/")).to_have_value("baker.yaml")
    expect(dialog.get_by_label("Case", exact=True)).to_have_value(re.compile("citations:\n +- baking/dough.md"))
    shoot(page, "case")
    dialog.get_by_label("File in evals/").fill("../x.yaml")
    dialog.get_by_role("button", name="Add the case").click()
    expect(dialog.get_by_role("alert")).to_contain_text("name one of evals/")
    dialog.get_by_label("File in evals/").fill("baker.yaml")
    dialog.get_by_role("button", name="Add the case").click()
    expect(dialog.get_by_text(f"Added as evals/baker.yaml::{ASKED}")).to_be_focused()
    page.keyboard.press("Escape")
    (case,) = yaml.safe_load((folder / "evals/baker.yaml").read_text())["cases"]
    assert case["metadata"]["profile"] == {"name": "Ann"}
    assert [each["title"] for each in server.get("/api/conversations")["items"]].count(ASKED) == 2  # of the two `ask`


def test_long_and_hostile_turns_are_shown_in_the_drawer_and_on_a_phone(open_page: Open, server: Serving) -> None:
    with_book = server.ask("Read me the book")
    server.ask("Read all the pages", id=with_book["conversation_id"])
    page = open_page("/", viewport={"width": 1200, "height": 900})
    loaded: list[str] = []
    page.on("request", lambda request: loaded.append(request.url))
    page.get_by_role("link", name="Read me the book").click()
    looks = page.get_by_role("button", name="How it came about")
    expect(looks).to_have_count(2)
    assert not [url for url in loaded if "/dev" in url]
    looks.first.focus()
    page.keyboard.press("Enter")
    drawer = page.get_by_role("dialog", name="How this answer came about")
    expect(drawer.get_by_role("heading", name="How this answer came about")).to_be_focused()
    tool = drawer.locator("details", has_text="read_book")
    tool.locator("summary").click()
    expect(tool.locator("pre").last).to_contain_text("<img src=x onerror=")
    assert tool.locator("pre").last.inner_text().count("מים") < 400
    shoot(page, "drawer-light")
    tool.get_by_role("button", name=re.compile(r"Show all \d+,\d+ characters")).click()
    expect(tool.locator("pre").last).to_be_focused()
    assert tool.locator("pre").last.inner_text().count("מים") == 8000
    assert drawer.locator("img, script").count() == 0
    expect(page).to_have_title(re.compile("Bakery"))
    page.emulate_media(color_scheme="dark")
    shoot(page, "drawer-dark")
    assert page.evaluate(FAINT) == []
    page.keyboard.press("Escape")
    expect(drawer).to_have_count(0)
    expect(looks.first).to_be_focused()
    looks.last.click()
    expect(drawer.get_by_role("region", name="Calls (40 of models, 39 of tools)").locator("li")).to_have_count(79)
    drawer.locator("summary", has_text="Model 40").click()
    expect(drawer.get_by_role("heading", name=re.compile(r"Messages \(8\d\)"))).to_be_visible()
    drawer.get_by_role("button", name="Close").click()

    # a phone, and another direction of writing
    looks.last.click()
    drawer.get_by_role("link", name="Developer page").click()
    expect(page.get_by_label("Message", exact=True)).to_have_value("Read all the pages")
    address = page.url
    phone = open_page(**PHONE)
    phone.goto(address)
    phone.reload()
    expect(phone.locator(".shown .timeline")).to_be_visible()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    shoot(phone, "phone", full_page=False)
    phone.locator(".timeline").scroll_into_view_if_needed()
    phone.locator(".steps summary").nth(1).tap()
    phone.locator(".facts").first.evaluate("e => e.scrollIntoView()")
    shoot(phone, "phone-timeline", full_page=False)
    small = phone.evaluate("""() => [...document.querySelectorAll("button, summary")]
        .filter((e) => e.checkVisibility()).map((e) => [e.textContent, e.getBoundingClientRect().height])
        .filter(([, height]) => height < 39.5)""")
    assert small == []
    phone.get_by_label("After what was said before this turn").uncheck()
    run(phone, "Please delete it")
    shown = phone.locator(".shown").last
    expect(shown.get_by_role("button", name="Yes, drop")).to_be_visible()  # it asks first, as in the chat
    shown.get_by_role("button", name="No", exact=True).tap()
    expect(shown.locator(".card .state")).to_have_text("Not done")

    other = open_page(viewport={"width": 1200, "height": 900})
    other.evaluate("document.documentElement.dir = 'rtl'")
    other.get_by_label("Conversation").select_option(label="Read me the book")
    other.get_by_label("Turn", exact=True).select_option(index=0)
    expect(other.locator(".shown .timeline").last).to_be_visible()
    expect(other.locator(".shown")).to_have_count(2)
    expect(other.locator(".shown").last.locator(".facts").first).to_contain_text("Read me the book")
    assert other.evaluate("document.documentElement.scrollWidth") <= 1200
    shoot(other, "rtl", full_page=False)


def test_who_has_no_key_is_told_where_it_is(server: Serving, browser: Browser) -> None:
    page = browser.new_context().new_page()
    page.goto(f"{server.http.base_url}/dev")
    expect(page.get_by_role("heading", name="This needs the developer's key")).to_be_visible()
    expect(page.get_by_label("Message", exact=True)).to_be_hidden()
    page.context.close()


def test_developer_page_stays_small() -> None:
    assert sum(file.stat().st_size for file in FILES.iterdir()) < 48_000
