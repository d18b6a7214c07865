/** A turn as a timeline: routing, passages, each call of a model and of a tool in their order, log lines. */

import { read } from "../../static/api.js";
import { button, copyButton, h, icon, parsed } from "../../static/dom.js";

const SHOWN = 4000; // characters of a long text; the rest is a button away
const OF_TURN = new Set(["caller", "conversation_id", "request_id"]); // the same in each line of a turn
const BY = {
  meaning: "by the meaning of the message",
  sticky: "as before in the conversation",
  model: "by choice of the model",
  only: "as the only agent",
  request: "as asked for",
};

/** The timeline as `GET dev/turns/{id}?requests=false` gives it; what a model was sent is read when it is opened. */
export function timelineOf(timeline) {
  const { turn, routing, passages, model_calls: models, tool_calls: tools, log } = timeline;
  return h("div", { class: "timeline" },
    summary(timeline),
    routing ? section("Routing", routingOf(routing)) : null,
    section(`Passages (${passages.length})`, passages.length ? h("ul", { class: "steps" }, passages.map(passageOf)) : none("None were looked up.")),
    section(`Calls (${models.length} of models, ${tools.length} of tools)`, models.length + tools.length ? steps(turn, models, tools) : none("None are kept.")),
    section(`Log (${log.length})`, log.length ? h("ul", { class: "log-lines", tabindex: "0" }, log.map(lineOf)) : none("No lines are kept. This process keeps the last 2,000 lines about turns.")),
  );
}

export async function readTimeline(turn) {
  return read(`dev/turns/${turn}?requests=false`);
}

export function secondsOf({ created_at, finished_at }) {
  return finished_at ? (Date.parse(finished_at) - Date.parse(created_at)) / 1000 : null;
}

