"""What a person can do with the chat page, in a real browser, against a server with scripted answers."""

import re
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.web.conftest import Open, answered, ask, asked_again
from tests.web.fake_server import FLYING, HEBREW, STATIC, Fake, problem, said
from tests.web.fake_server import answered as stored_answer

PHONE = {"viewport": {"width": 375, "height": 720}, "is_mobile": True, "has_touch": True}

pytestmark = pytest.mark.needs("chromium")


# ---- answers ----


def test_answer_grows_word_by_word_and_stop_keeps_what_came(fake: Fake, open_page: Open) -> None:
    page = open_page()
    ask(page, "Answer slowly")
    expect(page.locator(".answer td").first).to_have_text("one, without stops")
    expect(page.get_by_role("log", name="Messages")).to_have_attribute("aria-busy", "true")
    expect(page.locator("#status")).to_have_text("Answering.")
    assert "mountain pass" not in page.locator(".answer").inner_text()

    page.get_by_role("button", name="Stop answering").click()

    expect(page.get_by_text("Stopped", exact=True)).to_be_visible()
    expect(page.locator("#status")).to_have_text("Stopped.")
    expect(page.get_by_role("log", name="Messages")).to_have_attribute("aria-busy", "false")
    expect(page.locator(".answer td").first).to_have_text("one, without stops")
    assert [body for _, body in fake.sent("POST", "/api/chat") if body] == [{"message": "Answer slowly"}]


def test_person_sees_who_answers_what_is_done_and_what_it_rests_on(open_page: Open) -> None:
    page = open_page()
    ask(page, "May I fly?")
    answered(page)
    expect(page.locator(".answer")).to_match_aria_snapshot("""
    - article:
      - heading "Safety" [level=2]
      - group: Search knowledge how long to wait before flying after diving Done
      - paragraph:
        - text: /After diving you wait/
        - 'button "Source 1: Decompression sickness"': "1"
        - text: . How long depends on the dives
        - 'button "Source 2: Flying after diving"': "2"
        - text: ":"
      - table
      - paragraph
      - region "Sources":
        - heading "Sources" [level=3]
        - list:
          - listitem:
            - button "1 Decompression sickness Altitude and flights"
          - listitem:
            - button "2 Flying after diving Waiting times"
      - button "Copy answer"
    """)


def test_tool_card_opens_to_name_arguments_and_result(open_page: Open) -> None:
    page = open_page(viewport={"width": 1000, "height": 500})
    ask(page, "May I fly?")
    answered(page)
    page.locator("summary").click()
    card = page.locator(".tool")
    expect(page.locator("summary")).to_be_in_viewport()
    expect(card.get_by_text("search_knowledge", exact=True)).to_be_visible()
    expect(card.locator("dd")).to_have_text(["how long to wait before flying after diving", "5"])
    expect(card.locator("pre")).to_contain_text('"document": "safety/flying.md"')


def test_failed_tool_and_hand_over_are_shown(open_page: Open) -> None:
    page = open_page()
    ask(page, "hand over")
    answered(page)
    expect(page.get_by_role("heading", name="Triage › Trip")).to_be_visible()
    page.locator("summary").click()
    expect(page.get_by_text("not_found: there is no dive 9")).to_be_visible()


def test_citation_opens_the_passage_and_gives_the_focus_back(fake: Fake, open_page: Open) -> None:
    page = open_page()
    ask(page, "May I fly?")
    answered(page)
    citation = page.get_by_role("button", name="Source 2: Flying after diving").first
    citation.focus()
    page.keyboard.press("Space")
    dialog = page.get_by_role("dialog", name="Source 2: Flying after diving")
    expect(dialog.get_by_text("at least 12 hours")).to_have_js_property("tagName", "STRONG")
    expect(dialog).to_contain_text("Waiting times")
    expect(dialog).to_contain_text("safety/flying.md")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(citation).to_be_focused()
    assert page.url.count("#") == 1
    assert "cite" not in page.url


def test_passage_that_is_gone_is_shown_as_the_answer_had_it_with_a_note(open_page: Open) -> None:
    page = open_page()
    ask(page, "May I fly?")
    answered(page)
    changed = "The page has changed since. This is the passage as it was cited."
    page.get_by_role("button", name="1 Decompression sickness Altitude").click()
    expect(page.get_by_role("dialog")).to_contain_text("lets dissolved nitrogen form bubbles")
    expect(page.get_by_role("dialog").get_by_text(changed)).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Source 2: Flying after diving").first.click()
    expect(page.get_by_role("dialog").get_by_text("at least 12 hours")).to_have_js_property("tagName", "STRONG")
    expect(page.get_by_text(changed)).to_have_count(0)


def test_text_that_the_model_takes_back_disappears(open_page: Open) -> None:
    page = open_page()
    ask(page, "again")
    answered(page)
    expect(page.locator(".text")).to_have_text(["The answer."])


def test_thoughts_are_folded_and_a_note_stands_under_the_answer(fake: Fake, open_page: Open) -> None:
    page = open_page()
    ask(page, "Think out loud")
    answered(page)
    thoughts = page.get_by_role("group").filter(has_text="Thoughts")
    expect(thoughts).to_have_count(1)  # of the call that was taken back nothing is left
    expect(page.get_by_text("The user is in a hurry.")).to_be_hidden()
    thoughts.locator("summary").click()
    expect(page.get_by_text("The user is in a hurry. I keep it short.")).to_be_visible()
    expect(page.locator(".text")).to_have_text(["Wait a day."])
    expect(page.get_by_text("The answer ends here.")).to_be_visible()
    id = fake.converse("Thoughts", "Hm?", "")
    fake.messages[id] = [
        said("Hm?"),
        stored_answer("Yes.", reasoning="I know.", notes=[{"code": "length", "text": "It ends."}]),
    ]
    page = open_page(f"#/c/{id}", token="as_key")
    expect(page.get_by_text("It ends.")).to_be_visible()
    expect(page.get_by_text("I know.")).to_be_hidden()
    page.get_by_role("group").filter(has_text="Thoughts").locator("summary").click()
    expect(page.get_by_text("I know.")).to_be_visible()


