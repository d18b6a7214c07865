/** The page: which conversation is shown, what is being answered, what is typed. */

import { Answer, question } from "./answer.js";
import { credential, Problem, read, request, uniqueKey } from "./api.js";
import { Conversations } from "./conversations.js";
import { askKey, confirmKey } from "./dialogs.js";
import { $, announce, button, h, icon } from "./dom.js";
import { Queue } from "./queue.js";
import { Scroll } from "./scroll.js";
import { follow, keepTrying, mayPass, trouble } from "./stream.js";
import { tellTabs, watch } from "./tabs.js";

const narrow = matchMedia("(max-width: 52rem)");
const state = {
  page: { name: "Chat", model: null, message_limit: 2000, suggestions: [] },
  id: null, // of the conversation that is shown; null for a new one
  run: null, // the answer that is being followed: {answer, abort, stopping, key}
  visit: new AbortController(), // ends when another conversation is shown
  shown: null, // what is to come before anything is sent
  seen: null, // when what is shown was last changed, as the list has it
};
const answers = new Map(); // those that are shown, by their turn
const unseen = new Map(); // conversations that are answered without being shown -> what ends that
const conversations = new Conversations({
  onChanged: () => tellTabs(),
  onDeleted: (id) => { queue.forget(id); if (id === state.id) go(null); },
  onRenamed: (id) => id === state.id && showTitle(),
});
const queue = new Queue({ onNow: answerNow, onBack: takeBack });
const scroll = new Scroll($("scroll"), $("log"), $("latest"), () => inLog(".question").at(-1));
const message = $("message");
const inLog = (selector) => [...$("log").querySelectorAll(selector)];
// For as long as the page is open.
const ALWAYS = { signal: new AbortController().signal, onTrouble: (problem) => showLink(problem), onBack: () => showLink(null) };

// ---- conversations ----

