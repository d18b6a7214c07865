/** One answer: who gives it, the tools that were called, the text with its citations, the sources; live or stored. */

import { confirmation } from "./confirm.js";
import { place, showPassage } from "./dialogs.js";
import { copyButton, h, icon, setHtml, words } from "./dom.js";
import { leadForm } from "./form.js";

const FORM = "offer_form";

/** What a person said. */
export function question(text) {
  return h("article", { class: "question" }, h("h2", { class: "sr" }, "You"), h("p", {}, text));
}

export class Answer {
  #agents = [];
  #sources = new Map();
  #texts = new Map();
  #thoughts = new Map();
  #tools = new Map();
  #conversation;
  #who = h("h2", { class: "who" });
  #parts = h("div", { class: "parts" });
  #waiting = h("p", { class: "waiting" }, h("span", { class: "dots" }, h("i"), h("i"), h("i")), h("span", {}, "Thinking"));
  #end = h("div", { class: "end" });

  /** `conversation()` gives the conversation's id, which a form needs. */
  constructor(conversation) {
    this.#conversation = conversation;
    this.element = h("article", { class: "answer", "data-state": "live" }, this.#who, this.#parts, this.#waiting, this.#end);
    this.ended = false;
  }

  /** A message of `GET /api/conversations/{id}/messages`. */
  static stored(message, conversation) {
    const answer = new Answer(conversation);
    if (message.agent) answer.apply({ type: "data-agent", data: { name: message.agent } });
    for (const source of message.sources ?? []) answer.#sources.set(source.n, source);
    for (const tool of message.tools ?? []) {
      answer.apply({ type: "tool-input-available", toolCallId: tool.call_id, toolName: tool.name, input: tool.input });
      if (tool.error) answer.apply({ type: "tool-output-error", toolCallId: tool.call_id, errorText: tool.error });
      else if (tool.output !== null) answer.apply({ type: "tool-output-available", toolCallId: tool.call_id, output: tool.output });
      const asked = typeof tool.output === "string" ? parsed(tool.output) : tool.output;
      if (asked?.done === false && asked.confirmation) answer.apply({ type: "data-confirmation", data: { id: asked.confirmation } });
    }
    if (message.reasoning) answer.#think("stored", message.reasoning);
    if (message.text) answer.#text("stored").text = message.text;
    (message.html ?? []).forEach((html, i) => answer.apply({ type: "data-html", data: { id: "stored", i, html } }));
    for (const data of message.notes ?? []) answer.apply({ type: "data-note", data });
    if (message.status === "cancelled") answer.apply({ type: "abort" });
    answer.finish();
    return answer;
  }

  get agent() {
    return this.#agents.at(-1)?.title;
  }

  get empty() {
    return !this.#parts.childElementCount;
  }

  get text() {
    return [...this.#texts.values()].map((part) => part.text.trim()).join("\n\n");
  }

  /** One chunk of the stream. */
  apply(chunk) {
    switch (chunk.type) {
      case "data-agent": this.#addAgent(chunk.data); break;
      case "tool-input-available": this.#addTool(chunk); break;
      case "tool-output-available": this.#tools.get(chunk.toolCallId)?.done(chunk.output); break;
      case "tool-output-error": this.#tools.get(chunk.toolCallId)?.failed(chunk.errorText); break;
      case "source-document": this.#addSource(chunk); break;
      case "reasoning-delta": this.#think(chunk.id, chunk.delta); break;
      case "data-note": this.#end.append(h("p", { class: "remark" }, chunk.data.text)); break;
      case "text-delta": this.#text(chunk.id).text += chunk.delta; break;
      case "text-end": this.#showPlain(chunk.id); break;
      case "data-html": this.#setBlock(chunk.data); break;
      case "data-confirmation": this.#parts.append(confirmation(chunk.data.id)); break;
      case "data-steered": this.#parts.append(h("p", { class: "steered" }, chunk.data.text)); break;
      case "data-reset": this.#dropText(chunk.data.id); break;
      case "abort": this.#end.prepend(h("p", { class: "stopped" }, "Stopped")); this.ended = true; break;
      case "finish": this.ended = true; break;
    }
    const tools = [...this.#tools.values()];
    const writing = this.#parts.lastElementChild?.matches(".text:not(:empty)");
    this.#waiting.hidden = writing || tools.some((tool) => tool.running);
    this.#waiting.lastChild.textContent = tools.length ? "Writing" : "Thinking";
  }

  /** Nothing more comes: show the sources and what can be done with the answer. */
  finish() {
    if (this.element.dataset.state === "done") return;
    this.element.dataset.state = "done";
    this.#waiting.remove();
    for (const id of this.#texts.keys()) this.#showPlain(id);
    for (const tool of this.#tools.values()) tool.stopped();
    if (this.#sources.size && this.text) this.#end.append(this.#sourceList());
    if (this.text) this.#end.append(h("div", { class: "actions" }, copyButton("Copy answer", () => this.text)));
  }

  /** A passing remark, "" to take it back. */
  note(text) {
    this.#waiting.lastChild.textContent = text || "Thinking";
    if (text) this.#waiting.hidden = false;
  }

  /** What went wrong in words; `actions` are buttons. */
  fail(title, detail, actions) {
    this.finish();
    this.#end.append(
      h("div", { class: "error" }, icon("alert"), h("div", {}, h("p", { class: "error-title" }, title), detail ? h("p", {}, detail) : null, h("div", { class: "buttons" }, actions))),
    );
  }

  #addAgent(data) {
    const agent = { ...data, title: data.title ?? words(data.name) };
    if (this.#agents.at(-1)?.name !== agent.name) this.#agents.push(agent);
    const how = { meaning: "By the meaning of the question", sticky: "As before", model: "By choice of the model" }[agent.decided_by];
    const sure = agent.decided_by === "meaning" ? `, ${Math.round(agent.confidence * 100)} % sure` : "";
    const before = this.#agents.slice(0, -1).map((other) => h("span", { class: "before" }, `${other.title} › `));
    const hue = [...agent.name].reduce((sum, letter) => sum + letter.codePointAt(0), 0) % 6;
    this.#who.replaceChildren(h("span", { class: `mark hue-${hue}`, "aria-hidden": "true" }, agent.title[0]), ...before, h("span", { title: how ? how + sure : null }, agent.title));
  }

  #addTool({ toolCallId, toolName, input }) {
    if (toolName === FORM) {
      const slot = h("div", { class: "slot" });
      const done = (output) => {
        const offer = typeof output === "string" ? parsed(output) : output;
        if (offer?.fields) slot.replaceChildren(leadForm(offer, toolCallId, this.#conversation));
        running.running = false;
      };
      const running = { running: true, done, failed: () => (running.running = false), stopped: () => {} };
      this.#tools.set(toolCallId, running);
      this.#parts.append(slot);
      return;
    }
    const card = new ToolCard(toolName, input);
    this.#tools.set(toolCallId, card);
    if (!this.#parts.lastElementChild?.matches(".tools")) this.#parts.append(h("div", { class: "tools" }));
    this.#parts.lastElementChild.append(card.element);
  }

  #addSource({ sourceId, title, filename, providerMetadata }) {
    const own = providerMetadata?.agentServer ?? {};
    const n = own.n ?? Number(sourceId);
    this.#sources.set(n, { title, document: filename, ...own, n });
  }

  #text(id) {
    if (!this.#texts.has(id)) {
      const element = h("div", { class: "text" });
      this.#texts.set(id, { element, text: "" });
      this.#parts.append(element);
    }
    return this.#texts.get(id);
  }

  /** What the model thinks, folded. It has the number of its call, as the text has. */
  #think(id, delta) {
    id = id.replace("thought", "text");
    if (!this.#thoughts.has(id)) {
      const text = h("p", { class: "plain" });
      this.#thoughts.set(id, h("div", { class: "tools" }, h("details", { class: "tool" }, h("summary", {}, icon("right"), "Thoughts"), h("div", { class: "tool-body" }, text))));
      this.#parts.append(this.#thoughts.get(id));
    }
    this.#thoughts.get(id).querySelector("p").append(delta);
  }

  #dropText(id) {
    this.#texts.get(id)?.element.remove();
    this.#texts.delete(id);
    this.#thoughts.get(id)?.remove();
    this.#thoughts.delete(id);
  }

  /** A server that sent no HTML for a text has still sent the text. */
  #showPlain(id) {
    const part = this.#texts.get(id);
    if (part?.text && !part.element.childElementCount) part.element.append(h("p", { class: "plain" }, part.text));
  }

  #setBlock({ id, i, html }) {
    const { element } = this.#text(id);
    while (element.childElementCount <= i) element.append(h("div", { class: "block" }));
    const block = element.children[i];
    setHtml(block, html);
    block.querySelectorAll("a.cite").forEach((link) => this.#wireCitation(link));
    block.querySelectorAll("pre").forEach(wireCode);
  }

  #wireCitation(link) {
    const source = this.#sources.get(Number(link.hash.slice("#cite-".length)));
    if (!source) return;
    // Stays a link: a button would let the full stop after it wrap to the next line.
    const open = (event) => {
      if (event.type === "keydown" && event.key !== " ") return;
      event.preventDefault();
      showPassage(source);
    };
    link.addEventListener("click", open);
    link.addEventListener("keydown", open);
    link.role = "button";
    link.ariaLabel = `Source ${source.n}: ${source.title}`;
    link.title = source.title;
    link.textContent = source.n;
    const before = link.previousSibling;
    if (before?.nodeType === Node.TEXT_NODE) before.data = before.data.trimEnd();
  }

  #sourceList() {
    const sources = [...this.#sources.values()].sort((a, b) => a.n - b.n);
    return h(
      "section",
      { class: "sources", "aria-label": "Sources" },
      h("h3", {}, sources.length > 1 ? "Sources" : "Source"),
      h("ol", {}, sources.map((source) => h("li", {}, h(
        "button",
        { type: "button", onclick: () => showPassage(source) },
        h("span", { class: "n" }, String(source.n)),
        h("span", { class: "source-title" }, source.title),
        h("span", { class: "source-place" }, place(source).at(-1) ?? source.document),
      )))),
    );
  }
}

class ToolCard {
  #state = h("span", { class: "state" });
  #body = h("div", { class: "tool-body" });

