/** Dialogs: a passage that an answer cites, a yes or no, an API key. Each is made when it opens and gone when it closes. */

import { credential, read } from "./api.js";
import { h, icon, setHtml } from "./dom.js";

/** Show a dialog; the promise gives what `close(value)` was called with, undefined for Escape or a click outside. */
export function show(label, build) {
  return new Promise((resolve) => {
    let result;
    const dialog = h("dialog", { "aria-label": label });
    const close = (value) => {
      result = value;
      dialog.close();
    };
    const dismiss = h("button", { class: "icon dismiss", type: "button", "aria-label": "Close", onclick: () => close() }, icon("close"));
    dialog.append(h("div", { class: "sheet" }, dismiss, build(close)));
    dialog.addEventListener("click", (event) => event.target === dialog && close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(result);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Where in the document a source stands, without its title, which the headings begin with. */
export function place(source) {
  const path = source.heading?.split(" > ") ?? [];
  if (path[0] === source.title) path.shift();
  return path;
}

/** The passage as the answer was given it at once, then as it is rendered by the server. */
export function showPassage(source) {
  const text = h("div", { class: "passage text" }, h("p", { class: "plain" }, source.text ?? ""));
  const shown = show(`Source ${source.n}: ${source.title}`, () => [
    h("p", { class: "eyebrow" }, `Source ${source.n}`),
    h("h2", {}, source.title),
    place(source).length ? h("p", { class: "crumbs" }, place(source).join(" › ")) : "",
    text,
    h("p", { class: "path" }, source.document),
  ]);
  read(`api/passages/${encodeURIComponent(source.passage)}`).then(
    (passage) => passage.html && setHtml(text, passage.html),
    // In each case the answer's own copy stays.
    (error) => error.status === 404 && text.before(h("p", { class: "remark" }, "The page has changed since. This is the passage as it was cited.")),
  );
  return shown;
}

export async function confirm(question, detail, yes) {
  const answer = await show(question, (close) => [
    h("h2", {}, question),
    h("p", {}, detail),
    h(
      "div",
      { class: "buttons" },
      h("button", { class: "plain-button", onclick: () => close(false), autofocus: true }, "Cancel"),
      h("button", { class: "danger", onclick: () => close(true) }, yes),
    ),
  ]);
  return Boolean(answer);
}

/** Whether to use the key of a link. */
export function confirmKey(key) {
  const own = credential.key ? `your own key …${credential.key.slice(-4)}` : "your guest session";
  const detail = `The link has the key …${key.slice(-4)} in it, in place of ${own}. Whoever made the link can read what you write with it.`;
  return confirm("Sign in with the key of this link?", detail, "Use this key");
}

/** Whether the credential has changed. */
export async function askKey(reason = "") {
  const key = credential.key;
  const changed = await show("API key", (close) => {
    const input = h("input", { id: "key", type: "password", autocomplete: "off", spellcheck: "false", required: true, autofocus: true });
    const remember = h("input", { type: "checkbox", id: "remember" });
    const form = h(
      "form",
      {},
      h("div", { class: "field" }, h("label", { for: "key" }, key ? "Another key" : "Key"), input),
      h("label", { class: "check", for: "remember" }, remember, "Keep it on this device"),
      h(
        "div",
        { class: "buttons" },
        key ? h("button", { class: "plain-button", type: "button", onclick: () => { credential.forgetKey(); close(true); } }, "Stop using the key") : null,
        h("button", { class: "primary" }, "Use this key"),
      ),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!input.value.trim()) return;
      credential.useKey(input.value.trim(), remember.checked);
      close(true);
    });
    return [
      h("h2", {}, "Use a key"),
      h("p", {}, reason || "With an API key you see your own conversations and may use every tool it allows. Without one you are a guest."),
      form,
    ];
  });
  return Boolean(changed);
}
