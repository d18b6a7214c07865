"""The page while something else goes on: an answer that is being written, another tab or device, a connection that is lost."""

import re

import pytest
from playwright.sync_api import Page, Route, expect

from tests.web.conftest import Open, answered, ask, asked_again
from tests.web.fake_server import Fake, problem

pytestmark = pytest.mark.needs("chromium")


def waiting(page: Page) -> list[str]:
    return page.get_by_role("list", name="Waiting messages").locator("li p").all_inner_texts()


def come_back(page: Page) -> None:
    """As when the page comes to the foreground."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def said_to(fake: Fake) -> list[str]:
    """The messages that the server was sent, in order."""
    return [body["message"] for _, body in fake.sent("POST", "/api/chat") if body and "message" in body]


# ---- messages that wait ----


def test_message_during_an_answer_waits_and_goes_when_it_ends_in_order(fake: Fake, open_page: Open) -> None:
    page = open_page()
    ask(page, "Answer slowly")
    expect(page.locator(".answer td").first).to_be_visible()
    ask(page, "code")
    ask(page, "not this")
    ask(page, "again")
    expect(page.locator("#status")).to_have_text("Your message waits until this answer is finished.")
    assert waiting(page) == ["code", "not this", "again"]
    assert said_to(fake) == ["Answer slowly"]

    page.locator("#queue li", has_text="not this").get_by_role("button", name="Take back").click()
    message = page.get_by_label("Message", exact=True)
    expect(message).to_have_value("not this")
    expect(message).to_be_focused()
    message.fill("")
    fake.open("slow")
    asked_again(page, 3)
    assert said_to(fake) == ["Answer slowly", "code", "again"]
    expect(page.get_by_role("region", name="Waiting messages")).to_be_hidden()
    assert page.evaluate("sessionStorage.length") == 0


def test_waiting_message_can_be_answered_now(fake: Fake, open_page: Open) -> None:
    page = open_page()
    ask(page, "Answer slowly")
    expect(page.locator(".answer td").first).to_be_visible()
    ask(page, "again")
    ask(page, "code")
    page.locator("#queue li", has_text="code").get_by_role("button", name="Answer now").click()
    asked_again(page, 3)
    expect(page.get_by_text("Stopped", exact=True)).to_have_count(1)
    assert said_to(fake) == ["Answer slowly", "code", "again"]


def test_message_that_is_sent_while_an_answer_is_being_stopped_goes_at_once(fake: Fake, open_page: Open) -> None:
    page = open_page()
    ask(page, "Answer slowly")
    expect(page.locator(".answer td").first).to_be_visible()
    with page.expect_request("**/stop"):
        held: list[Route] = []
        page.route("**/stop", lambda route: held.append(route))  # a method cannot be given, Playwright marks it
        page.get_by_role("button", name="Stop answering").click()
    ask(page, "code")
    assert waiting(page) == ["code"]
    held[0].continue_()
    asked_again(page, 2)
    assert said_to(fake) == ["Answer slowly", "code"]


@pytest.mark.parametrize("end", ["stopped", "failed"])
def test_message_behind_an_answer_that_was_not_finished_waits_for_a_word(fake: Fake, open_page: Open, end: str) -> None:
    page = open_page()
    ask(page, "Answer slowly" if end == "stopped" else "fail slowly in the end")
    expect(page.get_by_role("button", name="Stop answering")).to_be_visible()
    ask(page, "code")
    if end == "stopped":
        page.get_by_role("button", name="Stop answering").click()
    else:
        fake.open("end")
    expect(page.get_by_text("Not sent, because the answer before was not finished:")).to_be_visible()
    page.reload()
    expect(page.get_by_text("Not sent, because the answer before was not finished:")).to_be_visible()
    assert len(said_to(fake)) == 1
    page.get_by_role("button", name="Answer now").click()
    asked_again(page, 2)
    assert said_to(fake)[1:] == ["code"]


def test_waiting_messages_go_also_while_another_conversation_is_shown(fake: Fake, open_page: Open) -> None:
    fake.converse("Mantas", "Where?", "In Komodo.")
    page = open_page(token="as_key")
    ask(page, "Answer slowly")
    expect(page.locator(".answer td").first).to_be_visible()
    ask(page, "code")
    page.get_by_role("link", name="Mantas").click()
    expect(page.locator(".text")).to_have_text("In Komodo.")
    expect(page.locator("#queue")).to_be_hidden()
    page.get_by_role("link", name="Answer slowly").click()
    expect(page.locator("#queue li")).to_have_count(1)
    page.get_by_role("link", name="Mantas").click()
    fake.open("slow")
    expect(page.locator(".list li a").first).to_have_text("Answer slowly")
    page.wait_for_function("() => !sessionStorage.length")
    expect(page.locator(".question")).to_have_text([re.compile("Where")])
    page.get_by_role("link", name="Answer slowly").click()
    asked_again(page, 2)
    assert said_to(fake) == ["Answer slowly", "code"]


def test_nothing_that_waits_is_sent_with_another_key(fake: Fake, open_page: Open) -> None:
    fake.valid.add("as_other")
    page = open_page(token="as_key")
    ask(page, "Answer slowly")
    expect(page.locator(".answer td").first).to_be_visible()
    ask(page, "for my eyes")
    page.get_by_role("button", name="Use a key").click()
    page.get_by_label("Key", exact=True).fill("as_other")
    page.keyboard.press("Enter")
    expect(page.locator("#identity")).to_have_text("Key …ther")
    expect(page.locator("#queue")).to_be_hidden()
    assert "for my eyes" not in str(page.evaluate("({...sessionStorage})"))
    fake.open("slow")
    ask(page, "code")
    answered(page)
    assert said_to(fake) == ["Answer slowly", "code"]


# ---- other tabs and devices ----


def test_two_tabs_show_the_same_conversation_while_it_is_held(fake: Fake, open_page: Open) -> None:
    one = open_page()
    ask(one, "code")
    answered(one)
    two = one.context.new_page()
    two.goto(one.url)
    asked_again(two, 1)

    ask(one, "Answer slowly")
    expect(two.locator(".question")).to_have_count(2)
    expect(two.locator(".answer td").first).to_be_visible()  # it streams there as well
    expect(two.get_by_role("button", name="Stop answering")).to_be_visible()
    fake.open("slow")
    for tab in (one, two):
        asked_again(tab, 2)
        expect(tab.locator(".text").last).to_contain_text("mountain pass")

    ask(two, "delete it")
    for tab in (one, two):
        expect(tab.get_by_role("button", name="Yes, delete")).to_be_visible()
    two.get_by_role("button", name="Yes, delete").click()
    expect(one.locator(".card .state").last).to_have_text("Deleted")
    ask(one, "form")
    two.get_by_label("E-mail").fill("ada@example.org")
    two.keyboard.press("Enter")
    expect(one.get_by_text("Sent. Thank you.")).to_be_visible()
    expect(one.get_by_role("button", name="Send", exact=True)).to_have_count(1)  # of the message
    assert len(said_to(fake)) == 4
    one.get_by_role("button", name="Good answer").first.click()
    expect(two.get_by_role("button", name="Good answer").first).to_have_attribute("aria-pressed", "true")

    two.locator(".list li").hover()
    two.get_by_role("button", name="Delete code").click()
    two.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(one.get_by_text("This conversation was deleted.")).to_be_visible()
    expect(one.locator(".list li")).to_have_count(0)


def test_what_another_tab_does_during_an_answer_is_shown_when_it_ends(fake: Fake, open_page: Open) -> None:
    page = open_page()
    ask(page, "Answer slowly")
    expect(page.locator(".answer td").first).to_be_visible()
    (id,) = fake.conversations
    fake.add(id, "And when?", "In May.")
    page.evaluate("id => new BroadcastChannel('agent-server').postMessage({id})", id)
    expect(page.get_by_role("button", name="Stop answering")).to_be_visible()
    fake.open("slow")
    asked_again(page, 2)
    expect(page.locator(".text").last).to_have_text("In May.")


def test_page_that_comes_to_the_foreground_shows_what_another_device_did(fake: Fake, open_page: Open) -> None:
    id = fake.converse("Mantas", "Where?", "In Komodo.")
    page = open_page(f"#/c/{id}", token="as_key")
    asked_again(page, 1)
    page.get_by_label("Message", exact=True).fill("half a thought")
    fake.add(id, "And when?", "In May.")
    fake.converse("Wrecks", "Which?", "The Liberty.")
    come_back(page)
    asked_again(page, 2)
    expect(page.locator(".text")).to_have_text(["In Komodo.", "In May."])
    expect(page.locator(".list li a")).to_have_text(["Wrecks", "Mantas"])
    expect(page.get_by_label("Message", exact=True)).to_have_value("half a thought")

    fake.messages[id][2:] = []  # the second was edited there, and another stands in its place
    fake.add(id, "And how?", "By boat.")
    come_back(page)
    expect(page.locator(".text")).to_have_text(["In Komodo.", "By boat."])


# ---- connections ----


def test_page_says_that_the_connection_is_lost_and_when_it_is_back(fake: Fake, open_page: Open) -> None:
    id = fake.converse("Mantas", "Where?", "In Komodo.")
    page = open_page(f"#/c/{id}", token="as_key")
    asked_again(page, 1)
    page.route("**/api/**", lambda route: route.abort())
    come_back(page)
    lost = page.get_by_text("There is no connection to the server. Trying again…")
    expect(lost).to_be_visible()
    page.get_by_role("button", name="New conversation").click()
    page.get_by_role("link", name="Mantas").click()
    fake.add(id, "And when?", "In May.")
    page.unroute("**/api/**")
    page.evaluate("window.dispatchEvent(new Event('online'))")
    expect(page.locator(".text")).to_have_text(["In Komodo.", "In May."])
    expect(lost).to_be_hidden()


def test_message_is_sent_until_it_arrives_however_long_that_takes(fake: Fake, open_page: Open) -> None:
    fake.refusals = [problem(503, "Too much to do", headers={"Retry-After": "1"})]
    page = open_page()
    page.route("**/api/chat", lambda route: route.abort())
    ask(page, "code")
    note = page.locator(".waiting")
    expect(note).to_have_text("There is no connection to the server. Trying again…")
    for _ in range(7):  # it does not give up, and tries again whenever somebody looks
        with page.expect_event("requestfailed"):
            come_back(page)
    page.unroute("**/api/chat")
    come_back(page)
    expect(note).to_have_text("The server is busy. Trying again…")
    answered(page)
    asked_again(page, 1)
    assert len({headers["idempotency-key"] for headers, _ in fake.sent("POST", "/api/chat")}) == 1


def test_message_that_could_not_be_sent_can_be_taken_back(fake: Fake, open_page: Open) -> None:
    page = open_page()
    page.route("**/api/chat", lambda route: route.abort())
    ask(page, "code")
    expect(page.locator(".waiting")).to_have_text("There is no connection to the server. Trying again…")
    page.get_by_role("button", name="Stop answering").click()
    expect(page.get_by_label("Message", exact=True)).to_have_value("code")
    expect(page.locator(".question")).to_have_count(0)
    expect(page.get_by_role("button", name="Can I dive with a cold?")).to_be_visible()
    assert said_to(fake) == []


def test_only_the_last_error_has_a_button(fake: Fake, open_page: Open) -> None:
    page = open_page()
    for n in (1, 2):
        ask(page, "fail")
        expect(page.locator(".error")).to_have_count(n)
        expect(page.get_by_role("button", name="Try again")).to_have_count(1)
    page.reload()
    expect(page.locator(".error")).to_have_count(2)
    expect(page.locator(".error").last.get_by_role("button", name="Try again")).to_be_visible()
    expect(page.get_by_role("button", name="Try again")).to_have_count(1)
    ask(page, "code")
    answered(page)
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)
