/** A job below the card of its call: how far it is, a way to stop it, and what came of it. Loaded with the first one. */

import { request } from "./api.js";
import { announce, button, h, icon, setHtml } from "./dom.js";

const SOON = 1000; // milliseconds between two looks, at first
const LATER = 5000; // the same of a job that takes long, and where the server cannot be reached

export class Job {
  #path;
  #onState;
  #bar = h("progress", { "aria-label": "Progress" });
  // Apart, since each takes its direction from its own words.
  #said = h("span", {}, "At work");
  #count = h("span", {});
  #cancel = button("Cancel", () => this.#stop());
  #far = h("div", { class: "progress", hidden: true }, this.#bar, this.#said, this.#count, this.#cancel);
  #end = h("div", {});
  #wait = SOON;
  #was = null;

  /** `onState(state, word, sign)` tells the card how it stands: `running`, `done`, `failed` or `declined`. */
  constructor({ job, title }, onState) {
    this.#path = `api/jobs/${encodeURIComponent(job)}`;
    this.#onState = onState;
    this.element = h("section", { class: "job", "aria-label": `Job: ${title}` }, this.#far, this.#end);
    this.#look();
  }

  async #look() {
    try {
      const answer = await request("GET", `${this.#path}?render=html`);
      this.#show(await answer.json());
      if (this.#end.childElementCount) return;
    } catch (problem) {
      if (problem.status === 404) return this.#close("declined", "No longer known", "close", h("p", {}, "This job is over, and its result is not kept any more."));
      if (problem.status === 401 || problem.status === 403) return this.#close("failed", "Not shown", "alert", h("p", {}, problem.message));
      this.#wait = LATER;
    }
    setTimeout(() => this.#next(), this.#wait);
    this.#wait = Math.min(this.#wait * 1.2, LATER);
  }

  /** Another conversation may be shown by now; and nobody looks at a page in the background. */
  #next() {
    if (!this.element.isConnected) return;
    if (!document.hidden) this.#look();
    else document.addEventListener("visibilitychange", () => this.#next(), { once: true });
  }

  #show({ state, title, progress, html }) {
    const words = { done: "Done", failed: "Failed", cancelled: "Cancelled" };
    if (this.#was && words[state]) announce(`${title}: ${words[state]}.`);
    this.#was = state;
    if (state === "done") return this.#close("done", "Done", "check", text(html));
    if (state === "failed") return this.#close("failed", "Failed", "alert", text(html));
    if (state === "cancelled") return this.#close("declined", "Cancelled", "close", h("p", {}, "This was cancelled."));
    this.#onState("running", "Running", h("span", { class: "spinner" }));
    const { done, total, message } = progress ?? {};
    this.#far.hidden = false;
    this.#said.textContent = message || "At work";
    this.#count.textContent = total ? `${done} of ${total}` : "";
    // Without numbers the bar moves, so that it is seen to go on.
    if (total) Object.assign(this.#bar, { max: total, value: done });
    else this.#bar.removeAttribute("value");
  }

  #close(state, word, sign, said) {
    this.#far.remove();
    this.#onState(state, word, icon(sign));
    this.#end.className = "confirmation";
    this.#end.replaceChildren(said);
  }

  async #stop() {
    this.#cancel.disabled = true;
    try {
      await request("POST", `${this.#path}/cancel`);
    } catch (problem) {
      this.#cancel.disabled = false;
      if (problem.status !== 409) return announce(`Not cancelled. ${problem.message}`); // it has ended meanwhile
    }
    await this.#look();
  }
}

function text(html) {
  const said = h("div", { class: "text" });
  setHtml(said, html ?? "");
  return said;
}