const number = (value) => value.toLocaleString("en");
export const seconds = (value) => (value === null || value === undefined ? null : value < 0.0995 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(value < 10 ? 1 : 0)} s`);
const none = (text) => h("p", { class: "none" }, text);

function section(title, content) {
  return h("section", { "aria-label": title }, h("h3", {}, title), content);
}

function summary({ turn }) {
  const { usage } = turn;
  const tokens = usage?.total_tokens ? `${number(usage.input_tokens)} in, ${number(usage.output_tokens)} out` : null;
  return facts([
    ["Message", turn.message],
    ["Status", turn.error ? `${turn.status}: ${turn.error.code}: ${turn.error.message}` : turn.status],
    ["Agent", turn.agent],
    ["Tokens", tokens],
    ["Time", seconds(secondsOf(turn))],
    ["Turn", turn.id],
  ]);
}

function facts(pairs) {
  return h("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, long(String(value)))]));
}

function routingOf({ agent, confidence, decided_by, ranked }) {
  const list = ranked.length ? ranked : [{ name: agent, confidence }];
  return h("div", {},
    h("p", {}, `${agent}, ${BY[decided_by] ?? decided_by}`),
    h("ol", { class: "ranked" }, list.map(({ name, confidence: value }) => h("li", { "aria-current": name === agent ? "true" : null }, h("span", {}, name), bar(0, value), h("span", { class: "figure" }, value.toFixed(2))))),
  );
}

/** A bar from one part of the whole to another. It repeats a figure that stands beside it. */
function bar(from, to) {
  const fill = h("i", {});
  fill.style.insetInlineStart = `${Math.min(from, 1) * 100}%`;
  fill.style.inlineSize = `${Math.max(Math.min(to, 1) - from, 0.005) * 100}%`;
  return h("span", { class: "bar-of", "aria-hidden": "true" }, fill);
}

function passageOf({ citation, document, heading, score, text }) {
  return folded(
    [h("span", { class: "n" }, String(citation)), h("span", { class: "what" }, heading || document), h("span", { class: "figure" }, score === null ? "" : `score ${score.toFixed(2)}`)],
    () => [document ? h("p", { class: "path" }, document) : null, long(text)],
  );
}

/** Each call of a model, and behind it those of tools that it asked for. */
function steps(turn, models, tools) {
  const asked = new Map(tools.map((tool) => [tool.call_id, tool]));
  const began = Date.parse(turn.created_at);
  const whole = Math.max(secondsOf(turn) ?? 0, ...models.map((call) => (Date.parse(call.started_at) - began) / 1000 + (call.seconds ?? 0) || 0));
  const items = [];
  for (const call of models) {
    items.push(modelCall(turn.id, call, began, whole));
    for (const { type, call_id: id } of call.output) {
      if (type !== "function_call" || !asked.has(id)) continue;
      items.push(toolCall(asked.get(id)));
      asked.delete(id);
    }
  }
  items.push(...[...asked.values()].map(toolCall));
  return h("ol", { class: items.length > 12 ? "steps many" : "steps" }, items);
}

function modelCall(turn, call, began, whole) {
  const from = call.started_at && whole ? Math.max(Date.parse(call.started_at) - began, 0) / 1000 / whole : 0;
  const tokens = call.input_tokens === null ? null : `${number(call.input_tokens)} in, ${number(call.output_tokens)} out`;
  const first = call.first_text_seconds === null ? null : `first words ${seconds(call.first_text_seconds)}`;
  const figures = [tokens, seconds(call.seconds), first].filter(Boolean).join(" · ");
  return folded(
    [h("span", { class: "kind" }, `Model ${call.no}`), h("span", { class: "what" }, `${call.agent} · ${call.model}`), h("span", { class: "figure" }, figures), call.seconds !== null && whole ? bar(from, from + call.seconds / whole) : null],
    () => {
      const sent = h("div", { class: "sent" }, h("p", { class: "none" }, "Reading what was sent…"));
      fill(sent, turn, call.no);
      return [h("h4", {}, "Answer"), call.output.length ? call.output.map(itemOf) : none("None is kept."), sent, facts([["Prompt", call.prompt_sha], ["Began", call.started_at]])];
    },
  );
}

async function fill(place, turn, no) {
  try {
    place.replaceChildren(...requestOf(await read(`dev/turns/${turn}/calls/${no}`)));
  } catch (problem) {
    place.replaceChildren(h("p", { class: "form-error" }, problem.message), button("Try again", () => fill(place, turn, no)));
  }
}

function requestOf({ instructions, input, tools, settings, is_exact }) {
  return [
    is_exact === false ? h("p", { class: "form-error" }, "This is rebuilt, and differs from what was sent then.") : null,
    h("h4", {}, "Prompt as sent"),
    long(instructions || "(empty)"),
    h("h4", {}, `Messages (${input.length})`),
    input.length ? input.map(itemOf) : none("None."),
    h("h4", {}, `Tools (${tools.length})`),
    tools.length ? h("ul", { class: "steps" }, tools.map((tool) => folded([h("span", { class: "what" }, tool.function?.name ?? tool.name ?? "tool"), h("span", { class: "gist" }, tool.function?.description ?? "")], () => [json(tool)]))) : none("None."),
    h("h4", {}, "Settings"),
    json(settings),
  ].flat().filter(Boolean);
}

/** A message, a call or its output, in the form of either API. */
function itemOf(item) {
  const calls = item.tool_calls ?? (item.type === "function_call" ? [item] : []);
  const role = item.role ?? { function_call: "assistant", function_call_output: "tool", reasoning: "thoughts" }[item.type] ?? item.type;
  const content = item.content ?? item.output ?? (item.type === "reasoning" ? item.summary : null);
  return h("div", { class: "item" },
    h("p", { class: "role" }, role),
    content === null || content === undefined || content.length === 0 ? null : long(textOf(content)),
    calls.map((call) => h("div", {}, h("p", { class: "path" }, `calls ${call.function?.name ?? call.name}`), value(call.function?.arguments ?? call.arguments))),
  );
}

function textOf(content) {
  if (typeof content === "string") return content;
  if (Array.isArray(content) && content.every((part) => typeof part?.text === "string")) return content.map((part) => part.text).join("\n\n");
  return JSON.stringify(content, null, 2);
}

function toolCall(tool) {
  const state = tool.error === null ? (tool.output === null ? "no result" : "done") : "failed";
  return folded(
    [h("span", { class: "kind tool-kind" }, "Tool"), h("span", { class: "what" }, tool.name), h("span", { class: `figure ${state}` }, [state, seconds(tool.seconds)].filter(Boolean).join(" · "))],
    () => [h("h4", {}, "Arguments"), value(tool.arguments), h("h4", {}, tool.error === null ? "Result" : "Error"), value(tool.error ?? tool.output)],
  );
}

function lineOf({ at, level, event, fields }) {
  const rest = Object.entries(fields).filter(([name]) => !OF_TURN.has(name)).map(([name, given]) => `${name}=${typeof given === "string" ? given : JSON.stringify(given)}`).join(" ");
  return h("li", { class: `level-${["warning", "error", "critical"].includes(level) ? "bad" : "plain"}` }, h("span", { class: "figure" }, new Date(at).toISOString().slice(11, 23)), ` ${level} `, h("b", {}, event), " ", long(rest, 500));
}

function value(data) {
  const read = typeof data === "string" ? parsed(data) : data;
  return read !== null && typeof read === "object" ? json(read) : long(String(data ?? "none"));
}

function json(data) {
  return long(JSON.stringify(data, null, 2), SHOWN, "ltr");
}

/** A text as it is. Of a long one the beginning, and a button for all of it. */
function long(text, most = SHOWN, dir = "auto") {
  if (text.length <= most && !text.includes("\n")) return h("span", { class: "as-is", dir }, text);
  const pre = h("pre", { class: "as-is", dir, tabindex: "0" }, text.slice(0, most));
  const copy = copyButton("Copy", () => text);
  const more = text.length > most ? button(`Show all ${number(text.length)} characters`, () => { pre.textContent = text; more.remove(); pre.focus(); }, "quiet") : null;
  return h("div", { class: "long" }, pre, h("div", { class: "long-foot" }, more, copy));
}

/** An item that opens. What it holds is made when it is opened first: a turn may hold a hundred times what is looked at. */
function folded(head, body) {
  const details = h("details", {}, h("summary", {}, icon("right"), head));
  details.addEventListener("toggle", () => details.append(h("div", { class: "step-body" }, body().flat())), { once: true });
  return h("li", {}, details);
}
