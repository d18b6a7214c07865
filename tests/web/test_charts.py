"""Tables and charts on the page: drawn in its colours, with their figures at hand, after a reload as before."""

from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.web.conftest import Open, answered, ask
from tests.web.fake_server import Fake
from tests.web.test_page import FAINT

PHONE: dict[str, Any] = {"is_mobile": True, "has_touch": True, "viewport": {"width": 375, "height": 740}}


def drawn(page: Page) -> Locator:
    """The picture of the chart, which has been read as an image."""
    image = page.locator(".figures img")
    expect(image).to_be_visible()
    page.wait_for_function("() => document.querySelector('.figures img').naturalWidth > 0")
    return image


def test_a_chart_is_an_image_with_its_figures_beside_it_and_follows_the_theme(fake: Fake, open_page: Open) -> None:
    page = open_page(color_scheme="light")
    ask(page, "Sales as a chart")
    answered(page)
    image = drawn(page)
    alt = image.get_attribute("alt")
    assert alt is not None and alt.startswith("Bar chart “Sales by month”: Net sales (EUR) by Month, 16 rows; lowest")
    light = image.get_attribute("src")
    expect(page.get_by_role("table")).to_be_hidden()
    page.get_by_text("Show figures").click()
    expect(page.get_by_role("table").get_by_role("row")).to_have_count(17)
    expect(page.get_by_role("cell", name="98,765.43").first).to_be_visible()
    assert page.evaluate("document.querySelectorAll('.answer script, .answer svg style').length") == 0

    page.emulate_media(color_scheme="dark")
    expect(image).not_to_have_attribute("src", light or "")
    page.reload()
    assert drawn(page).get_attribute("alt") == alt
    queries = [path for method, path, *_ in fake.requests if method == "GET" and "/charts/call-1" in path]
    assert len(queries) == 3


def test_a_table_and_a_chart_that_was_not_drawn_show_their_figures(fake: Fake, open_page: Open) -> None:
    fake.undrawn = "Pictures of charts need the extra: pip install 'agent-server[charts]'"
    page = open_page()
    ask(page, "Sales as a chart")
    answered(page)
    expect(page.get_by_text(fake.undrawn)).to_be_visible()
    expect(page.get_by_role("table")).to_be_visible()
    ask(page, "Sales as a table")
    expect(page.get_by_role("table")).to_have_count(2)
    expect(page.get_by_role("table").last).to_be_visible()
    expect(page.locator(".figures img")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_fit_a_phone_in_both_directions_and_are_no_faint_reading(open_page: Open, scheme: str) -> None:
    page = open_page(color_scheme=scheme, **PHONE)
    if scheme == "dark":
        page.evaluate("document.documentElement.dir = 'rtl'")
    ask(page, "מכירות")
    answered(page)
    image = drawn(page)
    page.get_by_text("Show figures").tap()
    box = image.bounding_box()
    assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 375 and box["height"] > 150
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(FAINT) == []
    assert page.locator(".figures summary").evaluate("(e) => e.getBoundingClientRect().height") >= 39.5
