/** The question that a turn asks before something is lost for good; the answer counts once. */

import { read, request } from "./api.js";
import { button, h, icon } from "./dom.js";
import { tellTabs } from "./tabs.js";

const DONE = { cancel: "Cancelled", delete: "Deleted", erase: "Erased", remove: "Removed" };

/**
 * The question of a call, below its card. `onState(state, word)` tells the card how it stands: `waiting`, `done`,
 * `declined` or `failed`.
 */
export class Confirmation {
  #path;
  #onState;
  #conversation;
  #open = true;

  constructor(id, { onState, conversation }) {
    this.#path = `api/confirmations/${encodeURIComponent(id)}`;
    this.#onState = onState;
    this.#conversation = conversation;
    this.element = h("section", { class: "confirmation", "aria-label": "Confirmation" });
    this.refresh();
  }

  /** Show what became of it, which is asked of the server: the answer may have been given elsewhere. */
  async refresh() {
    if (!this.#open) return;
    try {
      this.#show(await read(this.#path));
    } catch (problem) {
      if (problem.status === 404) this.#end("declined", "No longer known", "This was asked some time ago, and what became of it is not kept.");
      else if (!this.element.childElementCount) this.element.append(h("p", {}, problem.message), button("Try again", () => { this.element.replaceChildren(); this.refresh(); }));
    }
  }

  #show(asked) {
    const { question, title, status, done, error } = asked;
    const past = DONE[verbOf(title)] ?? "Done";
    if (status === "open") this.#ask(asked);
    else if (status === "declined") this.#end("declined", "Not done", "You said no. Nothing was changed.", question);
    else if (status === "expired") this.#end("declined", "Not done", "This question has expired. Nothing was changed.", question);
    else if (done) this.#end("done", past, `${past}.`, question);
    else if (error) this.#end("failed", "Failed", `This did not work. ${error}`, question);
    else this.#end("done", "Confirmed", "You confirmed this.", question);
  }

  #ask({ question, title }) {
    this.#onState("waiting", "Waiting for you");
    if (this.element.querySelector("h3")?.textContent === question) return;
    this.element.replaceChildren(
      h("h3", {}, question),
      h("p", {}, "This cannot be undone."),
      h("p", { class: "form-error", role: "alert", hidden: true }),
      h("div", { class: "buttons" },
        button(`Yes, ${verbOf(title)}`, () => this.#answer(true), "danger"),
        button("No", () => this.#answer(false)),
      ),
    );
  }

  async #answer(confirm) {
    const buttons = [...this.element.querySelectorAll("button")];
    buttons.forEach((one) => (one.disabled = true));
    try {
      await request("POST", this.#path, { json: { confirm } });
    } catch (problem) {
      if (problem.confirmation) return this.#askAgain(problem.confirmation);
      if (problem.status !== 409) await this.refresh(); // a call that failed is over, one that never came is not
      if (this.#open && problem.status !== 409) {
        buttons.forEach((one) => (one.disabled = false));
        const alert = this.element.querySelector("[role=alert]");
        alert.textContent = problem.status === 0 ? "There is no connection to the server. Try again in a moment." : problem.message;
        alert.hidden = false;
        return;
      }
    }
    await this.refresh();
    tellTabs(this.#conversation());
    this.element.querySelector("[tabindex]")?.focus();
  }

  /** The server asks about what would be lost now. */
  #askAgain({ id, question, title }) {
    this.#path = `api/confirmations/${encodeURIComponent(id)}`;
    this.#ask({ question, title });
    this.element.prepend(h("p", { class: "thanks", tabindex: "-1" }, icon("alert"), "This has changed since you were asked. Nothing was done yet."));
    this.element.firstChild.focus();
  }

  #end(state, word, text, question = "") {
    this.#open = false;
    this.#onState(state, word);
    const sign = { done: "check", failed: "alert" }[state];
    this.element.replaceChildren(h("p", { class: "asked" }, question), h("p", { class: "thanks", tabindex: "-1" }, sign && icon(sign), text));
  }
}

const verbOf = (title) => (title ?? "confirm").split(" ")[0].toLowerCase();
