/** The page: which conversation is shown, what is being answered, what is typed. */

import { Answer, question } from "./answer.js";
import { credential, Problem, read, request, uniqueKey } from "./api.js";
import { Conversations } from "./conversations.js";
import { askKey, confirmKey } from "./dialogs.js";
import { $, announce, h, icon } from "./dom.js";
import { Scroll } from "./scroll.js";
import { follow } from "./stream.js";

const narrow = matchMedia("(max-width: 52rem)");
const state = {
  page: { name: "Chat", model: null, message_limit: 2000, suggestions: [] },
  id: null, // of the conversation that is shown; null for a new one
  run: null, // the answer that is being followed: {answer, abort, stopping}
};
const conversations = new Conversations({
  onDeleted: (id) => id === state.id && go(null),
  onRenamed: (id) => id === state.id && showTitle(),
});
const scroll = new Scroll($("scroll"), $("log"), $("latest"));
const message = $("message");

// ---- conversations ----

const address = (id) => (id ? `#/c/${id}` : "#/");
const idInAddress = () => location.hash.match(/^#\/c\/([\w-]+)$/)?.[1] ?? null;

function go(id) {
  if (idInAddress() === id) return show(id);
  location.hash = address(id); // hashchange shows it
}

/** Show a conversation as it is stored, and follow its answer if one is being written. */
async function show(id) {
  leave();
  state.id = id;
  conversations.select(id);
  $("log").replaceChildren();
  $("empty").hidden = id !== null;
  showTitle();
  setDrawer(false);
  if (!narrow.matches) message.focus();
  if (!id) return;
  try {
    const messages = await readMessages(id);
    if (state.id !== id) return;
    $("log").replaceChildren(...messages.flatMap((item, i) => stored(item, messages[i - 1])));
    scroll.toEnd();
    await attach(id, messages);
  } catch (problem) {
    if (state.id !== id) return;
    if (isOldGuest(problem)) await becomeNewGuest();
    else failOn(new Answer(() => id), problem, () => show(id));
  }
}

async function readMessages(id) {
  const items = [];
  for (let cursor = ""; cursor !== null; ) {
    const page = await read(`api/conversations/${id}/messages?render=html&limit=200${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
    items.push(...page.items);
    cursor = page.next_cursor;
  }
  return items;
}

/** The elements of a stored message; what is still being written comes with the stream. */
function stored(item, before) {
  if (item.role === "user") return [question(item.text)];
  if (isOpen(item)) return [];
  const answer = Answer.stored(item, () => state.id);
  if (item.status === "failed") answer.fail(TITLES.answer, item.error?.message, before ? [retryButton(() => ask(before.text))] : []);
  return [answer.element];
}

const isOpen = (item) => item.status === "running" || item.status === "queued";

async function attach(id, messages) {
  const response = await resume(id, null);
  if (state.id !== id) return;
  const said = messages.findLast((item) => item.role === "user");
  if (response) {
    let first = response;
    return listen((_, lastId) => {
      const opened = first ?? resume(id, lastId);
      first = null;
      return opened;
    }, () => ask(said.text));
  }
  // It ended between the two requests, or waits for another one to end.
  if (messages.length && isOpen(messages.at(-1))) setTimeout(() => state.id === id && !state.run && show(id), 1500);
}

function leave() {
  state.run?.abort.abort();
  state.run = null;
  setBusy(false);
}

function showTitle() {
  const title = state.id ? (conversations.title(state.id) ?? "Conversation") : "New conversation";
  $("title").textContent = title;
  document.title = `${title} · ${state.page.name}`;
}

// ---- asking ----

const HTML = { "X-Render": "html" };

function resume(id, lastId) {
  const headers = lastId ? { ...HTML, "Last-Event-ID": lastId } : HTML;
  return request("GET", `api/chat/${id}/stream`, { headers, signal: state.run?.abort.signal });
}

/** Send a message. A repeat of the same send has the same `key`, so that it is answered once. */
async function ask(text, key = uniqueKey()) {
  $("empty").hidden = true;
  const asked = question(text);
  $("log").append(asked);
  const send = async (run, lastId) => {
    if (lastId) return resume(state.id, lastId);
    const response = await request("POST", "api/chat", {
      json: state.id ? { id: state.id, message: text } : { message: text },
      headers: { ...HTML, "Idempotency-Key": key },
      signal: run.abort.signal,
    });
    started(response.headers.get("X-Conversation-Id"), text);
    if (run.stopping) stop();
    return response;
  };
  await listen(send, (answer) => {
    asked.remove();
    answer.element.remove();
    return ask(text, answer.accepted ? uniqueKey() : key);
  }, text);
}

/** The server has the message: from here on it is a conversation with an address. */
function started(id, text) {
  if (state.run) state.run.answer.accepted = true;
  if (!id) return;
  const known = conversations.title(id);
  state.id = id;
  history.replaceState(null, "", address(id));
  conversations.put(id, known ?? (text.length > 60 ? `${text.slice(0, 59)}…` : text));
  showTitle();
}

/** Follow an answer to its end. `open(run, lastId)` gives its stream, `again(answer)` asks once more. */
async function listen(open, again, text = "") {
  const answer = new Answer(() => state.id);
  const run = { answer, abort: new AbortController(), stopping: false };
  state.run = run;
  $("log").append(answer.element);
  setBusy(true);
  scroll.toEnd();
  announce("Answering.");
  try {
    const onTrouble = () => answer.note("Connection lost, trying again");
    let failure = null;
    for await (const chunk of follow((lastId) => open(run, lastId), { signal: run.abort.signal, onTrouble })) {
      if (state.run !== run) return;
      if (chunk.type === "gone") return show(state.id); // it ended while we were away: show it as it is stored
      if (chunk.type === "error") failure = chunk.errorText;
      answer.apply(chunk);
    }
    if (failure !== null) return failOn(answer, new Problem(500, { detail: failure }), again && (() => again(answer)));
    answer.finish();
    announce(answer.element.querySelector(".stopped") ? "Stopped." : `${answer.agent ?? "The assistant"} has answered.`);
  } catch (problem) {
    if (state.run === run) await recover(answer, problem, again, text);
  } finally {
    if (state.run === run) leave();
    conversations.load().then(showTitle, () => {}); // the server has named it, and it is the latest now
  }
}

/** A guest whose session has ended goes on as a new one; anything else is shown. */
async function recover(answer, problem, again, text) {
  if (isOldGuest(problem)) {
    await becomeNewGuest();
    return text ? ask(text) : undefined;
  }
  const accepted = answer.accepted && problem.status === 0;
  return failOn(answer, problem, accepted ? () => show(state.id) : again && (() => again(answer)), text);
}

const isOldGuest = (problem) => problem.status === 401 && !credential.key && credential.token !== null;

async function becomeNewGuest() {
  credential.forgetGuest();
  history.replaceState(null, "", address(null));
  await Promise.all([conversations.load(), show(null)]);
  tell("Your guest session has ended, and with it what was said in it. This is a new one.");
}

function tell(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

const TITLES = {
  answer: "The answer could not be finished.",
  0: "There is no connection to the server.",
  401: "The key was not accepted.",
  403: "This is not allowed.",
  404: "This conversation is not here.",
  409: "This could not be sent now.",
  413: "The message is too long.",
  422: "The message was not accepted.",
  429: "That was a lot at once.",
  503: "The server is busy.",
};

function failOn(answer, problem, again, text = "") {
  const actions = [];
  if (problem.status === 401) actions.push(button("Use another key", changeKey));
  else if (problem.status === 404) actions.push(button("New conversation", () => go(null)));
  else if (text && [403, 409, 413, 422].includes(problem.status)) actions.push(button("Edit the message", () => edit(answer, text)));
  else if (again) actions.push(retryButton(again, problem.retryAfter));
  const title = TITLES[problem.status] ?? TITLES.answer;
  const detail = problem.status === 0 ? "Your message is kept. Try again when the connection is back." : problem.message;
  if (!answer.element.isConnected) $("log").append(answer.element);
  answer.fail(title, problem.reference && problem.status >= 500 ? `${detail} (${problem.reference})` : detail, actions);
  announce(title);
  scroll.toEnd();
}

function button(label, act) {
  return h("button", { class: "plain-button", type: "button", onclick: act }, label);
}

function edit(answer, text) {
  answer.element.previousElementSibling?.remove();
  answer.element.remove();
  message.value = text;
  typed();
  message.focus();
}

/** Where the server says how long to wait, the button counts down. */
function retryButton(again, seconds) {
  const retry = button("Try again", () => {
    again();
    message.focus();
  });
  const count = (left) => {
    retry.disabled = left > 0;
    retry.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
    if (left > 0) setTimeout(count, 1000, left - 1);
  };
  if (seconds) count(Math.min(seconds, 300));
  return retry;
}

async function stop() {
  state.run.stopping = true;
  $("stop").disabled = true;
  if (!state.id) return; // sent as soon as the conversation has an id
  try {
    await request("POST", `api/chat/${state.id}/stop`);
  } catch (problem) {
    $("stop").disabled = false;
    announce(`Not stopped. ${problem.message}`);
  }
}

function setBusy(busy) {
  const focused = document.activeElement === $("stop") || document.activeElement === $("send");
  $("log").setAttribute("aria-busy", busy);
  $("send").hidden = busy;
  $("stop").hidden = !busy;
  $("stop").disabled = false;
  if (focused) message.focus(); // the button that had the focus is no longer there
}

// ---- typing ----

function typed() {
  const length = [...message.value].length;
  const limit = state.page.message_limit;
  const over = length > limit;
  $("counter").textContent = over ? `${length - limit} over the limit of ${limit}` : length > limit * 0.8 ? `${limit - length} left` : "";
  $("counter").classList.toggle("over", over);
  $("send").disabled = over || !message.value.trim();
  if (over) message.setAttribute("aria-invalid", "true");
  else message.removeAttribute("aria-invalid");
  if (!CSS.supports("field-sizing", "content")) {
    message.style.height = "auto";
    message.style.height = `${message.scrollHeight}px`;
  }
}

function submit() {
  if ($("send").disabled || state.run) return;
  const text = message.value.trim();
  message.value = "";
  typed();
  message.focus();
  ask(text);
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
message.addEventListener("input", typed);
message.addEventListener("keydown", (event) => {
  // keyCode 229: Safari ends a composition before the Enter that chose the word.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  submit();
});
$("stop").addEventListener("click", stop);
$("skip").addEventListener("click", () => message.focus());

// ---- drawer, key ----

function setDrawer(open) {
  const shown = open && narrow.matches;
  document.body.classList.toggle("drawer-open", shown);
  $("drawer").inert = narrow.matches && !shown;
  $("main").inert = shown;
  $("scrim").hidden = !shown;
  $("menu").setAttribute("aria-expanded", shown);
  if (shown) $("new").focus();
}

function closeDrawer() {
  if (!document.body.classList.contains("drawer-open")) return;
  setDrawer(false);
  $("menu").focus();
}

function showIdentity() {
  const { key } = credential;
  $("identity").textContent = key ? `Key …${key.slice(-4)}` : "Guest";
  $("use-key-label").textContent = key ? "Change" : "Use a key";
}

async function changeKey() {
  if (await askKey()) await useOtherKey();
}

/** Another key is another person: nothing of what is shown belongs to them. */
async function useOtherKey() {
  showIdentity();
  tell("");
  go(null);
  await refresh();
}

async function refresh() {
  try {
    await conversations.load();
  } catch (problem) {
    if (isOldGuest(problem)) return becomeNewGuest();
    tell(problem.status === 401 ? TITLES[401] : problem.message);
  }
  showTitle();
}

$("menu").addEventListener("click", () => setDrawer(true));
$("scrim").addEventListener("click", closeDrawer);
$("list").addEventListener("click", (event) => event.target.closest("a") && closeDrawer());
addEventListener("keydown", (event) => event.key === "Escape" && closeDrawer());
narrow.addEventListener("change", () => setDrawer(false));
$("use-key").addEventListener("click", changeKey);
for (const id of ["new", "new-too"]) {
  $(id).addEventListener("click", () => {
    closeDrawer();
    go(null);
    message.focus();
  });
}

// ---- start ----

/** Whether a key of the address is used from now on. Anybody can make such a link. */
async function takeKeyFromAddress(about) {
  const key = location.hash.match(/^#key=([\w.-]+)$/)?.[1];
  if (location.hash.startsWith("#key=")) history.replaceState(null, "", address(state.id));
  if (!key || key === credential.key) return false;
  const page = await about;
  const mine = LOOPBACK.test(location.hostname) && page?.development && !credential.key;
  if (!mine && !(await confirmKey(key))) return false;
  credential.useKey(key, false);
  return true;
}

const LOOPBACK = /^(localhost|127(\.\d+){3}|\[::1\])$/;

function showPage() {
  const { name, model, suggestions } = state.page;
  const offline = model?.offline;
  $("brand").textContent = name;
  $("greeting").textContent = name;
  $("greeting-note").textContent = offline ? "Ask, and the answer is quoted from the content, with its sources." : "Ask, and the specialist for your question answers, with sources.";
  $("note").textContent = offline ? "Offline: answers are quoted from the content." : model ? "Answers can be wrong: check the sources." : "";
  $("note").classList.toggle("offline", Boolean(offline));
  $("suggestions").replaceChildren(...suggestions.map((text) => h("li", {}, h("button", { type: "button", onclick: () => { ask(text); message.focus(); } }, text, icon("up")))));
  typed();
  showTitle();
}

async function start() {
  for (const place of document.querySelectorAll("[data-icon]")) place.replaceWith(icon(place.dataset.icon));
  showIdentity();
  setDrawer(false);
  const about = read("api/page").catch(() => null);
  about.then((page) => { state.page = page ?? state.page; showPage(); });
  await takeKeyFromAddress(about);
  showIdentity();
  await refresh();
  addEventListener("hashchange", async () => {
    if (await takeKeyFromAddress(about)) return useOtherKey();
    tell("");
    if (idInAddress() !== state.id) show(idInAddress());
  });
  await show(idInAddress());
}

start();
