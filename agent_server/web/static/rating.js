/** What the reader thinks of an answer: good or bad, and in words what is wrong with a bad one. */

import { request } from "./api.js";
import { announce, button, h, icon } from "./dom.js";
import { tellTabs } from "./tabs.js";

const LABELS = { good: "Good answer", bad: "Bad answer" };
const LONGEST = 2000; // characters of a comment

/** `element` has the buttons, `more` is the place below them. */
export class Rating {
  #path;
  #conversation;
  #given = null;
  #busy = false;
  #buttons = {};
  more = h("div", { class: "rated" });

  constructor(turn, conversation) {
    this.#path = `api/turns/${encodeURIComponent(turn)}/feedback`;
    this.#conversation = conversation;
    for (const [rating, label] of Object.entries(LABELS)) {
      const press = () => this.#give(rating === this.#given ? null : rating);
      this.#buttons[rating] = h("button", { class: "quiet", type: "button", "aria-label": label, title: label, onclick: press }, icon(rating));
    }
    this.element = h("span", { class: "rating", role: "group", "aria-label": "Rate this answer" }, Object.values(this.#buttons));
    this.#show(null);
  }

  /** What the server has of it: `{rating}` or nothing. */
  refresh(feedback) {
    const rating = feedback?.rating ?? null;
    if (this.#busy || rating === this.#given) return;
    this.#show(rating);
    this.more.replaceChildren();
  }

  #show(given) {
    this.#given = given;
    for (const [rating, one] of Object.entries(this.#buttons)) one.setAttribute("aria-pressed", rating === given);
  }

  async #give(rating) {
    const before = this.#given;
    if (this.#busy) return;
    this.#show(rating);
    this.more.replaceChildren();
    if (!(await this.#send(rating))) return this.#show(before);
    announce(rating ? "Noted." : "Taken back.");
    if (rating === "bad") this.#ask();
  }

  /** Whether the server has it; else what went wrong is said. */
  async #send(rating, comment = null) {
    this.#busy = true;
    try {
      await (rating ? request("PUT", this.#path, { json: { rating, comment } }) : request("DELETE", this.#path));
      tellTabs(this.#conversation());
      return true;
    } catch (problem) {
      if (!rating && problem.status === 404) return true; // it was taken back elsewhere
      const trouble = problem.status === 0 ? "There is no connection to the server. Try again in a moment." : problem.message;
      this.more.querySelector("[role=alert]")?.remove();
      this.more.append(h("p", { class: "form-error", role: "alert" }, trouble));
      return false;
    } finally {
      this.#busy = false;
    }
  }

  #ask() {
    const words = h("textarea", { rows: 2, maxlength: LONGEST });
    const label = h("label", {}, "What is wrong with it?", h("span", { class: "optional" }, "optional"));
    label.htmlFor = words.id = `${this.#path}-words`;
    const form = h("form", { class: "field" }, label, words, h("div", { class: "buttons" }, h("button", { class: "primary" }, "Send"), button("Close", () => this.#end())));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (this.#busy || !words.value.trim()) return this.#end();
      if (await this.#send("bad", words.value)) this.#end(h("p", { class: "thanks", tabindex: "-1" }, icon("check"), "Thank you."));
    });
    this.more.replaceChildren(form);
    form.scrollIntoView({ block: "nearest" });
  }

  #end(thanks) {
    this.more.replaceChildren(thanks ?? "");
    (thanks ?? this.#buttons.bad).focus();
  }
}