const address = (id) => (id ? `#/c/${id}` : "#/");
const idInAddress = () => location.hash.match(/^#\/c\/([\w-]+)$/)?.[1] ?? null;

function go(id) {
  if (idInAddress() === id) return show(id);
  location.hash = address(id); // hashchange shows it
}

/** Show a conversation as it is stored, and follow its answer if one is being written. */
async function show(id) {
  leave(id);
  unseen.get(id)?.abort();
  state.visit = new AbortController();
  state.shown = null;
  const { signal } = state.visit;
  state.id = id;
  conversations.select(id);
  answers.clear();
  $("log").replaceChildren();
  $("empty").hidden = id !== null;
  queue.show(id);
  showTitle();
  setDrawer(false);
  if (!narrow.matches) message.focus();
  if (!id) return;
  try {
    const messages = await (state.shown = keepTrying(() => readMessages(id), { ...ALWAYS, signal }));
    if (signal.aborted) return;
    merge(messages);
    scroll.toEnd();
    await attach(id, messages);
  } catch (problem) {
    if (signal.aborted) return;
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
  state.seen = conversations.changedAt(id);
  return items;
}

const turnOf = (item) => item.id.split(".")[0];
const isOpen = (item) => item.status === "running" || item.status === "queued";

/** Add what is not shown yet, and bring the rest up to date. What is still being written comes with the stream. */
function merge(messages) {
  const there = new Set(inLog("[data-turn]").map((element) => element.dataset.turn));
  for (const [i, item] of messages.entries()) {
    const turn = turnOf(item);
    if (item.role === "user") {
      if (!there.has(turn)) place(question(item.text, turn), turn);
    } else if (answers.has(turn)) answers.get(turn).refresh(item);
    else if (!isOpen(item)) {
      const answer = Answer.stored(item, () => state.id);
      if (item.status === "failed") {
        const asked = messages[i - 1];
        answer.fail(TITLES.answer, item.error?.message, asked && item === messages.at(-1) ? [retryButton(() => ask(asked.text))] : []);
      }
      keep(answer);
      place(answer.element, turn);
    }
  }
}

/** Behind what is shown of its turn, else at the end. */
function place(element, turn) {
  const last = inLog(`[data-turn="${turn}"]`).at(-1);
  if (last) last.after(element);
  else $("log").append(element);
}

function keep(answer) {
  if (answer.turn) answers.set(answer.turn, answer);
}

async function attach(id, messages) {
  if (messages.length && !messages.some(isOpen)) return answerNext();
  const { signal } = state.visit;
  const response = await resume(id, null, signal);
  if (signal.aborted) return;
  const said = messages.findLast((item) => item.role === "user");
  if (response) {
    let first = response;
    return listen((_, lastId) => {
      const opened = first ?? resume(id, lastId, state.run.abort.signal);
      first = null;
      return opened;
    }, () => ask(said.text));
  }
  // It ended between the two requests, or waits for another one to end.
  if (messages.length) setTimeout(() => signal.aborted || sync(id), 1500);
  else answerNext();
}

/** Show what another tab or device has done to the conversation that is shown. */
async function sync(id = state.id) {
  const { signal } = state.visit;
  if (!id || id !== state.id) return;
  if (state.run) return void (state.run.changed = true);
  try {
    const messages = await readMessages(id);
    if (signal.aborted || state.run) return;
    const turns = new Set(messages.map(turnOf));
    const replaced = inLog("[data-turn]").some((element) => !turns.has(element.dataset.turn));
    if (replaced) return show(id);
    merge(messages);
    if (messages.some(isOpen)) await attach(id, messages);
  } catch (problem) {
    if (signal.aborted) return;
    if (mayPass(problem)) throw problem;
    if (problem.status !== 404) return;
    history.replaceState(null, "", address(null));
    await show(null);
    tell("This conversation was deleted.");
  }
}

/** Look for changes. With the id of a conversation another tab has told of it. */
async function look(id) {
  if (!credential.token) return;
  await conversations.load();
  showTitle();
  const waits = $("log").querySelector("form, .confirmation button");
  if (id ? id === state.id : waits || state.seen !== conversations.changedAt(state.id)) await sync();
}

/** Say that there is no connection, and when it is back say nothing. */
function showLink(problem) {
  const text = problem && !state.run ? trouble(problem) : "";
  if ($("link").textContent === text) return;
  $("link").textContent = text;
  $("link").hidden = !text;
}

function leave(next) {
  const { id, run } = state;
  state.visit.abort();
  run?.abort.abort();
  state.run = null;
  setBusy(false);
  if (id && id !== next && queue.next(id)) answerUnseen(id);
}

function showTitle() {
  const title = state.id ? (conversations.title(state.id) ?? "Conversation") : "New conversation";
  $("title").textContent = title;
  document.title = `${title} · ${state.page.name}`;
}

// ---- asking ----

const HTML = { "X-Render": "html" };

function resume(id, lastId, signal) {
  const headers = lastId ? { ...HTML, "Last-Event-ID": lastId } : HTML;
  return request("GET", `api/chat/${id}/stream`, { headers, signal });
}

/** The stream of the answer to a message. A repeat of the same send has the same key, so that it is answered once. */
function send(id, text, key, signal) {
  const json = id ? { id, message: text } : { message: text };
  return request("POST", "api/chat", { json, headers: { ...HTML, "Idempotency-Key": key }, signal });
}

async function ask(text, key = uniqueKey()) {
  $("empty").hidden = true;
  dropOldButtons();
  queue.send(key);
  const asked = question(text);
  $("log").append(asked);
  const open = async (run, lastId) => {
    if (lastId) return resume(state.id, lastId, run.abort.signal);
    const response = await send(state.id, text, key, run.abort.signal);
    const turn = response.headers.get("X-Turn-Id");
    // It may be shown already: this page sent it while another conversation was shown.
    for (const element of inLog(`[data-turn="${turn}"]`)) if (element !== asked && element !== run.answer.element) element.remove();
    asked.dataset.turn = run.answer.turn = turn;
    started(response.headers.get("X-Conversation-Id"), text);
    queue.drop(key);
    if (run.stopping) stop();
    return response;
  };
  const again = (answer) => {
    asked.remove();
    answer.element.remove();
    return ask(text, answer.accepted ? uniqueKey() : key);
  };
  await listen(open, again, text, key);
}

/** The server has the message: from here on it is a conversation with an address. */
function started(id, text) {
  if (state.run) state.run.answer.accepted = true;
  if (!id) return;
  const known = conversations.title(id);
  state.id = id;
  queue.move(id);
  history.replaceState(null, "", address(id));
  conversations.put(id, known ?? (text.length > 60 ? `${text.slice(0, 59)}…` : text));
  showTitle();
  tellTabs(id);
}

/** Follow an answer to its end. `open(run, lastId)` gives its stream, `again(answer)` asks once more. */
async function listen(open, again, text = "", key = null) {
  const answer = new Answer(() => state.id);
  const run = { answer, abort: new AbortController(), stopping: false, text, key };
  state.run = run;
  $("log").append(answer.element);
  setBusy(true);
  showLink(null);
  scroll.toEnd();
  announce("Answering.");
  let whole = false;
  try {
    const onTrouble = (problem) => {
      if (!run.trouble) announce(trouble(problem));
      run.trouble = true;
      answer.note(trouble(problem));
    };
    const onBack = () => {
      run.trouble = false;
      answer.note("");
    };
    let failure = null;
    let stopped = false;
    for await (const chunk of follow((lastId) => open(run, lastId), { signal: run.abort.signal, onTrouble, onBack })) {
      if (state.run !== run) return;
      if (chunk.type === "gone") return show(state.id); // it ended while we were away: show it as it is stored
      if (chunk.type === "error") failure = chunk.errorText;
      stopped ||= chunk.type === "abort";
      answer.apply(chunk);
    }
    keep(answer);
    if (failure !== null) return failOn(answer, new Problem(500, { detail: failure }), again && (() => again(answer)));
    answer.finish();
    whole = !stopped || run.hurry;
    announce(stopped ? "Stopped." : `${answer.agent ?? "The assistant"} has answered.`);
  } catch (problem) {
    if (state.run === run) await recover(answer, problem, again, text);
  } finally {
    if (state.run === run) {
      queue.drop(key);
      if (!whole) queue.hold(state.id);
      state.run = null;
      setBusy(false);
      if (key) tellTabs(state.id);
      conversations.load().then(showTitle, () => {}); // the server has named it, and it is the latest now
      answerNext();
      if (run.changed) sync().catch(() => {});
    }
  }
}

// ---- messages that wait ----

function answerNext() {
  const item = state.run ? null : queue.next(state.id);
  if (item) ask(item.text, item.key);
}

/** Stop the answer that is being written, if there is one, and send this message. */
function answerNow(item) {
  queue.prefer(item);
  message.focus();
  if (!state.run) return answerNext();
  state.run.hurry = true;
  stop();
}

function takeBack(item) {
  queue.drop(item.key);
  putBack(item.text);
}

function putBack(text) {
  message.value = [text, message.value].filter(Boolean).join("\n");
  typed();
  message.focus();
}

/** Send what waits in a conversation that is not shown any more, each when the answer before it has ended. */
async function answerUnseen(id) {
  const abort = new AbortController();
  unseen.set(id, abort);
  const quiet = { signal: abort.signal, onTrouble() {}, onBack() {} };
  const finish = async (open) => {
    for await (const { type } of follow(open, quiet)) if (type === "error" || type === "abort") throw new Problem(500);
  };
  try {
    await finish((lastId) => resume(id, lastId, abort.signal));
    for (let item; (item = queue.next(id)); ) {
      await finish(async (lastId) => {
        const response = await (lastId ? resume(id, lastId, abort.signal) : send(id, item.text, item.key, abort.signal));
        queue.drop(item.key);
        tellTabs(id);
        return response;
      });
    }
  } catch {
    if (!abort.signal.aborted) queue.hold(id);
  }
  if (unseen.get(id) === abort) unseen.delete(id);
  conversations.load().catch(() => {});
}

/** A guest whose session has ended goes on as a new one; anything else is shown. */
async function recover(answer, problem, again, text) {
  if (isOldGuest(problem)) {
    await becomeNewGuest();
    return text ? ask(text) : undefined;
  }
  return failOn(answer, problem, again && (() => again(answer)), text);
}

const isOldGuest = (problem) => problem.status === 401 && !credential.key && credential.token !== null;

async function becomeNewGuest() {
  credential.forgetGuest();
  history.replaceState(null, "", address(null));
  await Promise.all([conversations.load(), show(null)]);
  tell("Your guest session has ended, and what was said in it is gone. This is a new one.");
}

function tell(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

const TITLES = {
  answer: "The answer could not be finished.",
  401: "The key was not accepted.",
  403: "This is not allowed.",
  404: "This conversation is not here any more.",
  409: "This could not be sent now.",
  413: "The message is too long.",
  422: "The message was not accepted.",
  429: "Too many requests. Please wait a moment.",
};

function failOn(answer, problem, again, text = "") {
  const actions = [];
  if (problem.status === 401) actions.push(button("Use another key", changeKey));
  else if (problem.status === 404) actions.push(button("New conversation", () => go(null)));
  else if (text && [403, 409, 413, 422].includes(problem.status)) actions.push(button("Edit the message", () => edit(answer, text)));
  else if (again) actions.push(retryButton(again, problem.retryAfter));
  const title = TITLES[problem.status] ?? TITLES.answer;
  if (!answer.element.isConnected) $("log").append(answer.element);
  dropOldButtons();
  answer.fail(title, problem.reference && problem.status >= 500 ? `${problem.message} (${problem.reference})` : problem.message, actions);
  announce(title);
  scroll.toEnd();
}

/** What an older error offers would act on a conversation that has gone on since. */
function dropOldButtons() {
  inLog(".error .buttons").forEach((buttons) => buttons.remove());
}

function edit(answer, text) {
  answer.element.previousElementSibling?.remove();
  answer.element.remove();
  $("empty").hidden = state.id !== null || $("log").childElementCount > 0;
  putBack(text);
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
  const { run } = state;
  if (run.trouble && !run.answer.accepted && run.text) return withdraw(run);
  run.stopping = true;
  $("stop").disabled = true;
  if (!run.answer.accepted && run.key) return; // sent as soon as the server has the message
  try {
    await request("POST", `api/chat/${state.id}/stop`);
  } catch (problem) {
    $("stop").disabled = false;
    announce(`Not stopped. ${problem.message}`);
  }
}

/** Give up a message that could not be sent so far. */
function withdraw(run) {
  queue.drop(run.key);
  queue.hold(state.id);
  state.run = null;
  run.abort.abort();
  setBusy(false);
  edit(run.answer, run.text);
  announce("Not sent.");
}

function setBusy(busy) {
  const focused = document.activeElement === $("stop") || document.activeElement === $("send");
  $("log").setAttribute("aria-busy", busy);
  $("stop").hidden = !busy;
  $("stop").disabled = false;
  typed();
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
  $("send").hidden = Boolean(state.run) && !message.value.trim();
  $("send").setAttribute("aria-label", state.run ? "Send after this answer" : "Send");
  if (over) message.setAttribute("aria-invalid", "true");
  else message.removeAttribute("aria-invalid");
  if (!CSS.supports("field-sizing", "content")) {
    message.style.height = "auto";
    message.style.height = `${message.scrollHeight}px`;
  }
}

async function submit() {
  await state.shown?.catch(() => {});
  if ($("send").disabled) return;
  const text = message.value.trim();
  message.value = "";
  typed();
  message.focus();
  if (!state.run) return ask(text);
  queue.add(state.id, text);
  state.run.hurry ||= state.run.stopping;
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
  $("documents").hidden = !key;
}

async function changeKey() {
  if (await askKey()) await useOtherKey();
}

/** Another key is another person: nothing of what is shown belongs to them. */
async function useOtherKey() {
  showIdentity();
  tell("");
  queue.clear();
  go(null);
  await refresh();
}

async function refresh() {
  try {
    await conversations.load();
  } catch (problem) {
    if (isOldGuest(problem)) return becomeNewGuest();
    if (mayPass(problem)) keepTrying(() => look(null), ALWAYS);
    else tell(problem.status === 401 ? TITLES[401] : problem.message);
  }
  showTitle();
}

$("menu").addEventListener("click", () => setDrawer(true));
$("scrim").addEventListener("click", closeDrawer);
$("list").addEventListener("click", (event) => event.target.closest("a") && closeDrawer());
addEventListener("keydown", (event) => event.key === "Escape" && closeDrawer());
narrow.addEventListener("change", () => setDrawer(false));
$("use-key").addEventListener("click", changeKey);
$("documents").addEventListener("click", async () => (await import("./documents.js")).showDocuments());
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
  $("greeting-note").textContent = offline ? "Ask a question. The answer is quoted from the content, with its sources." : "Ask a question. The specialist for it answers, with sources.";
  $("note").textContent = offline ? "Offline: answers are quoted from the content." : model ? "Answers can be wrong: check the sources." : "";
  $("note").classList.toggle("offline", Boolean(offline));
  $("suggestions").replaceChildren(...suggestions.map((text) => h("li", {}, h("button", { type: "button", onclick: () => { ask(text); message.focus(); } }, text, icon("up")))));
  typed();
  showTitle();
}

/** Show how an answer came about. What does that is loaded then, and is there in development alone. */
async function inspect(turn) {
  const { openTimeline } = await import("../dev/static/drawer.js");
  openTimeline(turn);
}

async function start() {
  for (const place of document.querySelectorAll("[data-icon]")) place.replaceWith(icon(place.dataset.icon));
  showIdentity();
  setDrawer(false);
  const about = keepTrying(() => read("api/page"), ALWAYS).catch(() => null);
  about.then((page) => {
    state.page = page ?? state.page;
    showPage();
    if (page?.clients) $("identity").after(h("a", { href: "oauth/clients" }, "Clients"));
    if (!page?.developer) return;
    Answer.inspect = inspect;
    answers.forEach((answer) => answer.offer());
  });
  await takeKeyFromAddress(about);
  showIdentity();
  await refresh();
  addEventListener("hashchange", async () => {
    if (await takeKeyFromAddress(about)) return useOtherKey();
    tell("");
    if (idInAddress() !== state.id) show(idInAddress());
  });
  watch(look, showLink);
  show(idInAddress());
  await state.shown?.catch(() => {});
}

state.shown = start();
