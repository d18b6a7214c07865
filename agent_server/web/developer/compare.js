/** Two answers side by side, and what is different. */

import { h } from "../../static/dom.js";
import { seconds, secondsOf } from "./timeline.js";

const MOST = 4_000_000; // pairs of words that are compared; beyond it the middle is shown as exchanged

const MOST_CALLS = 5; // that are named

/** `[{kind: "same" | "gone" | "new", text}]`, by words. */
export function diffWords(before, now) {
  const a = wordsOf(before);
  const b = wordsOf(now);
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const parts = [];
  const add = (kind, words) => {
    if (!words.length) return;
    if (parts.at(-1)?.kind === kind) parts.at(-1).text += words.join("");
    else parts.push({ kind, text: words.join("") });
  };
  add("same", a.slice(0, start));
  middle(a.slice(start, a.length - end), b.slice(start, b.length - end), add);
  add("same", a.slice(a.length - end));
  return parts;
}

// With the space behind it: else single spaces would count as what two texts have in common.
const wordsOf = (text) => text.match(/^\s+|\S+\s*/g) ?? [];

/** The longest common words of both, by the table of all pairs. */
function middle(a, b, add) {
  if (a.length * b.length > MOST || !a.length || !b.length) {
    add("gone", a);
    add("new", b);
    return;
  }
  const width = b.length + 1;
  const table = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--)
    for (let k = b.length - 1; k >= 0; k--)
      table[i * width + k] = a[i] === b[k] ? table[(i + 1) * width + k + 1] + 1 : Math.max(table[(i + 1) * width + k], table[i * width + k + 1]);
  let i = 0;
  let k = 0;
  while (i < a.length && k < b.length) {
    if (a[i] === b[k]) add("same", [a[i++]]), k++;
    else if (table[(i + 1) * width + k] >= table[i * width + k + 1]) add("gone", [a[i++]]);
    else add("new", [b[k++]]);
  }
  add("gone", a.slice(i));
  add("new", b.slice(k));
}

/** What is different between two shown turns, in words: colours repeat what `del` and `ins` say. */
export function comparison(before, now) {
  const rows = [
    ["Answered by", before.timeline.turn.agent, now.timeline.turn.agent],
    ["Status", before.timeline.turn.status, now.timeline.turn.status],
    ["Tools", callsOf(before), callsOf(now)],
    ["Cited", citedIn(before), citedIn(now)],
    ["Tokens", tokensOf(before), tokensOf(now)],
    ["Time", seconds(secondsOf(before.timeline.turn)), seconds(secondsOf(now.timeline.turn))],
  ];
  const parts = diffWords(before.text, now.text);
  const same = parts.every(({ kind }) => kind === "same");
  return h("section", { class: "comparison", "aria-label": "Differences" },
    h("h2", {}, "Differences"),
    h("div", { class: "table" }, h("table", {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, h("span", { class: "sr" }, "What")), h("th", { scope: "col" }, "Before"), h("th", { scope: "col" }, "Now"))),
      h("tbody", {}, rows.map(([name, a, b]) => h("tr", { class: a === b || name === "Time" ? null : "differs" }, h("th", { scope: "row" }, name), cell(a), cell(b)))),
    )),
    same
      ? h("p", { class: "none" }, "The texts are the same.")
      : h("p", { class: "diff" }, parts.map(({ kind, text }) => (kind === "same" ? text : h(kind === "gone" ? "del" : "ins", {}, text)))),
  );
}

const cell = (text) => h("td", {}, h("span", {}, text ?? "none"));

function callsOf({ timeline }) {
  const calls = timeline.tool_calls.map(({ name, arguments: given, error }) => `${name} ${shorten(JSON.stringify(given ?? {}))}${error === null ? "" : " failed"}`);
  const more = calls.length - MOST_CALLS;
  return [...calls.slice(0, MOST_CALLS), ...(more > 0 ? [`${more} more`] : [])].join(", ") || "none";
}

const shorten = (text) => (text.length > 120 ? `${text.slice(0, 119)}…` : text);
const citedIn = ({ sources }) => [...new Set(sources.map((source) => source.document))].join(", ") || "none";

function tokensOf({ timeline }) {
  const { usage } = timeline.turn;
  return usage?.total_tokens ? `${usage.input_tokens} in, ${usage.output_tokens} out` : "none";
}
