/**
 * Messages that wait in this tab for an answer to end, by conversation; "" has no id yet. Behind an answer that was not
 * finished they are held: they go when the person says so.
 */

import { uniqueKey } from "./api.js";
import { $, announce, button, h } from "./dom.js";

const KEPT = "agent-server.queue";

export class Queue {
  #waiting = JSON.parse(sessionStorage.getItem(KEPT) ?? "{}"); // id -> {held, items: [{text, key}]}
  #shown = "";
  #sending = null;

  /** `onNow(item)` and `onBack(item)`: a person wants it answered now, or back. */
  constructor({ onNow, onBack }) {
    this.onNow = onNow;
    this.onBack = onBack;
  }

  /** The one to send next, null where there is none or it is held. */
  next(id) {
    const waiting = this.#waiting[id ?? ""];
    return waiting && !waiting.held ? waiting.items[0] : null;
  }

  add(id, text) {
    const waiting = (this.#waiting[id ?? ""] ??= { held: false, items: [] });
    waiting.items.push({ text, key: uniqueKey() });
    this.#changed();
    announce("Your message waits until this answer is finished.");
  }

  /** Take one out, wherever it waits. */
  drop(key) {
    for (const [id, waiting] of Object.entries(this.#waiting)) {
      waiting.items = waiting.items.filter((item) => item.key !== key);
      if (!waiting.items.length) delete this.#waiting[id];
    }
    this.#changed();
  }

  /** Make one the next of its conversation. */
  prefer(item) {
    for (const waiting of Object.values(this.#waiting)) {
      if (!waiting.items.includes(item)) continue;
      waiting.items = [item, ...waiting.items.filter((other) => other !== item)];
      waiting.held = false;
    }
    this.#changed();
  }

  hold(id) {
    if (this.#waiting[id ?? ""]) this.#waiting[id ?? ""].held = true;
    this.#changed();
  }

  /** A new conversation has its id. */
  move(id) {
    if (this.#shown !== "") return;
    this.#shown = id;
    if (this.#waiting[""]) this.#waiting[id] = this.#waiting[""];
    this.forget("");
  }

  clear() {
    this.#waiting = {};
    this.#changed();
  }

  forget(id) {
    delete this.#waiting[id];
    this.#changed();
  }

  /** The one with this key is shown in the conversation from now on. It is kept here until the server has it. */
  send(key) {
    this.#sending = key;
    this.#changed();
  }

  show(id) {
    this.#shown = id ?? "";
    this.#changed();
  }

  #changed() {
    if (Object.keys(this.#waiting).length) sessionStorage.setItem(KEPT, JSON.stringify(this.#waiting));
    else sessionStorage.removeItem(KEPT);
    const { held, items: all } = this.#waiting[this.#shown] ?? { items: [] };
    const items = all.filter((item) => item.key !== this.#sending);
    const rows = items.map((item) => h(
      "li",
      {},
      h("p", { class: "plain" }, item.text),
      button("Answer now", () => this.onNow(item), "quiet"),
      button("Take back", () => this.onBack(item), "quiet"),
    ));
    const why = held ? "Not sent, because the answer before was not finished:" : "Waits until this answer is finished:";
    $("queue").hidden = !items.length;
    $("queue").replaceChildren(h("p", {}, why), h("ul", { "aria-label": "Waiting messages" }, rows));
  }
}
