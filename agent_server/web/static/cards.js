/** The card of a tool's call: its state, and folded its arguments and its result. */

import { Confirmation } from "./confirm.js";
import { copyButton, h, icon, parsed, setHtml, words } from "./dom.js";

export class ToolCard {
  #state = h("span", { class: "state" });
  #body = h("div", { class: "tool-body" });
  #result = h("div", {});
  #far = h("div", { class: "progress" });
  #about;
  #confirmation = null;

  /** `conversation()` gives the conversation's id, `onAnswered()` is called when the person need not be asked any more. */
  constructor(name, input, about) {
    this.running = true;
    this.#about = about;
    const gist = Object.values(input ?? {}).find((value) => typeof value === "string" && value);
    const summary = h("summary", {}, icon("right"), h("span", { class: "tool-name" }, words(name)), gist ? h("span", { class: "gist" }, gist) : null, this.#state);
    this.element = h("div", { class: "card" }, h("details", { class: "tool" }, summary, this.#body));
    this.#show("running", "Running", h("span", { class: "spinner" }));
    this.#body.append(...section("Name", h("code", {}, name)));
    if (Object.keys(input ?? {}).length) this.#body.append(...section("Arguments", value(input)));
    this.#body.append(this.#result);
  }

  /** How far the call is, while it runs. */
  progress({ done, total, message }) {
    if (!this.running) return;
    const bar = done === null ? null : h("progress", { max: total ?? null, value: total === null ? null : done, "aria-label": "Progress" });
    this.#far.replaceChildren(...[bar, message ? h("span", {}, message) : null].filter(Boolean));
    if (!this.#far.isConnected) this.element.append(this.#far);
  }

  done(output) {
    this.running = false;
    const data = typeof output === "string" ? (parsed(output) ?? output) : output;
    if (data?.done === false && data.confirmation) return this.ask(data.confirmation);
    this.#show("done", "Done", icon("check"));
    this.#result.replaceChildren(...section("Result", value(data)));
    this.output = data;
    if (data?.job && data.note) this.#follow(data);
  }

  /** The call goes on by itself, as the job that its output names. */
  async #follow(begun) {
    const { Job } = await import("./jobs.js");
    this.element.append(new Job(begun, (...shown) => this.#show(...shown)).element);
  }

  /** The result as the server words it; the data stays within reach. */
  read(html) {
    if (!html || this.#confirmation) return;
    const said = h("div", { class: "text" });
    setHtml(said, html);
    const data = h("details", { class: "data" }, h("summary", {}, "As data"), asJson(this.output));
    const figures = [this.output, ...Object.values(this.output ?? {})].flat().filter((each) => /^(chart|table)$/.test(each?.type));
    this.#result.replaceChildren(...(figures.length ? [] : section("Result", said)), data);
    if (figures.length) import("./charts.js").then((charts) => charts.show(this.element, said, figures, this.#about.charts));
  }

  failed(error) {
    this.running = false;
    this.#show("failed", "Failed", icon("close"));
    this.#result.replaceChildren(...section("Error", h("p", { class: "plain" }, error)));
  }

  stopped() {
    if (this.running) this.#show("failed", "Did not finish", icon("close"));
    this.running = false;
  }

  /** Nothing was done: the person is asked first, by the question with this id. */
  ask(id) {
    this.running = false;
    if (this.#confirmation) return;
    const signs = { waiting: "wait", done: "check", declined: "close", failed: "alert" };
    const onState = (state, word) => {
      this.#show(state, word, icon(signs[state]));
      this.asks = state === "waiting";
      if (!this.asks) this.#about.onAnswered();
    };
    onState("waiting", "Waiting for you");
    this.#confirmation = new Confirmation(id, { onState, conversation: this.#about.conversation });
    this.element.append(this.#confirmation.element);
  }

  refresh() {
    this.#confirmation?.refresh();
  }

  #show(state, word, sign) {
    if (state !== "running") this.#far.remove();
    this.element.dataset.state = state;
    const plain = state === "running" || (state === "done" && word === "Done");
    this.#state.replaceChildren(sign, h("span", { class: plain ? "sr" : null }, word));
  }
}

function section(name, content) {
  return [h("h4", {}, name), content];
}

/** A flat object as a list of names and values, anything else as JSON. */
function value(data) {
  if (data === null || typeof data !== "object") return h("p", { class: "plain" }, String(data));
  const entries = Object.entries(data);
  if (!Array.isArray(data) && entries.every(([, item]) => item === null || typeof item !== "object")) {
    return h("dl", {}, entries.flatMap(([name, item]) => [h("dt", {}, words(name)), h("dd", {}, String(item ?? "none"))]));
  }
  return asJson(data);
}

function asJson(data) {
  const box = h("div", {}, h("pre", { tabindex: "0" }, JSON.stringify(data, null, 2)));
  wireCode(box.firstChild);
  return box;
}

export function wireCode(pre) {
  const language = pre.querySelector("code")?.className.replace("language-", "") ?? "json";
  const box = h("div", { class: "code" }, h("div", { class: "code-bar" }, h("span", {}, language), copyButton("Copy code", () => pre.textContent)));
  pre.replaceWith(box);
  pre.tabIndex = 0;
  pre.dir = "ltr";
  box.append(pre);
}
