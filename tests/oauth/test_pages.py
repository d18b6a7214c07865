"""The pages in a real browser: consent, the way back, the list of connected clients."""

import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
from playwright.async_api import Browser, Page, Route, async_playwright, expect

from agent_server.oauth import tokens
from agent_server.oauth.grants import exchange
from tests.needs import find_chromium
from tests.oauth.conftest import CALLBACK, CHALLENGE, EMAIL, PASSWORD, Open, Site, make_user, query_of
from tests.web.conftest import ARGUMENTS

pytestmark = pytest.mark.needs("chromium")

THERE = "http://localhost:1"
LONG = "A client with a name that is as long as any may be, and says a lot of itself too"[:80]
"""Names that a page must hold."""
ARABIC = "مساعد الغوص الذكي"


@pytest.fixture
async def site(open_site: Open) -> AsyncIterator[Site]:
    async with open_site(public_url=THERE) as site:
        site.http.headers["Host"] = "localhost:1"
        await make_user(site)
        yield site


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        yield browser
        await browser.close()


async def open_consent(
    site: Site, page: Page, name: str = "Claude", redirect: str = CALLBACK, **more: str
) -> list[str]:
    """Show what a client asks for; the list fills with the addresses of other sites that the browser is sent to."""
    async with httpx.AsyncClient(base_url=site.base) as http:
        registered = await http.post("/oauth/register", json={"client_name": name, "redirect_uris": [redirect]})
    client, left = registered.json()["client_id"], list[str]()
    asked = {
        "response_type": "code",
        "client_id": client,
        "redirect_uri": redirect,
        "code_challenge": CHALLENGE,
        "state": "a state",
        "resource": f"{THERE}/mcp",
        "scope": "tasks:read tasks:write knowledge:read",
        **more,
    }

    async def answer(route: Route) -> None:
        left.append(route.request.url)
        await route.fulfill(status=200, content_type="text/html", body="<title>Elsewhere</title>")

    await page.route(re.compile("^https://"), answer)
    # The address that a client is given leads to the public address, which is somewhere else here.
    async with httpx.AsyncClient(base_url=site.base) as http:
        where = (await http.get(f"/oauth/authorize?{urlencode(asked)}")).headers["location"]
    await page.goto(where.replace(THERE, site.base))
    return left


async def test_a_user_signs_in_and_is_led_back(site: Site, browser: Browser) -> None:
    page = await browser.new_page()
    left = await open_consent(site, page)
    await expect(page).to_have_title("Connect a client · Agent server")
    await expect(page.get_by_role("checkbox")).to_have_count(3)
    await page.get_by_label("tasks:write").uncheck()
    await page.get_by_label("E-mail").fill(EMAIL)
    await page.get_by_label("Password").fill("not it")
    await page.get_by_label("Password").press("Enter")
    await expect(page.get_by_role("alert")).to_have_text("E-mail and password do not belong together")
    await expect(page.get_by_label("E-mail")).to_have_value(EMAIL)
    await expect(page.get_by_label("Password")).to_have_value("")
    await expect(page.get_by_label("tasks:write")).not_to_be_checked()
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Allow", exact=True).click()
    await expect(page).to_have_title("Elsewhere")
    assert query_of(left[0]) | {"code": ""} == {"code": "", "state": "a state", "iss": THERE}
    assert urlsplit(left[0]).hostname == "claude.ai"
    await page.close()


async def test_a_user_who_says_no_is_led_back_without_a_password(site: Site, browser: Browser) -> None:
    page = await browser.new_page()
    left = await open_consent(site, page)
    await page.get_by_role("button", name="Do not allow").click()
    await expect(page).to_have_title("Elsewhere")
    assert query_of(left[0])["error"] == "access_denied"
    await page.close()


async def test_no_other_site_shows_the_page_in_a_frame(site: Site, browser: Browser) -> None:
    page = await browser.new_page()
    await open_consent(site, page)
    framed = page.url
    trap = await browser.new_page()
    said: list[str] = []
    trap.on("console", lambda message: said.append(message.text))
    await trap.route(
        "https://evil.example/",
        lambda route: route.fulfill(content_type="text/html", body=f'<iframe src="{framed}"></iframe>'),
    )
    await trap.goto("https://evil.example/")
    await trap.wait_for_load_state("load")
    frames = [await frame.content() for frame in trap.frames[1:]]
    assert not any("password" in each.lower() for each in frames)
    await trap.close()
    await page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360, 320])
@pytest.mark.parametrize("name", ["Claude", LONG, ARABIC], ids=["short", "long", "right to left"])
async def test_the_page_fits_and_can_be_read(site: Site, browser: Browser, scheme: Any, width: int, name: str) -> None:
    context = await browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 740})
    page = await context.new_page()
    await open_consent(site, page, name, "http://127.0.0.1:8123/callback" if name == LONG else CALLBACK)
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"Let {name} act for you?")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await page.evaluate(CONTRAST) == []
    small = await page.evaluate(
        "[...document.querySelectorAll('button')].filter(b => b.getBoundingClientRect().height < 44).length"
    )
    assert small == 0
    await context.close()


CONTRAST = """
() => {
  // a canvas knows the value of any colour that a browser takes
  const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const light = (colour) => {
    const [r, g, b] = rgb(colour).slice(0, 3).map((c) => c / 255).map((c) => (c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (rgb(colour)[3] === 255) return colour;
    }
    return "white";
  };
  const faint = [];
  for (const element of document.querySelectorAll("main *")) {
    if (![...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) faint.push(`${element.tagName} ${element.textContent.trim().slice(0, 30)}`);
  }
  return faint;
}"""


async def test_a_user_sees_the_connected_clients_and_disconnects_one(site: Site, browser: Browser) -> None:
    page = await browser.new_page()
    for name in ("Claude", "<b>ChatGPT</b>"):
        left = await open_consent(site, page, name)
        await page.get_by_label("E-mail").fill(EMAIL)
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Allow", exact=True).click()
        await expect(page).to_have_title("Elsewhere")
        code = tokens.read_code(query_of(left[0])["code"])
        assert code is not None
        owner, grant, _ = code
        async with site.server.database.transaction(owner) as session:
            assert await exchange(session, owner, grant)
    await page.goto(f"{site.base}/oauth/clients")
    await page.get_by_label("E-mail").fill(EMAIL)
    await page.get_by_label("Password").fill("not it")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("status")).to_have_text("E-mail and password do not belong together")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("listitem")).to_have_count(2)
    await expect(page.get_by_role("listitem").first).to_contain_text("<b>ChatGPT</b>")
    assert await page.evaluate(CONTRAST) == []
    await page.get_by_role("button", name="Disconnect Claude").click()
    await expect(page.get_by_role("status")).to_have_text("Claude is disconnected.")
    await page.reload()
    await page.get_by_label("E-mail").fill(EMAIL)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("listitem")).to_have_count(1)
    await page.close()
