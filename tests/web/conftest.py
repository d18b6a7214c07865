"""The page in a real browser, against a server with scripted answers."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.needs import find_chromium
from tests.web.fake_server import Fake, serving

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
ROUTINE = re.compile(r"Failed to load resource: (the server responded with a status of|net::ERR_)")

expect.set_options(timeout=15_000)

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def fake() -> Iterator[Fake]:
    with serving() as fake:
        yield fake


@pytest.fixture
def open_page(browser: Browser, fake: Fake) -> Iterator[Open]:
    """`open_page(path, token=..., **context)`; whatever the test does, the browser must find nothing to complain of."""
    complaints: list[str] = []
    contexts = []

    def heard(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not ROUTINE.match(message.text):
            complaints.append(message.text)

    def open_page(path: str = "", token: str | None = None, **context: Any) -> Page:
        contexts.append(browser.new_context(**context))
        page = contexts[-1].new_page()
        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        if token:
            page.add_init_script(f"localStorage['agent-server.guest'] ??= '{token}'")
        page.goto(fake.address + path)
        expect(page).to_have_title(re.compile("Dive Centre"))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def ask(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def answered(page: Page) -> None:
    expect(page.locator("#status")).to_have_text(re.compile("has answered"))


def asked_again(page: Page, times: int = 1) -> None:
    """So many questions are shown, each with an answer that is complete."""
    expect(page.locator(".question")).to_have_count(times)
    expect(page.locator(".answer[data-state=done]")).to_have_count(times)
