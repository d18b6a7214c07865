/** The question that a turn asks before something is lost for good; the answer counts once. */

import { read, request } from "./api.js";
import { h, icon } from "./dom.js";

const SAID = { confirmed: "You confirmed this.", declined: "You declined this. Nothing was done.", expired: "This question has expired. Nothing was done." };

/** `id` is the confirmation's; what became of it is asked of the server, so that a page opened again shows it too. */
export function confirmation(id) {
  let path = `api/confirmations/${encodeURIComponent(id)}`;
  const box = h("section", { class: "lead confirmation", "aria-label": "Confirmation" });
  const tell = (text, sign) => box.replaceChildren(h("p", { class: "thanks", tabindex: "-1" }, sign ? icon(sign) : null, text));
  const fail = (problem) => tell(problem.message, "alert");

  async function answer(confirm) {
    box.querySelectorAll("button").forEach((button) => (button.disabled = true));
    try {
      const { status } = await (await request("POST", path, { json: { confirm } })).json();
      tell(status === "confirmed" ? "Done." : SAID[status], status === "confirmed" ? "check" : null);
    } catch (problem) {
      if (problem.confirmation) return askAgain(problem.confirmation);
      fail(problem);
    }
    box.firstChild.focus();
  }

  function ask({ question, status }) {
    if (status !== "open") return tell(SAID[status], status === "confirmed" ? "check" : null);
    box.replaceChildren(
      h("h3", {}, question),
      h("p", {}, "This cannot be undone."),
      h("div", { class: "buttons" },
        h("button", { type: "button", class: "primary", onclick: () => answer(true) }, "Yes, do it"),
        h("button", { type: "button", onclick: () => answer(false) }, "No"),
      ),
    );
  }

  /** The server asks about what would be lost now. */
  function askAgain({ id, question }) {
    path = `api/confirmations/${encodeURIComponent(id)}`;
    ask({ question, status: "open" });
    box.prepend(h("p", { class: "thanks", tabindex: "-1" }, icon("alert"), "This has changed since you were asked. Nothing was done yet."));
    box.firstChild.focus();
  }

  read(path).then(ask, fail);
  return box;
}
