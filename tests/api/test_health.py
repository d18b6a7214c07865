"""/health, /readyz, /api/page, /docs: what an operator, a load balancer and a reader of the API see."""

import asyncio
import re

import pytest
from dirty_equals import IsDatetime, IsPartialDict, IsStr
from playwright.async_api import async_playwright, expect
from sqlalchemy import text

from agent_server.api.health import RECENT_SECONDS
from tests.conftest import everything
from tests.needs import find_chromium
from tests.server import Client
from tests.web.conftest import ARGUMENTS


async def test_health_tells_version_and_model_and_asks_nothing_of_the_database(client: Client) -> None:
    async with everything(client.server.database) as session:
        await session.execute(text("drop table replica, guest cascade"))
    response = await client.http.get("/health")
    assert response.status_code == 200
    assert response.json() == {
        "status": "ok",
        "timestamp": IsDatetime(iso_string=True),
        "version": IsStr(regex=r"\d+\.\d+\.\d+.*"),
        "model": {"name": IsStr(), "offline": True, "fallback": None},
    }


async def test_a_server_with_its_database_and_its_migrations_is_ready(client: Client) -> None:
    response = await client.http.get("/readyz")
    assert response.status_code == 200
    assert response.json() == IsPartialDict(status="ok", database_ok=True, pending_migrations=[])
    assert response.json()["passages"] > 100
    assert response.json()["pool_status"] == IsPartialDict(size=8)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (
            "update alembic_version set version_num = 'engine_0027' where version_num = 'engine_0028'",
            {"pending_migrations": ["engine_0028"]},
        ),
        (
            "drop table chunk, alembic_version cascade",
            {
                "pending_migrations": [
                    "engine_0001",
                    "workspace_0001",
                    "workspace_0002",
                    "workspace_0003",
                    "workspace_0004",
                    "workspace_0005",
                    *(f"engine_{n:04}" for n in range(2, 29)),
                ]
            },
        ),
        (
            "update alembic_version set version_num = 'from_the_future' where version_num = 'engine_0028'",
            {"status": "unavailable"},
        ),
    ],
)
async def test_a_database_that_is_not_at_this_version_is_not_ready(
    client: Client, statement: str, says: dict[str, object]
) -> None:
    async with everything(client.server.database) as session:
        await session.execute(text(statement))
    response = await client.http.get("/readyz")
    assert response.status_code == 503, response.text
    assert response.json() == IsPartialDict(says)


async def test_many_questions_for_readiness_cost_one_look_at_the_database(client: Client) -> None:
    answers = await asyncio.gather(*(client.http.get("/readyz") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    async with everything(client.server.database) as session:
        await session.execute(text("drop table chunk cascade"))
    assert (await client.http.get("/readyz")).json()["passages"] > 100  # as of a moment ago
    await asyncio.sleep(RECENT_SECONDS)
    assert (await client.http.get("/readyz")).status_code >= 500


async def test_the_page_learns_what_it_shows_before_the_first_message(client: Client) -> None:
    page = (await client.http.get("/api/page")).json()
    assert page == IsPartialDict(name="Agent server", development=True, message_limit=2000)
    assert len(page["suggestions"]) >= 3


async def test_the_docs_name_no_other_host(client: Client) -> None:
    for path in ("/docs", "/docs/start.js"):
        answer = await client.http.get(path)
        assert answer.status_code == 200
        assert not re.search(r"https?:|//\w+\.\w", answer.text), path
    for path in ("/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js"):
        answer = await client.http.get(path)
        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "max-age=86400"


@pytest.mark.needs("chromium")
async def test_the_docs_work_in_a_browser_under_the_pages_own_policy(client: Client) -> None:
    complaints, asked = [], []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        page = await browser.new_page()
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(f"{client.http.base_url}/docs")
        operation = page.locator("#operations-chat-chat_api_chat_post, .opblock").first
        await expect(operation).to_be_visible(timeout=30_000)
        assert await page.locator(".opblock").count() >= len(client.server.workspace.tools)
        await page.locator(".opblock-summary").first.click()
        await expect(page.locator(".opblock-body").first).to_be_visible()
        await browser.close()
    assert complaints == []
    base = str(client.http.base_url)
    assert [url for url in asked if not url.startswith((base, "data:", "blob:"))] == []
