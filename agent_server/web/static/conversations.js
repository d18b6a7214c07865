/** The list of conversations: open, rename, delete. */

import { read, request, credential } from "./api.js";
import { confirm } from "./dialogs.js";
import { $, announce, h, icon } from "./dom.js";

export class Conversations {
  /** `onDeleted(id)` and `onRenamed(id, title)` tell the page about the one it may be showing, `onChanged()` of either. */
  constructor({ onChanged, onDeleted, onRenamed }) {
    this.items = [];
    this.current = null;
    this.cursor = null;
    this.onChanged = onChanged;
    this.onDeleted = onDeleted;
    this.onRenamed = onRenamed;
  }

  async load() {
    const none = { items: [], next_cursor: null };
    const page = credential.token ? await read("api/conversations?limit=50") : none;
    const oldest = page.items.at(-1)?.updated_at;
    const older = this.older ? this.items.filter((item) => item.updated_at < oldest && !page.items.some(({ id }) => id === item.id)) : [];
    if (!older.length) this.cursor = page.next_cursor;
    this.items = [...page.items, ...older];
    this.#show();
  }

  changedAt(id) {
    return this.items.find((item) => item.id === id)?.updated_at ?? null;
  }

  /** What the list says about one, at once and without asking the server. */
  put(id, title) {
    this.items = [{ id, title, updated_at: new Date().toISOString() }, ...this.items.filter((item) => item.id !== id)];
    this.select(id);
  }

  select(id) {
    this.current = id;
    this.#show();
  }

  title(id) {
    return this.items.find((item) => item.id === id)?.title;
  }

  async #more() {
    const page = await read(`api/conversations?limit=50&cursor=${encodeURIComponent(this.cursor)}`);
    this.older = true;
    this.items.push(...page.items);
    this.cursor = page.next_cursor;
    this.#show();
  }

  /** Not while a title is being typed; what had the focus keeps it. */
  #show() {
    const shown = JSON.stringify([this.items, this.current, this.cursor]);
    if (this.editing || shown === this.shown) return;
    this.shown = shown;
    const focused = $("list").contains(document.activeElement) && document.activeElement.dataset.key;
    const lists = [...byAge(this.items)].map(([age, items]) => [h("h2", {}, age), h("ul", {}, items.map((item) => this.#row(item)))]);
    const more = h("button", { class: "quiet", onclick: () => this.#more() }, "Show older ones");
    const none = h("p", { class: "none" }, "Your conversations will appear here.");
    $("list").replaceChildren(...(this.items.length ? lists.flat() : [none]), ...(this.cursor ? [more] : []));
    if (focused) $("list").querySelector(`[data-key="${focused}"]`)?.focus();
  }

  #row(item) {
    const link = h("a", { href: `#/c/${item.id}`, "data-key": item.id, "aria-current": item.id === this.current ? "page" : null, title: item.title }, item.title);
    const row = h(
      "li",
      {},
      link,
      h("button", { class: "icon", "aria-label": `Rename ${item.title}`, title: "Rename", "data-key": `rename-${item.id}`, onclick: () => this.#rename(item, row) }, icon("pencil")),
      h("button", { class: "icon", "aria-label": `Delete ${item.title}`, title: "Delete", "data-key": `delete-${item.id}`, onclick: () => this.#remove(item) }, icon("trash")),
    );
    return row;
  }

  #rename(item, row) {
    const input = h("input", { "aria-label": "Title", maxlength: 200 });
    input.value = item.title;
    this.editing = true;
    const end = async (keep) => {
      if (!this.editing) return;
      this.editing = false;
      const title = input.value.trim();
      if (keep && title && title !== item.title) {
        try {
          await request("PATCH", `api/conversations/${item.id}`, { json: { title } });
          item.title = title;
          this.onRenamed(item.id, title);
          this.onChanged();
        } catch (problem) {
          announce(`Not renamed. ${problem.message}`);
        }
      }
      this.shown = null; // the input has to go
      this.#show();
      $("list").querySelector(`[data-key="${item.id}"]`)?.focus();
    };
    input.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Enter") end(true);
      if (event.key === "Escape") {
        event.stopPropagation();
        end(false);
      }
    });
    input.addEventListener("blur", () => end(true));
    row.replaceChildren(input);
    input.select();
  }

  async #remove(item) {
    if (!(await confirm("Delete this conversation?", `“${item.title}” and all its answers will be gone for good.`, "Delete"))) return;
    try {
      await request("DELETE", `api/conversations/${item.id}`);
    } catch (problem) {
      if (problem.status !== 404) return announce(`Not deleted. ${problem.message}`);
    }
    this.items = this.items.filter((other) => other.id !== item.id);
    this.#show();
    this.onDeleted(item.id);
    this.onChanged();
    announce("Conversation deleted.");
  }
}

function ageOf(item) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  const days = Math.ceil((midnight - new Date(item.updated_at)) / 86_400_000);
  if (days <= 0) return "Today";
  if (days === 1) return "Yesterday";
  return days <= 7 ? "Last seven days" : "Older";
}

function byAge(items) {
  const groups = new Map();
  for (const item of items) groups.set(ageOf(item), [...(groups.get(ageOf(item)) ?? []), item]);
  return groups;
}