  constructor(name, input) {
    this.running = true;
    const gist = Object.values(input ?? {}).find((value) => typeof value === "string" && value);
    this.element = h(
      "details",
      { class: "tool" },
      h("summary", {}, icon("right"), h("span", { class: "tool-name" }, words(name)), gist ? h("span", { class: "gist" }, gist) : null, this.#state),
      this.#body,
    );
    this.#show("running", "Running", h("span", { class: "spinner" }));
    this.#body.append(...section("Name", h("code", {}, name)));
    if (Object.keys(input ?? {}).length) this.#body.append(...section("Arguments", value(input)));
  }

  done(output) {
    this.running = false;
    this.#show("done", "Done", icon("check"));
    this.#body.append(...section("Result", value(typeof output === "string" ? (parsed(output) ?? output) : output)));
  }

  failed(error) {
    this.running = false;
    this.#show("failed", "Failed", icon("close"));
    this.#body.append(...section("Error", h("p", { class: "plain" }, error)));
  }

  stopped() {
    if (this.running) this.#show("failed", "Did not finish", icon("close"));
    this.running = false;
  }

  #show(state, word, sign) {
    this.element.dataset.state = state;
    this.#state.replaceChildren(sign, h("span", { class: "sr" }, word));
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
  const box = h("div", {}, h("pre", { tabindex: "0" }, JSON.stringify(data, null, 2)));
  wireCode(box.firstChild);
  return box;
}

function wireCode(pre) {
  const language = pre.querySelector("code")?.className.replace("language-", "") ?? "json";
  const box = h("div", { class: "code" }, h("div", { class: "code-bar" }, h("span", {}, language), copyButton("Copy code", () => pre.textContent)));
  pre.replaceWith(box);
  pre.tabIndex = 0;
  box.append(pre);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
