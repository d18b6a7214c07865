/** The developer page: a message, an agent, its prompt as it is edited; two answers side by side, each with its timeline. */

import { Answer } from "../../static/answer.js";
import { credential, Problem, read, request } from "../../static/api.js";
import { askKey, confirmKey } from "../../static/dialogs.js";
import { $, announce, button, h } from "../../static/dom.js";
import { follow, trouble } from "../../static/stream.js";
import { comparison } from "./compare.js";
import { readTimeline, timelineOf } from "./timeline.js";

const HTML = { "X-Render": "html" };
const state = {
  agents: new Map(), // by name, as the server has them
  texts: new Map(), // what is in the editor, of those that were edited
  profile: "{}", // what is known of the developer
  shown: [], // the last two turns: {turn, conversation, turnNo, label, text, sources, timeline, element}
  chosen: null, // the turn that was chosen, {id, turn_no, message}
  run: null, // what ends the following of a run
};
Answer.isRated = false; // here answers are tried, not given
const prompt = $("prompt");
const message = $("message");

// ---- what there is ----

async function start() {
  await takeKeyFromAddress();
  showIdentity();
  try {
    const there = await read("dev/agents");
    $("needs-key").hidden = true;
    $("desk").hidden = false;
    $("brand").textContent = there.name;
    $("model").textContent = there.model.offline ? "Offline: answers are quoted from the content" : there.model.name;
    document.title = `Developer page · ${there.name}`;
    state.profile = JSON.stringify(there.profile, null, 2);
    $("profile").value = state.profile;
    takeAgents(there);
    $("inputs-field").hidden = !there.inputs.length;
    $("inputs").placeholder = JSON.stringify(Object.fromEntries(there.inputs.map((name) => [name, ""])));
    await listConversations();
    await chooseFromAddress();
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    await refuse(problem);
  }
}

function takeAgents({ agents, entry }) {
  state.agents = new Map(agents.map((agent) => [agent.name, agent]));
  const before = $("which").value;
  const option = (agent) => h("option", { value: agent.name }, agent.title);
  $("agent").replaceChildren(h("option", { value: "" }, "Whoever the message is routed to"), ...agents.filter(({ name, agent }) => name === agent).map(option));
  $("which").replaceChildren(...agents.map(option));
  const first = agents.find((agent) => agent.text !== null && agent.name !== entry) ?? agents[0];
  $("which").value = state.agents.has(before) ? before : first.name;
  showPrompt();
  if (!message.value && !message.placeholder) message.placeholder = first.examples[0] ?? "Ask a question";
}

/** Who is not the developer still sees the timelines of their own turns. */
async function refuse(problem) {
  const guest = problem.status === 403 || problem.status === 401;
  $("needs-key").hidden = false;
  $("needs-key-why").textContent = guest && !credential.key ? "You are a guest here. A guest runs no prompts and saves none." : problem.message;
  if (!guest || !turnInAddress()) return;
  $("desk").hidden = false;
  $("setup").hidden = true;
  await chooseFromAddress();
}

async function listConversations() {
  const [runs, page] = await Promise.all([read("dev/runs"), read("api/conversations?limit=100")]);
  const group = (label, items) => (items.length ? h("optgroup", { label }, items.map(({ id, title }) => h("option", { value: id }, title))) : null);
  const chosen = $("conversation").value;
  $("conversation").replaceChildren(...[h("option", { value: "" }, "A new message"), group("Runs of this page", runs), group("Conversations", page.items)].filter(Boolean));
  $("conversation").value = chosen;
  if ($("conversation").selectedIndex < 0) $("conversation").value = "";
}

async function listTurns(id, turn = null) {
  const turns = id ? await read(`dev/conversations/${id}/turns`) : [];
  $("turn-field").hidden = !turns.length;
  $("turn").replaceChildren(...turns.map((one) => h("option", { value: one.id }, `${one.turn_no}. ${one.message.slice(0, 80)}`)));
  state.chosen = turns.find((one) => one.id === turn) ?? turns.at(-1) ?? null;
  if (state.chosen) $("turn").value = state.chosen.id;
  $("turn").turns = turns;
  showChosen();
}

function showChosen() {
  $("after-field").hidden = !(state.chosen?.turn_no > 1);
  if (state.chosen) message.value = state.chosen.message;
  const agent = state.chosen?.agent;
  if (agent && state.agents.has(agent) && agentOf().agent !== agent && !edited()) {
    $("which").value = agent;
    showPrompt();
  }
}

