/** A turn as a case of evals/. */

import { Problem, read, request } from "../../static/api.js";
import { announce, copyButton, h, icon } from "../../static/dom.js";

/** Ask for the file and the words of the case. What happened is filled in as what is expected. */
export async function saveAsCase(turn) {
  const draft = await read(`dev/turns/${turn}/case`);
  const file = h("input", { id: "case-file", value: draft.file, list: "case-files", required: true, spellcheck: "false", autocomplete: "off" });
  const text = h("textarea", { id: "case-text", class: "code-area", rows: "16", spellcheck: "false" });
  text.value = draft.text;
  const error = h("p", { class: "form-error", role: "alert", hidden: true });
  const form = h("form", {},
    h("div", { class: "field" }, h("label", { for: "case-file" }, "File in evals/"), file, h("datalist", { id: "case-files" }, draft.files.map((name) => h("option", { value: name })))),
    h("div", { class: "field" }, h("label", { for: "case-text" }, "Case"), text),
    error,
    h("div", { class: "buttons" }, h("button", { class: "primary" }, "Add the case")),
  );
  const sheet = h("div", { class: "sheet" },
    h("button", { class: "icon dismiss", type: "button", "aria-label": "Close", onclick: () => dialog.close() }, icon("close")),
    h("h2", {}, "Save as a case"),
    h("p", {}, "What happened stands under expect. Leave in what must stay so, and take out what may change."),
    form,
  );
  const dialog = h("dialog", { class: "case", "aria-label": "Save as a case" }, sheet);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const response = await request("POST", "dev/cases", { json: { file: file.value.trim(), text: text.value } });
      done(sheet, (await response.json()).id);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      error.textContent = problem.message;
      error.hidden = false;
    }
  });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

function done(sheet, id) {
  const command = `agent-server eval run '${id.replaceAll("'", "'\\''")}'`;
  const said = h("p", { tabindex: "-1" }, `Added as ${id}`);
  sheet.querySelector("h2").nextElementSibling.remove();
  sheet.querySelector("form").replaceWith(said, h("h4", {}, "Run it"), h("pre", { class: "as-is", dir: "ltr", tabindex: "0" }, command), copyButton("Copy the command", () => command));
  said.focus();
  announce("The case was added.");
}
