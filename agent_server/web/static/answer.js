/** One answer: who gives it, the tools that were called, the text with its citations, the sources; live or stored. */

import { ToolCard, wireCode } from "./cards.js";
import { place, showPassage } from "./dialogs.js";
import { copyButton, h, icon, setHtml, words } from "./dom.js";
import { FormCard } from "./form.js";
import { Rating } from "./rating.js";

const FORM = "offer_form";
const EMERGENCY = "text-0"; // the page for an emergency, which comes before any model has chosen anything
const SENTENCE = 240; // characters: the text that asks to fill in a form is one short paragraph at the end

/** What a person said. */
export function question(text, turn = null) {
  return h("article", { class: "question", "data-turn": turn }, h("h2", { class: "sr" }, "You"), h("p", {}, text));
}

export class Answer {
  /** `inspect(turn)` shows how an answer came about; null where that is not for who reads. */
  static inspect = null;
  static isRated = true; // whether who reads may say that it is good or bad
  #agents = [];
  #sources = new Map();
  #numbers = new Map(); // the server's number of a source -> the reader's, from 1 in the order of the text
  #texts = new Map();
  #thoughts = new Map();
  #tools = new Map();
  #conversation;
  #rating = null;
  #asked = false; // whether what it asks the person for has been given
  #who = h("h2", { class: "who" });
  #parts = h("div", { class: "parts" });
  #waiting = h("p", { class: "waiting" }, h("span", { class: "dots" }, h("i"), h("i"), h("i")), h("span", {}, "Thinking"));
  #end = h("div", { class: "end" });
  #actions = h("div", { class: "actions" });

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
      if (tool.html) answer.apply({ type: "data-tool", data: { id: tool.call_id, html: tool.html } });
    }
    if (message.reasoning) answer.#think("stored", message.reasoning);
    if (message.text) answer.#text("stored").text = message.text;
    (message.html ?? []).forEach((html, i) => answer.apply({ type: "data-html", data: { id: "stored", i, html } }));
    for (const data of message.notes ?? []) answer.apply({ type: "data-note", data });
    if (message.status === "cancelled") answer.apply({ type: "abort" });
    answer.turn = message.id;
    answer.finish(message.status !== "failed");
    answer.refresh(message);
    return answer;
  }

  /** What has become of its forms and questions and of its rating, here or elsewhere. */
  refresh(message) {
    this.#rating?.refresh(message.feedback);
    for (const tool of message.tools ?? []) this.#tools.get(tool.call_id)?.refresh(tool);
  }

  set turn(id) {
    this.element.dataset.turn = id;
  }

  get turn() {
    return this.element.dataset.turn;
  }

  get agent() {
    return this.#agents.at(-1)?.title;
  }

  /** The text as it is read, with its citations numbered as they are shown. */
  get text() {
    return [...this.#texts.values()].map((part) => renumber(part.text.trim(), this.#numbers)).filter(Boolean).join("\n\n");
  }

  /** One chunk of the stream. */
  apply(chunk) {
    switch (chunk.type) {
      case "start": this.turn = chunk.messageId; break;
      case "data-agent": this.#addAgent(chunk.data); break;
      case "tool-input-available": this.#addTool(chunk); break;
      case "data-progress": this.#tools.get(chunk.id)?.progress(chunk.data); break;
      case "tool-output-available": this.#tools.get(chunk.toolCallId)?.done(chunk.output); break;
      case "tool-output-error": this.#tools.get(chunk.toolCallId)?.failed(chunk.errorText); break;
      case "data-tool": this.#tools.get(chunk.data.id)?.read(chunk.data.html); break;
      case "source-document": this.#addSource(chunk); break;
      case "reasoning-delta": this.#think(chunk.id, chunk.delta); break;
      case "data-note": this.#end.append(h("p", { class: "remark" }, chunk.data.text)); break;
      case "text-delta": this.#text(chunk.id).text += chunk.delta; break;
      case "text-end": this.#showPlain(chunk.id); break;
      case "data-html": this.#setBlock(chunk.data); break;
      case "data-confirmation": this.#tools.get(chunk.data.call_id)?.ask(chunk.data.id); break;
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

  /** Nothing more comes: show the sources and what can be done with the answer. One that failed is not rated. */
  finish(whole = true) {
    if (this.element.dataset.state === "done") return;
    this.element.dataset.state = "done";
    this.#waiting.remove();
    for (const id of this.#texts.keys()) this.#showPlain(id);
    this.#dropRequest(this.#asked);
    for (const tool of this.#tools.values()) tool.stopped();
    if (this.#sources.size && this.text) this.#end.append(this.#sourceList());
    this.#end.append(this.#actions);
    if (this.text) this.#actions.append(copyButton("Copy answer", () => this.text) ?? "");
    if (Answer.isRated && whole && this.turn && this.#parts.childElementCount) {
      this.#rating = new Rating(this.turn, this.#conversation);
      this.#actions.append(this.#rating.element);
      this.#end.append(this.#rating.more);
    }
    this.offer();
  }

  /** Have a button that shows how it came about, for whom that is. */
  offer() {
    if (!Answer.inspect || !this.turn || this.element.dataset.state !== "done" || this.#actions.querySelector(".look")) return;
    this.#actions.append(h("button", { class: "quiet look", type: "button", "aria-haspopup": "dialog", onclick: () => Answer.inspect(this.turn) }, icon("list"), "How it came about"));
  }

  /** A passing remark, "" to take it back. */
  note(text) {
    this.#waiting.lastChild.textContent = text || "Thinking";
    if (text) this.#waiting.hidden = false;
  }

  /** What went wrong in words; `actions` are buttons. */
  fail(title, detail, actions) {
    this.finish(false);
    this.#end.append(
      h("div", { class: "error" }, icon("alert"), h("div", {}, h("p", { class: "error-title" }, title), detail ? h("p", {}, detail) : null, h("div", { class: "buttons" }, actions))),
    );
  }

  #addAgent(data) {
    const agent = { ...data, title: data.title ?? words(data.name) };
    if (this.#agents.at(-1)?.name !== agent.name) this.#agents.push(agent);
    this.#showAgent();
  }

  /** Who answers, and who handed over; an emergency's page was chosen by nobody. */
  #showAgent() {
    const agent = this.#agents.at(-1);
    if (!agent) return;
    const how = { meaning: "By the meaning of the question", sticky: "As before", model: "By choice of the model" }[agent.decided_by];
    const sure = agent.decided_by === "meaning" ? `, ${Math.round(agent.confidence * 100)} % sure` : "";
    const others = this.#texts.has(EMERGENCY) ? [] : this.#agents.slice(0, -1);
    const before = others.map((other) => h("span", { class: "before" }, `${other.title} › `));
    const hue = [...agent.name].reduce((sum, letter) => sum + letter.codePointAt(0), 0) % 6;
    this.#who.replaceChildren(h("span", { class: `mark hue-${hue}`, "aria-hidden": "true" }, agent.title[0]), ...before, h("span", { title: how ? how + sure : null }, agent.title));
  }

  #addTool({ toolCallId, toolName, input }) {
    if (toolName === FORM) {
      const form = new FormCard(toolCallId, { conversation: this.#conversation, onSent: () => this.#dropRequest(true) });
      this.#tools.set(toolCallId, form);
      this.#parts.append(form.element);
      return;
    }
    const card = new ToolCard(toolName, input, { charts: () => `api/turns/${this.turn}/charts/${encodeURIComponent(toolCallId)}`, conversation: this.#conversation, onAnswered: () => this.#dropRequest(true) });
    this.#tools.set(toolCallId, card);
    if (!this.#parts.lastElementChild?.matches(".tools")) this.#parts.append(h("div", { class: "tools" }));
    this.#parts.lastElementChild.append(card.element);
  }

  /** The sentence that asks to fill in a form, or to confirm something, goes when that is done. */
  #dropRequest(given) {
    const [id, part] = [...this.#texts].at(-1) ?? [];
    const last = part?.element.lastElementChild;
    const once = given && this.element.dataset.state === "done" && ![...this.#tools.values()].some((tool) => tool.asks);
    this.#asked = given;
    if (!once || !last || last.textContent.length > SENTENCE || !last.matches("p, :has(> p:only-child)") || last.querySelector(".cite")) return;
    last.remove();
    part.text = part.text.trimEnd().split(/\n\s*\n/).slice(0, -1).join("\n\n");
    if (!part.element.childElementCount) this.#dropText(id);
    for (const copy of this.#actions.querySelectorAll(".copy")) copy.hidden = !this.text;
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
      if (id === EMERGENCY) this.#showAgent();
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
    this.#numbers.clear();
    this.#parts.querySelectorAll("a.cite").forEach((link) => this.#number(link));
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
    const source = this.#sources.get(numberOf(link));
    if (!source) return;
    // Stays a link: a button would let the full stop after it wrap to the next line.
    const open = (event) => {
      if (event.type === "keydown" && event.key !== " ") return;
      event.preventDefault();
      showPassage({ ...source, n: this.#numbers.get(source.n) });
    };
    link.addEventListener("click", open);
    link.addEventListener("keydown", open);
    link.role = "button";
    link.title = source.title;
    this.#number(link);
    const before = link.previousSibling;
    if (before?.nodeType === Node.TEXT_NODE) before.data = before.data.trimEnd();
  }

  /** Numbers count from 1 in the order of the text, whatever the order in which the sources were found. */
  #number(link) {
    const source = this.#sources.get(numberOf(link));
    if (!source) return;
    if (!this.#numbers.has(source.n)) this.#numbers.set(source.n, this.#numbers.size + 1);
    link.textContent = this.#numbers.get(source.n);
    link.ariaLabel = `Source ${link.textContent}: ${source.title}`;
  }

  /** Those that are cited; all of them where the text came without its links. */
  #sourceList() {
    const known = [...this.#sources.values()].sort((a, b) => a.n - b.n);
    const cited = [...this.#numbers].map(([n, shown]) => ({ ...this.#sources.get(n), n: shown }));
    const sources = cited.length ? cited : known;
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

const numberOf = (link) => Number(link.hash.slice("#cite-".length));

/** `[7]` as `[1]` where 7 is shown as 1; what stands in code is no citation. */
function renumber(text, numbers) {
  const cite = (whole, listed) => {
    const found = listed.split(",").map(Number);
    return found.some((n) => numbers.has(n)) ? `[${found.map((n) => numbers.get(n) ?? n).join(", ")}]` : whole;
  };
  return text
    .split(/(```[^]*?(?:```|$)|`[^`\n]*`)/)
    .map((piece, i) => (i % 2 ? piece : piece.replace(/\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\](?!\()/g, cite)))
    .join("");
}