const turnInAddress = () => location.hash.match(/^#\/t\/([\w-]+)$/)?.[1] ?? null;

async function chooseFromAddress() {
  const id = turnInAddress();
  if (!id) return;
  const timeline = await readTimeline(id).catch((problem) => tell("run-error", problem.message));
  if (!timeline) return;
  const conversation = timeline.turn.conversation_id;
  await listConversations();
  if (![...$("conversation").options].some((option) => option.value === conversation)) $("conversation").append(h("option", { value: conversation }, timeline.turn.message.slice(0, 60)));
  $("conversation").value = conversation;
  await listTurns(conversation, id);
  if (state.chosen) await showTurn(state.chosen, conversation, timeline);
}

async function choose() {
  const conversation = $("conversation").value;
  if (!state.chosen) return history.replaceState(null, "", "#/");
  history.replaceState(null, "", `#/t/${state.chosen.id}`);
  await showTurn(state.chosen, conversation);
}

// ---- the prompt ----

const agentOf = () => state.agents.get($("which").value);
const edited = () => state.texts.has($("which").value);

function showPrompt() {
  const agent = agentOf();
  const own = agent.text !== null;
  prompt.value = state.texts.get(agent.name) ?? agent.text ?? "";
  prompt.disabled = !own;
  $("file").textContent = own ? agent.file : "This agent is the server's own and has no file. Write one in prompts/ to change it.";
  tell("prompt-error", "");
  showEdited();
}

function showEdited() {
  const agent = agentOf();
  if (agent.text === null || prompt.value === agent.text) state.texts.delete(agent.name);
  else state.texts.set(agent.name, prompt.value);
  $("edited").hidden = !edited();
  $("save").disabled = $("discard").disabled = !edited();
  for (const option of $("which").options) option.textContent = `${state.agents.get(option.value).title}${state.texts.has(option.value) ? " (edited)" : ""}`;
}

async function save() {
  const agent = agentOf();
  const text = prompt.value;
  tell("prompt-error", "");
  $("save").disabled = true;
  try {
    const response = await request("PUT", `dev/agents/${agent.name}`, { json: { text, version: agent.version } });
    const { version, mistakes } = await response.json();
    Object.assign(agent, { text, version });
    if (mistakes.length) tell("prompt-error", `Saved, but not taken over, for a mistake in another file: ${mistakes.join("; ")}`);
    announce(mistakes.length ? "Saved, but not taken over." : "Saved. What is asked from now on is answered by it.");
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    const [again] = problem.status === 409 ? [button("Load the file again", reload)] : [];
    tell("prompt-error", problem.message, again);
  }
  showEdited();
}

async function reload() {
  takeAgents(await read("dev/agents"));
  state.texts.delete($("which").value);
  showPrompt();
  prompt.focus();
}

// ---- a run ----

function readProfile() {
  return $("profile").value.trim() === state.profile ? null : readObject("profile");
}

function readObject(name) {
  const text = $(name).value.trim() || "{}";
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Problem(0, { detail: `${name}: is not JSON: ${error.message}` });
  }
  if (value === null || typeof value !== "object" || Array.isArray(value)) throw new Problem(0, { detail: `${name}: is no JSON object; write one, as in {"name": "Ann"}` });
  return value;
}

async function run() {
  const asked = message.value.trim() || message.placeholder;
  message.value = asked;
  tell("run-error", "");
  const label = edited() ? `${agentOf().title}, edited` : "As saved";
  let shown = null;
  try {
    const profile = readProfile();
    const json = { message: asked };
    if ($("agent").value) json.agent = $("agent").value;
    if (profile) json.profile = profile;
    if ($("inputs").value.trim()) json.inputs = readObject("inputs");
    if (edited()) json.prompt = prompt.value;
    if (state.chosen?.turn_no > 1 && $("after").checked) json.after = state.chosen.id;
    setBusy(true);
    const begun = await (await request("POST", "dev/runs", { json })).json();
    shown = present({ turn: begun.turn_id, conversation: begun.conversation_id, turnNo: begun.turn_no, label });
    await followRun(shown);
    await complete(shown);
    history.replaceState(null, "", `#/t/${shown.turn}`);
    await listConversations();
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    tell("run-error", problem.message);
    if (shown) shown.note.textContent = problem.message;
  } finally {
    setBusy(false);
  }
}

/** A place for a turn. The one that was there last stands before it. */
function present(shown) {
  shown.body = h("div", { class: "shown-answer" });
  shown.note = h("p", { class: "none" }, "Reading…");
  shown.after = h("div", {});
  shown.heading = h("h2", {}, "Now");
  shown.element = h("article", { class: "shown" }, h("header", {}, shown.heading, h("p", { class: "label" }, shown.label)), shown.body, shown.note, shown.after);
  state.shown = [...state.shown.slice(-1), shown];
  arrange();
  return shown;
}

function arrange() {
  $("none")?.remove();
  const [before, now] = state.shown;
  before.heading.textContent = now ? "Before" : "Answer";
  if (now) now.heading.textContent = "Now";
  const both = now && before.timeline && now.timeline;
  $("results").replaceChildren(...[both ? comparison(before, now) : null, h("div", { class: "pair" }, state.shown.map(({ element }) => element))].filter(Boolean));
}

