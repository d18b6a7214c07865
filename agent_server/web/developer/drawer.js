/** The timeline of an answer, over the chat page. This is loaded when it is opened first. */

import { button, h, icon } from "../../static/dom.js";
import { readTimeline, timelineOf } from "./timeline.js";

/** Escape, the button and a click outside close it; the focus goes back to what opened it. */
export async function openTimeline(turn) {
  await style();
  const body = h("div", { class: "side-body", role: "status" }, h("p", { class: "none" }, "Reading the timeline…"));
  const dialog = h("dialog", { class: "side", "aria-labelledby": "side-title" },
    h("header", {},
      h("h2", { id: "side-title", tabindex: "-1", autofocus: true }, "How this answer came about"),
      h("a", { href: `dev#/t/${turn}` }, "Developer page"),
      h("button", { class: "icon", type: "button", "aria-label": "Close", onclick: () => dialog.close() }, icon("close")),
    ),
    body,
  );
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  await fill(body, turn);
}

async function fill(body, turn) {
  try {
    const shown = timelineOf(await readTimeline(turn));
    body.removeAttribute("role"); // or all of it would be read out
    body.replaceChildren(shown);
  } catch (problem) {
    body.replaceChildren(h("p", { class: "form-error" }, problem.message), button("Try again", () => fill(body, turn)));
  }
}

function style() {
  const href = new URL("developer.css", import.meta.url).href;
  if ([...document.styleSheets].some((sheet) => sheet.href === href)) return null;
  const link = h("link", { rel: "stylesheet", href });
  const ready = new Promise((resolve) => { link.onload = link.onerror = resolve; });
  document.head.append(link);
  return ready;
}
