/** The documents of the user's own: what there is, one more, one less. Loaded when it is first opened. */

import { read, request } from "./api.js";
import { confirm, show } from "./dialogs.js";
import { announce, button, h, icon } from "./dom.js";

const SIZES = [[1e6, "MB"], [1e3, "kB"]];

function size(bytes) {
  const [unit, name] = SIZES.find(([least]) => bytes >= least) ?? [1, "bytes"];
  return `${(bytes / unit).toLocaleString("en", { maximumFractionDigits: unit === 1e6 ? 1 : 0 })} ${name}`;
}

export function showDocuments() {
  if (!document.querySelector("link[href='static/documents.css']")) {
    document.head.append(h("link", { rel: "stylesheet", href: "static/documents.css" }));
  }
  return show("My documents", () => new Panel().parts);
}

class Panel {
  constructor() {
    this.items = [];
    this.list = h("ul", { class: "own-list", "aria-label": "Documents" });
    this.state = h("div", { class: "own-state", role: "status" });
    this.room = h("p", { class: "own-room" });
    this.input = h("input", { class: "sr", type: "file", multiple: true, id: "own-files", onchange: () => this.#add([...this.input.files]) });
    this.drop = h("label", { class: "own-drop", for: "own-files" }, icon("plus"), "Add files");
    for (const name of ["dragover", "dragleave", "drop"]) {
      this.drop.addEventListener(name, (event) => {
        event.preventDefault();
        this.drop.classList.toggle("over", name === "dragover");
        if (name === "drop") this.#add([...event.dataTransfer.files]);
      });
    }
    this.parts = [
      h("h2", {}, "My documents"),
      h("p", {}, "Your questions are answered from them too, and nobody else’s."),
      this.input,
      this.drop,
      this.state,
      this.list,
      this.room,
    ];
    this.#load();
  }

  async #load(cursor = "") {
    try {
      const page = await read(`api/documents?limit=50${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
      this.items = cursor ? [...this.items, ...page.items] : page.items;
      this.cursor = page.next_cursor;
      this.#show(page.room);
    } catch (problem) {
      this.#tell([`The documents cannot be shown. ${problem.message}`]);
    }
  }

  #show(room) {
    const rows = this.items.map((item) => this.#row(item));
    const none = h("li", { class: "none" }, "There are none yet.");
    this.list.replaceChildren(...(rows.length ? rows : [none]));
    if (this.cursor) this.list.append(h("li", {}, button("Show older ones", () => this.#load(this.cursor), "quiet")));
    this.input.accept = room.kinds.join(",");
    this.room.textContent = `${room.documents} of ${room.most_documents} documents, ${size(room.size)} of ${size(room.most_size)}. A file may be one of ${room.kinds.join(" ")} and have ${size(room.largest)}.`;
  }

  #row(item) {
    // Each by itself: a title from right to left must not turn the numbers behind it around.
    const about = [item.title, size(item.size), new Date(item.updated_at).toLocaleDateString()].slice(item.title === item.name ? 1 : 0);
    return h(
      "li",
      {},
      h("p", {}, h("span", { class: "own-name" }, item.name), h("span", { class: "own-about" }, about.flatMap((part, n) => [n ? " · " : "", h("bdi", {}, part)]))),
      h("button", { class: "icon", type: "button", "aria-label": `Delete ${item.name}`, title: "Delete", onclick: () => this.#remove(item) }, icon("trash")),
    );
  }

  /** One after the other, so that what is wrong with one keeps no other from being added. */
  async #add(files) {
    const wrong = [];
    this.drop.inert = true;
    for (const [n, file] of files.entries()) {
      this.#tell([`Reading ${file.name}${files.length > 1 ? ` (${n + 1} of ${files.length})` : ""} …`], "wait");
      try {
        const response = await request("POST", `api/documents?name=${encodeURIComponent(file.name)}`, { body: file });
        const { remarks } = await response.json();
        wrong.push(...remarks.map((remark) => `${file.name}: ${remark}`));
      } catch (problem) {
        wrong.push(`${file.name} was not added: ${problem.fields[0]?.message ?? problem.message}`);
      }
    }
    this.input.value = "";
    this.drop.inert = false;
    this.#tell(wrong);
    if (!wrong.length) announce("Added.");
    await this.#load();
  }

  async #remove(item) {
    if (!(await confirm("Delete this document?", `“${item.name}” will be gone for good, and no answer comes from it any more.`, "Delete"))) return;
    try {
      await request("DELETE", `api/documents/${item.id}`);
    } catch (problem) {
      if (problem.status !== 404) return this.#tell([`Not deleted. ${problem.message}`]);
    }
    announce("Document deleted.");
    this.#tell([]);
    await this.#load();
  }

  #tell(lines, kind = "wrong") {
    this.state.className = `own-state ${kind}`;
    this.state.replaceChildren(...lines.map((line) => h("p", {}, line)));
  }
}