def test_code_and_answer_can_be_copied(open_page: Open) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    ask(page, "code")
    answered(page)
    page.get_by_role("button", name="Copy code").click()
    expect(page.locator("#status")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()").startswith("def hours_to_wait(dives: int")
    page.get_by_role("button", name="Copy answer").click()
    expect(page.get_by_role("button", name="Copy answer")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()").startswith("The surface interval in code:\n\n```python")


def test_nothing_a_model_writes_acts_on_the_page(fake: Fake, open_page: Open) -> None:
    page = open_page()
    ask(page, "hostile")
    answered(page)
    expect(page.locator(".text")).to_contain_text("<img src=x onerror")
    assert page.locator(".text img, .text script, .text [onerror], .text a[href^=javascript]").count() == 0
    assert "hacked" not in page.title()


def test_reader_who_scrolled_up_is_left_alone(fake: Fake, open_page: Open) -> None:
    page = open_page(viewport={"width": 1000, "height": 420})
    ask(page, "at length")
    expect(page.locator(".block")).to_have_count(12)
    box = page.locator("#scroll")
    page.get_by_role("button", name="Latest").click()
    page.wait_for_function(
        "b => b.scrollTop > 100 && b.scrollHeight - b.clientHeight - b.scrollTop < 2", arg=box.element_handle()
    )
    box.evaluate("b => b.scrollBy(0, -300)")
    expect(page.get_by_role("button", name="Latest")).to_be_visible()
    top = box.evaluate("b => b.scrollTop")
    fake.open("more")
    answered(page)
    assert box.evaluate("b => b.scrollTop") == top
    page.get_by_role("button", name="Latest").click()
    page.wait_for_function("b => b.scrollHeight - b.clientHeight - b.scrollTop < 2", arg=box.element_handle())
    expect(page.get_by_role("button", name="Latest")).to_be_hidden()


def test_question_stays_in_view_when_a_long_answer_ends(fake: Fake, open_page: Open) -> None:
    fake.gate("more").set()
    page = open_page(viewport={"width": 1000, "height": 420})
    for _ in range(2):
        ask(page, "at length")
        answered(page)
        expect(page.get_by_role("button", name="Latest")).to_be_visible()
        expect(page.locator(".question").last).to_be_in_viewport(ratio=1)
    ask(page, "long " * 38 + "at length")
    expect(page.locator(".answer[data-state=done]")).to_have_count(3)
    expect(page.locator(".question").last).to_be_in_viewport()
    page.reload()
    expect(page.locator(".answer[data-state=done]")).to_have_count(3)
    expect(page.locator(".question").last).to_be_in_viewport()


def test_emergency_page_has_no_path_of_agents_above_it(open_page: Open) -> None:
    page = open_page()
    ask(page, "emergency")
    answered(page)
    for _ in range(2):
        expect(page.get_by_role("heading", name="Safety", exact=True)).to_be_visible()
        assert page.get_by_text("Triage").count() == 0
        page.reload()


def test_citations_are_numbered_as_they_are_read_also_where_they_are_copied(open_page: Open) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    ask(page, "Answer slowly")
    expect(page.locator(".answer td").first).to_be_visible()
    expect(page.locator("a.cite")).to_have_text(["1", "2"])
    page.get_by_role("button", name="Stop answering").click()
    ask(page, "May I fly?")
    expect(page.locator(".sources")).to_have_count(2)
    for _ in range(2):
        answer = page.locator(".answer").last
        expect(answer.locator("a.cite")).to_have_text(["1", "2", "2", "1"])
        expect(answer.locator(".sources li")).to_have_text([re.compile("^1Decompression"), re.compile("^2Flying")])
        answer.locator(".sources button").first.click()
        expect(page.get_by_role("dialog", name="Source 1: Decompression sickness")).to_be_visible()
        page.keyboard.press("Escape")
        answer.get_by_role("button", name="Copy answer").click()
        expect(page.locator("#status")).to_have_text("Copied.")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert ("bubbles [1]." in copied, "dives [2]:" in copied, "pass [2, 1]." in copied) == (True, True, True)
        page.reload()


def test_citation_that_was_taken_back_gives_its_number_away_and_code_is_no_citation(open_page: Open) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    ask(page, "taken back citation")
    answered(page)
    expect(page.locator("a.cite")).to_have_text(["1"])
    expect(page.locator(".sources li")).to_have_text([re.compile("^1Decompression")])
    page.get_by_role("button", name="Copy answer").click()
    expect(page.locator("#status")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == "So it is [1]: `a[2]`."


def test_result_reads_as_the_server_words_it_and_its_data_is_within_reach(open_page: Open) -> None:
    page = open_page()
    ask(page, "destinations")
    answered(page)
    for _ in range(2):
        page.locator("summary", has_text="List destinations").click()
        card = page.locator(".card")
        expect(card.locator("td")).to_have_text(["Komodo", "April and May", "Raja Ampat", "October and November"])
        expect(card.locator("pre")).to_be_hidden()
        card.get_by_text("As data").click()
        expect(card.locator("pre")).to_contain_text('"months": [')
        page.reload()


def _rated(fake: Fake) -> list[Any]:
    return [(method, body) for method, path, _, body in fake.requests if path.endswith("/feedback")]


def test_answer_is_rated_by_keyboard_and_stays_so_until_it_is_taken_back(fake: Fake, open_page: Open) -> None:
    page = open_page()
    ask(page, "May I fly?")
    answered(page)
    group = page.get_by_role("group", name="Rate this answer")
    good, bad = (group.get_by_role("button", name=name) for name in ("Good answer", "Bad answer"))
    for button in (good, bad):
        expect(button).to_have_attribute("aria-pressed", "false")
    good.focus()
    page.keyboard.press("Enter")
    expect(good).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#status")).to_have_text("Noted.")
    expect(good).to_be_focused()
    page.reload()
    asked_again(page)
    expect(good).to_have_attribute("aria-pressed", "true")
    expect(bad).to_have_attribute("aria-pressed", "false")
    good.focus()
    page.keyboard.press("Space")
    expect(good).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#status")).to_have_text("Taken back.")
    assert _rated(fake) == [("PUT", {"rating": "good", "comment": None}), ("DELETE", None)]


def test_what_is_wrong_with_a_bad_answer_may_be_said_and_need_not(fake: Fake, open_page: Open) -> None:
    page = open_page()
    ask(page, "May I fly?")
    answered(page)
    good, bad = (page.get_by_role("button", name=name) for name in ("Good answer", "Bad answer"))
    words = page.get_by_label("What is wrong with it?")
    bad.click()
    expect(bad).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Close").click()
    expect(words).to_be_hidden()
    expect(bad).to_be_focused()
    good.click()
    expect(good).to_have_attribute("aria-pressed", "true")
    expect(bad).to_have_attribute("aria-pressed", "false")
    bad.click()
    # Below the buttons, so that the next key of a keyboard leads into it.
    expect(words).to_be_visible()
    page.keyboard.press("Tab")
    expect(words).to_be_focused()
    page.keyboard.type("It is <b>18</b> hours.\nNot 12.")
    page.get_by_role("button", name="Send", exact=True).first.click()
    expect(page.get_by_text("Thank you.")).to_be_focused()
    expect(words).to_be_hidden()
    page.reload()
    asked_again(page)
    expect(bad).to_have_attribute("aria-pressed", "true")
    expect(words).to_be_hidden()
    assert _rated(fake) == [
        ("PUT", {"rating": "bad", "comment": None}),
        ("PUT", {"rating": "good", "comment": None}),
        ("PUT", {"rating": "bad", "comment": None}),
        ("PUT", {"rating": "bad", "comment": "It is <b>18</b> hours.\nNot 12."}),
    ]


def test_rating_that_is_not_taken_is_said_and_can_be_given_again(fake: Fake, open_page: Open) -> None:
    page = open_page()
    ask(page, "May I fly?")
    answered(page)
    bad = page.get_by_role("button", name="Bad answer")
    fake.feedback_refusals += [problem(503, "The database is away", code="unavailable")]
    bad.click()
    expect(page.locator(".rated [role=alert]")).to_have_text("The database is away")
    expect(bad).to_have_attribute("aria-pressed", "false")
    bad.click()
    words = page.get_by_label("What is wrong with it?")
    words.fill("All of it.")
    fake.feedback_refusals += [problem(429, "Too many", code="too_many_requests")]
    send = page.locator(".rated").get_by_role("button", name="Send")
    send.click()
    expect(page.locator(".rated [role=alert]")).to_have_text("Too many")
    expect(words).to_have_value("All of it.")
    send.click()
    expect(page.get_by_text("Thank you.")).to_be_visible()
    expect(page.locator(".rated [role=alert]")).to_have_count(0)


def test_answer_that_failed_is_not_rated(open_page: Open) -> None:
    page = open_page()
    ask(page, "Please fail")
    expect(page.locator(".error")).to_be_visible()
    for _ in range(2):
        expect(page.get_by_role("button", name="Copy answer")).to_be_visible()
        expect(page.get_by_role("group", name="Rate this answer")).to_have_count(0)
        page.reload()


def test_list_of_tasks_has_boxes(open_page: Open) -> None:
    page = open_page()
    ask(page, "list of tasks")
    answered(page)
    expect(page.get_by_role("checkbox", name="Done", exact=True)).to_be_checked()
    expect(page.get_by_role("checkbox", name="Not done")).to_be_disabled()


def test_whatever_people_and_models_write_takes_its_direction_from_itself(fake: Fake, open_page: Open) -> None:
    fake.converse(HEBREW, HEBREW, HEBREW, sources=[])
    page = open_page(token="as_key")
    ask(page, f"hebrew {HEBREW}")
    answered(page)
    page.locator("summary").first.click()
    page.get_by_role("link", name=HEBREW, exact=True).click()
    expect(page.locator(".text")).to_have_text(HEBREW)
    page.go_back()
    expect(page.locator(".sources")).to_be_visible()
    page.locator("summary").first.click()
    page.get_by_label("Message", exact=True).fill(HEBREW)
    page.locator(".sources button").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.get_by_label("Message", exact=True).evaluate("e => getComputedStyle(e).direction") == "rtl"
    assert page.evaluate(WRONG_WAY) == []


WRONG_WAY = """() => {
  const hebrew = /^[^\\p{L}]*[\u0590-\u05ff]/u, wrong = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const style = getComputedStyle(walker.currentNode.parentElement);
    if (!hebrew.test(walker.currentNode.data) || !walker.currentNode.parentElement.checkVisibility()) continue;
    if (style.direction !== "rtl" && style.unicodeBidi !== "plaintext") wrong.push(walker.currentNode.data);
  }
  return wrong;
}"""


# ---- broken connections and refusals ----


@pytest.mark.parametrize("how", ["broken", "cut"])
def test_broken_stream_is_resumed_without_loss_or_doubling(fake: Fake, open_page: Open, how: str) -> None:
    page = open_page()
    ask(page, "whole")
    answered(page)
    whole = page.locator(".text").inner_text()
    page.get_by_role("button", name="New conversation").click()
    ask(page, how)
    answered(page)
    assert page.locator(".text").inner_text() == whole
    assert len(fake.sent("POST", "/api/chat")) + len(fake.sent("GET", "/api/chat/")) == 4
    resumed = [headers["last-event-id"].split(":")[1] for headers, _ in fake.sent("GET", "/api/chat/")]
    assert resumed == sorted(resumed, key=int)
    assert resumed


def test_reload_in_mid_answer_goes_on_with_it(fake: Fake, open_page: Open) -> None:
    page = open_page()
    ask(page, "Answer slowly")
    expect(page.locator(".answer td").first).to_be_visible()
    page.reload()
    expect(page.locator(".question")).to_have_text(re.compile("Answer slowly"))
    expect(page.locator(".answer td").first).to_have_text("one, without stops")
    fake.open("slow")
    answered(page)
    expect(page.locator(".answer")).to_have_count(1)
    expect(page.locator(".text")).to_contain_text("mountain pass")


def test_reload_shows_the_conversation_as_it_was(open_page: Open) -> None:
    page = open_page()
    ask(page, "May I fly?")
    answered(page)
    before = page.locator("#log").aria_snapshot()
    page.reload()
    expect(page.locator(".sources")).to_be_visible()
    assert page.locator("#log").aria_snapshot() == before
    expect(page).to_have_title("May I fly? · Dive Centre")


def test_refused_message_is_tried_again_with_the_same_key(fake: Fake, open_page: Open) -> None:
    fake.refusals = [problem(429, "Ten messages a minute are taken; wait a little", headers={"Retry-After": "1"})]
    page = open_page()
    ask(page, "May I fly?")
    expect(page.get_by_text("Ten messages a minute are taken")).to_be_visible()
    expect(page.get_by_role("button", name="Try again in 1 s")).to_be_disabled()
    page.get_by_role("button", name="Try again", exact=True).click()
    answered(page)
    expect(page.locator(".question")).to_have_count(1)
    keys = [headers["idempotency-key"] for headers, _ in fake.sent("POST", "/api/chat")]
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_message_that_never_arrived_is_sent_again_by_itself(fake: Fake, open_page: Open) -> None:
    page = open_page()
    tries: list[Route] = []

    def lose_two(route: Route) -> None:
        tries.append(route)
        if len(tries) < 3:
            route.abort()
        else:
            route.continue_()

    page.route("**/api/chat", lose_two)
    ask(page, "May I fly?")
    answered(page)
    assert len(tries) == 3


def test_failed_answer_is_explained_and_can_be_asked_again_as_a_new_one(fake: Fake, open_page: Open) -> None:
    page = open_page()
    ask(page, "fail")
    expect(page.get_by_text("The model did not answer in time")).to_be_visible()
    expect(page.get_by_text("The first words")).to_be_visible()
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_text("The model did not answer in time")).to_be_visible()
    keys = [headers["idempotency-key"] for headers, _ in fake.sent("POST", "/api/chat")]
    assert len(set(keys)) == 2


def test_message_that_is_refused_as_it_stands_can_be_edited(fake: Fake, open_page: Open) -> None:
    fake.refusals = [problem(422, "message: too long", code="invalid_input")]
    page = open_page()
    ask(page, "May I fly?")
    page.get_by_role("button", name="Edit the message").click()
    expect(page.get_by_label("Message", exact=True)).to_have_value("May I fly?")
    expect(page.locator(".question")).to_have_count(0)


def test_bug_of_the_server_is_named_by_its_reference(fake: Fake, open_page: Open) -> None:
    fake.refusals = [problem(500, "The request failed; this is our fault", code="internal")]
    page = open_page()
    ask(page, "May I fly?")
    expect(page.get_by_text("this is our fault (req-7)")).to_be_visible()


# ---- who is asking ----


def test_first_message_makes_a_guest_that_is_used_from_then_on(fake: Fake, open_page: Open) -> None:
    page = open_page()
    ask(page, "May I fly?")
    answered(page)
    ask(page, "And by train?")
    expect(page.locator(".sources")).to_have_count(2)
    first, second = [headers.get("authorization") for headers, _ in fake.sent("POST", "/api/chat")]
    assert first is None
    assert second is not None
    assert second.startswith("Bearer guest-")


@pytest.mark.parametrize("path", ["", "#/c/00000000-0000-0000-0000-000000000000"])
def test_guest_whose_session_ended_goes_on_as_a_new_one(fake: Fake, open_page: Open, path: str) -> None:
    page = open_page(path, token="expired")
    expect(page.get_by_text("Your guest session has ended")).to_be_visible()
    ask(page, "May I fly?")
    answered(page)


def test_guest_whose_session_ends_while_asking_is_answered_all_the_same(fake: Fake, open_page: Open) -> None:
    fake.valid.add("guest-old")
    page = open_page(token="guest-old")
    fake.valid.discard("guest-old")
    ask(page, "May I fly?")
    answered(page)
    expect(page.get_by_text("Your guest session has ended")).to_be_visible()
    expect(page.locator(".question")).to_have_count(1)


def test_key_in_the_address_is_used_and_taken_out_of_sight(fake: Fake, open_page: Open) -> None:
    page = open_page("#key=as_key")
    expect(page.get_by_text("Key …_key")).to_be_visible()
    assert "as_key" not in page.url
    ask(page, "May I fly?")
    answered(page)
    assert fake.sent("POST", "/api/chat")[0][0]["authorization"] == "Bearer as_key"


ASKS = "Sign in with the key of this link?"


def test_key_in_a_link_is_asked_about_on_a_server_for_others_and_declined_it_changes_nothing(
    fake: Fake, open_page: Open
) -> None:
    fake.development = False
    fake.valid.add("guest-mine")
    page = open_page("#key=strangers_key", token="guest-mine")
    dialog = page.get_by_role("dialog", name=ASKS)
    expect(dialog).to_contain_text("key …_key in it, in place of your guest session")
    assert "strangers_key" not in page.url
    assert not any("strangers_key" in str(request) for request in fake.requests)
    page.keyboard.press("Enter")  # Cancel has the focus
    expect(page.get_by_text("Guest", exact=True)).to_be_visible()
    ask(page, "May I fly?")
    answered(page)
    assert fake.sent("POST", "/api/chat")[0][0]["authorization"] == "Bearer guest-mine"
    assert "strangers_key" not in str(page.evaluate("({...localStorage, ...sessionStorage})"))


@pytest.mark.parametrize("development", [True, False])
def test_key_in_a_link_takes_the_place_of_ones_own_only_with_a_yes(
    fake: Fake, open_page: Open, development: bool
) -> None:
    fake.development = development
    page = open_page()
    page.get_by_role("button", name="Use a key").click()
    page.get_by_label("Key", exact=True).fill("as_mine")
    page.get_by_label("Keep it on this device").check()
    page.get_by_role("button", name="Use this key").click()
    expect(page.locator("#identity")).to_have_text("Key …mine")

    for answer, used in (("Close", "as_mine"), ("Cancel", "as_mine"), ("Use this key", "as_key")):
        page.goto(fake.address + "#key=as_key")
        dialog = page.get_by_role("dialog", name=ASKS)
        expect(dialog).to_contain_text("in place of your own key …mine")
        dialog.get_by_role("button", name=answer).click()
        expect(page.locator("#identity")).to_have_text(f"Key …{used[-4:]}")
        assert used in str(page.evaluate("({...localStorage, ...sessionStorage})"))
        assert "#key" not in page.url


def test_key_in_a_link_that_is_ones_own_already_is_not_asked_about(fake: Fake, open_page: Open) -> None:
    page = open_page("#key=as_key")
    expect(page.get_by_text("Key …_key")).to_be_visible()
    fake.development = False
    page.goto(fake.address + "#key=as_key")
    page.reload()
    page.goto(fake.address + "#key=as_key")
    expect(page.get_by_text("Key …_key")).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_key_is_taken_in_a_dialog_and_given_up_there(fake: Fake, open_page: Open) -> None:
    page = open_page()
    page.get_by_role("button", name="Use a key").click()
    page.get_by_label("Key", exact=True).fill("as_key")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Key …_key")).to_be_visible()
    page.get_by_role("button", name="Change").click()
    page.get_by_role("button", name="Stop using the key").click()
    expect(page.get_by_text("Guest", exact=True)).to_be_visible()
    assert page.evaluate("({...localStorage, ...sessionStorage})") == {}


def test_key_that_is_not_accepted_is_said_so(open_page: Open) -> None:
    page = open_page("#key=wrong")
    expect(page.get_by_text("The key was not accepted.")).to_be_visible()
    ask(page, "May I fly?")
    page.get_by_role("button", name="Use another key").click()
    expect(page.get_by_role("dialog", name="API key")).to_be_visible()


# ---- the list of conversations ----


def test_conversations_are_opened_renamed_and_deleted_by_keyboard_alone(fake: Fake, open_page: Open) -> None:
    fake.converse("Mantas", "Where are mantas?", "In Komodo [1].", sources=[FLYING])
    old = fake.converse("Regulators", "How often?", "Every year.", age=timedelta(days=40))
    page = open_page(token="as_key")
    conversations = page.get_by_role("navigation", name="Conversations")
    expect(conversations.get_by_role("heading")).to_have_text(["Today", "Older"])

    conversations.get_by_role("link", name="Regulators").press("Enter")
    expect(page.locator(".text")).to_have_text("Every year.")
    expect(conversations.get_by_role("link", name="Regulators")).to_have_attribute("aria-current", "page")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()

    conversations.get_by_role("link", name="Regulators").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.type("Service")
    page.keyboard.press("Enter")
    expect(conversations.get_by_role("link", name="Service")).to_be_focused()
    expect(page.get_by_role("heading", name="Service", level=1)).to_be_visible()
    assert fake.conversations[old]["title"] == "Service"

    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Delete this conversation?")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert old in fake.conversations
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(conversations.get_by_role("link", name="Service")).to_have_count(0)
    assert old not in fake.conversations
    expect(page.get_by_role("heading", name="New conversation", level=1)).to_be_visible()


def test_back_returns_to_the_conversation_before(fake: Fake, open_page: Open) -> None:
    fake.converse("Mantas", "Where?", "In Komodo.")
    fake.converse("Wrecks", "Which?", "The Liberty.")
    page = open_page(token="as_key")
    page.get_by_role("link", name="Mantas").click()
    expect(page.locator(".text")).to_have_text("In Komodo.")
    page.get_by_role("link", name="Wrecks").click()
    expect(page.locator(".text")).to_have_text("The Liberty.")
    page.go_back()
    expect(page.locator(".text")).to_have_text("In Komodo.")


def test_long_lists_and_conversations_are_read_in_pages(fake: Fake, open_page: Open) -> None:
    for i in range(60):
        id = fake.converse(f"Talk {i}", "?", f"Answer {i}.", age=timedelta(hours=i * 100))
    for i in range(14):
        fake.add(id, "?", f"Answer {i}.")
    page = open_page(f"#/c/{id}", token="as_key")
    expect(page.locator(".text")).to_have_count(15)
    expect(page.locator(".list li")).to_have_count(50)
    page.get_by_role("button", name="Show older ones").click()
    expect(page.locator(".list li")).to_have_count(60)


def test_answer_that_waits_for_another_is_shown_when_it_comes(fake: Fake, open_page: Open) -> None:
    id = fake.converse("Mantas", "Where?", "")
    fake.messages[id] = [said("Where?", "queued")]
    page = open_page(f"#/c/{id}", token="as_key")
    expect(page.locator(".question")).to_contain_text("Where?")
    fake.messages[id] = [said("Where?"), stored_answer("In Komodo.")]
    expect(page.locator(".text")).to_have_text("In Komodo.")


def test_answer_that_failed_before_can_be_asked_again(fake: Fake, open_page: Open) -> None:
    error = {"code": "model_failed", "message": "The model was away"}
    id = fake.converse("Mantas", "May I fly?", "", status="failed", error=error)
    page = open_page(f"#/c/{id}", token="as_key")
    expect(page.get_by_text("The model was away")).to_be_visible()
    page.get_by_role("button", name="Try again").click()
    answered(page)
    assert fake.sent("POST", "/api/chat")[0][1] == {"id": id, "message": "May I fly?"}


def test_conversation_that_is_not_there_is_said_so(open_page: Open) -> None:
    page = open_page("#/c/00000000-0000-0000-0000-000000000000", token="as_key")
    expect(page.locator(".error")).to_be_visible()


@pytest.mark.parametrize("continued", [False, True])
def test_what_is_sent_while_the_page_still_opens_is_answered_where_it_was_sent(
    fake: Fake, open_page: Open, continued: bool
) -> None:
    id = fake.converse("Mantas", "Where?", "In Komodo.")
    page = open_page(token="as_key")
    held: list[Route] = []
    page.route("**/api/conversations?*", lambda route: route.continue_() if held else held.append(route))
    if continued:
        page.evaluate(f"history.replaceState(null, '', '#/c/{id}')")
    with page.expect_request("**/api/conversations?*"):
        page.reload()
    ask(page, "May I fly?")
    assert fake.sent("POST", "/api/chat") == []
    held[0].continue_()
    answered(page)
    expect(page.locator(".question").last).to_contain_text("May I fly?")
    body = fake.sent("POST", "/api/chat")[0][1]
    assert body.get("id") == (id if continued else None)
    expect(page.locator(".answer[data-state=done]")).to_have_count(2 if continued else 1)


def test_answer_goes_on_behind_another_conversation(fake: Fake, open_page: Open) -> None:
    fake.converse("Mantas", "Where?", "In Komodo.")
    page = open_page(token="as_key")
    ask(page, "Answer slowly")
    expect(page.locator(".answer td").first).to_be_visible()
    page.get_by_role("link", name="Mantas").click()
    expect(page.locator(".text")).to_have_text("In Komodo.")
    expect(page.get_by_role("button", name="Stop answering")).to_be_hidden()
    fake.open("slow")
    page.get_by_role("link", name="Answer slowly").click()
    expect(page.locator(".text")).to_contain_text("mountain pass")


def test_a_call_shows_how_far_it_is_while_it_runs(fake: Fake, open_page: Open) -> None:
    page = open_page(token="as_key")
    ask(page, "Please import them")
    card = page.locator(".card")
    expect(card).to_contain_text("Reading page 1")
    expect(card.get_by_role("progressbar")).to_have_attribute("value", "1")
    fake.open("half")
    expect(card).to_contain_text(HEBREW)
    expect(card.get_by_role("progressbar")).to_have_attribute("value", "3")
    fake.open("imported")
    expect(page.locator(".answer[data-state=done]")).to_have_count(1)
    expect(card.get_by_role("progressbar")).to_have_count(0)
    expect(card).not_to_contain_text("too late")


# ---- questions ----


@pytest.mark.parametrize(
    ("button", "failure", "state", "then"),
    [
        ("Yes, delete", None, "Deleted", "Deleted."),
        ("Yes, delete", "The shredder is jammed", "Failed", "This did not work. The shredder is jammed"),
        ("No", None, "Not done", "You said no. Nothing was changed."),
    ],
)
def test_call_waits_for_a_word_that_is_given_once_and_its_card_says_what_happened(
    fake: Fake, open_page: Open, button: str, failure: str | None, state: str, then: str
) -> None:
    fake.failure = failure
    page = open_page()
    ask(page, "delete it")
    answered(page)
    expect(page.locator(".answer")).to_match_aria_snapshot("""
    - article:
      - heading "Tasks" [level=2]
      - group: Delete task fins Waiting for you
      - region "Confirmation":
        - heading "Delete the task \\"<b>fins</b>\\"?" [level=3]
        - paragraph: This cannot be undone.
        - button "Yes, delete"
        - button "No"
      - paragraph: Please confirm that.
      - button "Copy answer"
    """)
    box = page.get_by_role("region", name="Confirmation")
    red, green, _ = [
        int(n)
        for n in re.findall(
            r"\d+", box.get_by_role("button").first.evaluate("e => getComputedStyle(e).backgroundColor")
        )
    ]
    assert red > 2 * green
    assert fake.sent("POST", "/api/confirmations") == []

    box.get_by_role("button", name=button).click()
    expect(box.get_by_text(then)).to_be_focused()
    for _ in range(2):
        expect(page.locator(".card .state")).to_have_text(state)
        expect(box).to_contain_text(then)
        expect(box.get_by_role("button")).to_have_count(0)
        expect(page.get_by_text("Please confirm that.")).to_have_count(0)
        page.reload()
    assert [body for _, body in fake.sent("POST", "/api/confirmations/word-1")] == [{"confirm": button != "No"}]


def test_question_that_was_answered_elsewhere_says_what_happened(fake: Fake, open_page: Open) -> None:
    page = open_page()
    ask(page, "delete it")
    answered(page)
    box = page.get_by_role("region", name="Confirmation")
    expect(box.get_by_role("button", name="No")).to_be_visible()
    fake.word = "declined"
    box.get_by_role("button", name="Yes, delete").click()
    expect(box).to_contain_text("You said no. Nothing was changed.")
    expect(page.locator(".card .state")).to_have_text("Not done")


def test_question_whose_answer_no_longer_holds_is_asked_anew(fake: Fake, open_page: Open) -> None:
    fake.has_changed = True
    page = open_page()
    ask(page, "delete it")
    answered(page)
    box = page.get_by_role("region", name="Confirmation")
    box.get_by_role("button", name="Yes, delete").click()
    expect(box).to_contain_text("Nothing was done yet.")
    expect(box.get_by_role("heading")).to_have_text('Delete the task "mask"?')
    box.get_by_role("button", name="Yes, delete").click()
    expect(box).to_contain_text("Deleted.")
    assert [body for _, body in fake.sent("POST", "/api/confirmations/word-2")] == [{"confirm": True}]


def test_word_that_did_not_arrive_can_be_given_again(open_page: Open) -> None:
    page = open_page()
    ask(page, "delete it")
    answered(page)
    box = page.get_by_role("region", name="Confirmation")
    expect(box.get_by_role("button", name="No")).to_be_visible()
    page.route("**/api/confirmations/**", lambda route: route.abort())
    box.get_by_role("button", name="Yes, delete").click()
    expect(box.get_by_role("alert")).to_have_text("There is no connection to the server. Try again in a moment.")
    page.unroute("**/api/confirmations/**")
    box.get_by_role("button", name="Yes, delete").click()
    expect(box).to_contain_text("Deleted.")


# ---- forms ----


def test_form_shows_what_is_wrong_and_is_gone_when_it_was_sent(fake: Fake, open_page: Open) -> None:
    page = open_page()
    ask(page, "form")
    answered(page)
    form = page.get_by_role("region", name="Leave your address")
    expect(form.get_by_label("Name")).to_have_value("Ada")
    form.get_by_role("button", name="Send").click()
    email = form.get_by_label("E-mail")
    expect(email).to_be_focused()
    expect(email).to_have_accessible_description("Please fill this in.")

    email.fill("ada@example.com")
    form.get_by_label("Level").select_option("Advanced")
    form.get_by_label("Dives so far").fill("40")
    form.get_by_role("button", name="Send").click()
    expect(email).to_have_accessible_description("Not an address we can write to.")
    expect(email).to_be_focused()

    email.fill("ada@example.org")
    page.keyboard.press("Enter")
    sent = page.get_by_text("Sent. Thank you.")
    expect(sent).to_be_focused()
    headers, body = fake.sent("POST", "/api/tools/capture_lead")[-1]
    assert body == {"name": "Ada", "email": "ada@example.org", "level": "Advanced", "dives": 40}
    assert headers["x-conversation-id"] in fake.conversations
    assert headers["authorization"].startswith("Bearer guest-")

    # Nothing that this browser keeps says so, but the server does.
    page.evaluate("Object.keys(localStorage).forEach((key) => key.endsWith('guest') || localStorage.removeItem(key))")
    for _ in range(2):
        expect(sent).to_be_visible()
        expect(form).to_have_count(0)
        expect(page.get_by_text("Fill this in")).to_have_count(0)
        page.reload()


# ---- typing and looking ----


def test_enter_sends_shift_enter_breaks_and_an_unfinished_word_is_not_sent(fake: Fake, open_page: Open) -> None:
    page = open_page()
    message = page.get_by_label("Message", exact=True)
    expect(message).to_be_focused()
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    message.dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    assert fake.sent("POST", "/api/chat") == []
    page.keyboard.press("Enter")
    answered(page)
    assert fake.sent("POST", "/api/chat")[0][1] == {"message": "one\ntwo"}
    expect(message).to_be_focused()
    expect(message).to_have_value("")


def test_counter_appears_near_the_limit_and_too_much_is_not_sent(fake: Fake, open_page: Open) -> None:
    page = open_page()
    message = page.get_by_label("Message", exact=True)
    message.fill("a" * 150)
    expect(page.locator("#counter")).to_be_empty()
    message.fill("🐠" * 190)
    expect(page.locator("#counter")).to_have_text("10 left")
    message.fill("a" * 203)
    expect(page.locator("#counter")).to_have_text("3 over the limit of 200")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    assert fake.sent("POST", "/api/chat") == []


def test_empty_page_offers_questions_and_says_that_no_model_is_set(open_page: Open) -> None:
    page = open_page()
    expect(page.get_by_text("Offline: answers are quoted from the content.")).to_be_visible()
    page.get_by_role("button", name="Can I dive with a cold?").click()
    answered(page)
    expect(page.locator(".question")).to_contain_text("Can I dive with a cold?")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()


def test_offline_note_is_absent_where_a_model_answers(fake: Fake, open_page: Open) -> None:
    fake.offline = False
    page = open_page()
    expect(page.get_by_text("Answers can be wrong")).to_be_visible()
    assert page.get_by_text("Offline").count() == 0


def test_phone_has_a_drawer_and_nothing_scrolls_sideways(fake: Fake, open_page: Open) -> None:
    page = open_page(**PHONE)
    for text in ("May I fly?", "code", "form", "delete it", "https://example.org/" + "x" * 150):
        ask(page, text)
        answered(page)
        expect(page.get_by_role("button", name="Stop answering")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    assert page.locator("#scroll").evaluate("b => b.scrollWidth - b.clientWidth") == 0
    drawer = page.get_by_role("navigation", name="Conversations")
    expect(drawer).not_to_be_in_viewport()
    page.get_by_role("button", name="Conversations").tap()
    expect(drawer).to_be_in_viewport()
    expect(drawer.get_by_role("button", name="New conversation")).to_be_focused()
    page.keyboard.press("Escape")
    expect(drawer).not_to_be_in_viewport()
    expect(page.get_by_role("button", name="Conversations")).to_be_focused()
    page.get_by_role("button", name="Conversations").tap()
    drawer.get_by_role("button", name="New conversation").tap()
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    expect(page.locator(".question")).to_have_count(0)


def _brightness(page: Page) -> int:
    colour = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    return sum(int(part) for part in re.findall(r"\d+", colour)[:3]) // 3


def test_page_is_light_or_dark_as_the_reader_has_it(open_page: Open) -> None:
    assert _brightness(open_page(color_scheme="light")) > 240
    assert _brightness(open_page(color_scheme="dark")) < 40


def test_nothing_moves_for_a_reader_who_wants_no_motion(fake: Fake, open_page: Open) -> None:
    page = open_page(reduced_motion="reduce")
    ask(page, "thinking")
    expect(page.get_by_text("Thinking", exact=True)).to_be_visible()
    assert page.evaluate("document.getAnimations().length") == 0
    fake.open("thought")
    fake.open("written")
    answered(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_its_background(fake: Fake, open_page: Open, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    for n, text in enumerate(("May I fly?", "code", "fail", "form", "destinations", "delete it"), 1):
        ask(page, text)
        expect(page.locator(".answer[data-state=done]")).to_have_count(n)
    page.locator("summary", has_text="List destinations").click()
    page.get_by_role("button", name="Bad answer").first.click()
    expect(page.get_by_label("What is wrong with it?")).to_be_visible()
    ask(page, "Answer slowly")
    expect(page.locator(".answer td").last).to_be_visible()
    ask(page, "and this")
    expect(page.locator("#queue li")).to_have_count(1)
    expect(page.get_by_role("button", name="Yes, delete")).to_be_visible()
    assert page.evaluate(FAINT) == []


FAINT = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (colour, under) => {
    canvas.fillStyle = `rgb(${under})`; canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)];
  };
  const light = (c) => c.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => e ? rgb(getComputedStyle(e).backgroundColor, behind(e.parentElement)) : [255, 255, 255];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), faint = [];
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !e.checkVisibility() || e.closest(":disabled")) continue;
    const under = behind(e), [a, b] = [light(rgb(getComputedStyle(e).color, under)), light(under)].sort();
    if ((b + 0.05) / (a + 0.05) < 4.5) faint.push([walker.currentNode.data.trim(), (b + 0.05) / (a + 0.05)]);
  }
  return faint;
}"""


def test_what_is_pressed_is_large_enough_for_a_finger(open_page: Open) -> None:
    page = open_page(is_mobile=True, has_touch=True, viewport={"width": 360, "height": 740})
    ask(page, "Which gear do I need?")
    answered(page)
    page.get_by_role("button", name="Bad answer").tap()
    expect(page.get_by_role("button", name="Close")).to_be_visible()
    ratings = [page.get_by_role("button", name=name).bounding_box() for name in ("Good answer", "Bad answer")]
    assert min(box["width"] for box in ratings if box) >= 39.5 and None not in ratings
    page.get_by_role("button", name="Conversations").tap()
    expect(page.locator("#drawer")).to_be_visible()
    small = page.evaluate("""() => [...document.querySelectorAll("button, summary, textarea, .list a")]
        .filter((e) => e.checkVisibility() && !e.matches(".skip"))
        .map((e) => [e.outerHTML.slice(0, 80), e.getBoundingClientRect().height])
        .filter(([, height]) => height && height < 39.5)""")
    assert small == []


def test_page_stays_small() -> None:
    # What is loaded when the documents are opened, or when there are figures or jobs, and not before, has a bound of its own.
    later = [file.stat().st_size for file in STATIC.iterdir() if file.stem in ("documents", "charts", "jobs")]
    assert len(later) == 5 and sum(later) < 14_000
    assert sum(file.stat().st_size for file in STATIC.iterdir()) - sum(later) < 109_000