async function followRun(shown) {
  const answer = new Answer(() => shown.conversation);
  shown.body.replaceChildren(answer.element);
  const open = (last) => request("GET", `api/chat/${shown.conversation}/stream`, { headers: last ? { ...HTML, "Last-Event-ID": last } : HTML, signal: state.run.signal });
  const quiet = { signal: state.run.signal, onTrouble: (problem) => answer.note(trouble(problem)), onBack: () => answer.note("") };
  for await (const chunk of follow(open, quiet)) {
    if (chunk.type === "gone") break; // it ended before it was followed
    answer.apply(chunk);
  }
}

/** Show a turn as it is stored, with its timeline. */
async function complete(shown, timeline = null) {
  const page = await read(`api/conversations/${shown.conversation}/messages?render=html&limit=50&cursor=${shown.turnNo - 1}`);
  const item = page.items.find(({ id, role }) => role === "assistant" && id === shown.turn);
  shown.text = item?.text ?? "";
  shown.sources = item?.sources ?? [];
  const answer = item ? Answer.stored(item, () => shown.conversation) : null;
  if (item?.status === "failed") answer.fail("The answer could not be finished.", item.error?.message, []);
  shown.body.replaceChildren(answer?.element ?? h("p", { class: "none" }, "There is no answer."));
  shown.timeline = timeline ?? (await readTimeline(shown.turn));
  shown.note.hidden = true;
  const acts = $("setup").hidden ? [] : [button("Save as a case", () => openCase(shown))];
  shown.after.replaceChildren(h("div", { class: "buttons" }, acts), timelineOf(shown.timeline));
  arrange();
  announce("The answer is complete.");
}

async function showTurn({ id, turn_no, created_at }, conversation, timeline = null) {
  if (state.shown.at(-1)?.turn === id) return;
  // At once: of two that are chosen one after the other, the last stands last, whichever is read first.
  const shown = present({ turn: id, conversation, turnNo: turn_no, label: new Date(created_at).toLocaleString() });
  await complete(shown, timeline).catch((problem) => { shown.note.textContent = problem.message; });
}

async function openCase(shown) {
  const { saveAsCase } = await import("./cases.js");
  await saveAsCase(shown.turn).catch((problem) => tell("run-error", problem.message));
}

function setBusy(busy) {
  if (busy) state.run = new AbortController();
  $("run").disabled = busy;
  $("run").textContent = state.shown.length || busy ? (busy ? "Running…" : "Run again") : "Run";
  $("stop").hidden = !busy;
}

async function stop() {
  const shown = state.shown.at(-1);
  if (shown) await request("POST", `api/turns/${shown.turn}/cancel`).catch((problem) => tell("run-error", problem.message));
}

/** What went wrong, "" for nothing. */
function tell(id, text, ...more) {
  $(id).replaceChildren(text, ...more);
  $(id).hidden = !text;
}

// ---- the key ----

async function takeKeyFromAddress() {
  const key = location.hash.match(/^#key=([\w.-]+)$/)?.[1];
  if (location.hash.startsWith("#key=")) history.replaceState(null, "", "#/");
  if (key && key !== credential.key && (!credential.key || (await confirmKey(key)))) credential.useKey(key, false);
}

function showIdentity() {
  const { key } = credential;
  $("identity").textContent = key ? `Key …${key.slice(-4)}` : "Guest";
  $("use-key").textContent = key ? "Change" : "Use a key";
}

async function changeKey() {
  if (await askKey("The developer's key may do all that the local user may.")) location.reload();
}

// ---- what is pressed ----

$("setup").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!state.run || !$("run").disabled) run();
});
message.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  $("setup").requestSubmit();
});
addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !$("desk").hidden) $("setup").requestSubmit();
});
prompt.addEventListener("input", showEdited);
$("profile").addEventListener("input", () => { $("profile-edited").hidden = $("profile").value.trim() === state.profile; });
$("which").addEventListener("change", showPrompt);
$("agent").addEventListener("change", () => {
  if (!$("agent").value) return;
  if (agentOf().agent !== $("agent").value) $("which").value = $("agent").value;
  showPrompt();
});
$("conversation").addEventListener("change", async () => {
  await listTurns($("conversation").value).then(choose).catch((problem) => tell("run-error", problem.message));
});
$("turn").addEventListener("change", () => {
  state.chosen = $("turn").turns.find(({ id }) => id === $("turn").value);
  showChosen();
  choose().catch((problem) => tell("run-error", problem.message));
});
$("save").addEventListener("click", save);
$("discard").addEventListener("click", () => {
  state.texts.delete($("which").value);
  showPrompt();
  prompt.focus();
});
$("stop").addEventListener("click", stop);
for (const id of ["use-key", "give-key"]) $(id).addEventListener("click", changeKey);
addEventListener("hashchange", async () => {
  if (location.hash.startsWith("#key=")) location.reload();
  else await chooseFromAddress();
});
addEventListener("beforeunload", (event) => state.texts.size && event.preventDefault());

start();
