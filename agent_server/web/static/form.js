/** The form that `offer_form` asks for; what is filled in goes to the tool it names. */

import { request } from "./api.js";
import { h, icon, parsed } from "./dom.js";
import { tellTabs } from "./tabs.js";

/** The place of a form among the parts of an answer. It is there from the call on, and gone when it was sent. */
export class FormCard {
  #callId;
  #conversation;
  #onSent;
  #sent = false;
  asks = false; // whether it waits to be filled in

  /** `conversation()` gives the conversation's id, `onSent()` is called when the form is not to be filled in any more. */
  constructor(callId, { conversation, onSent }) {
    this.running = true;
    this.#callId = callId;
    this.#conversation = conversation;
    this.#onSent = onSent;
    this.element = h("div", { class: "slot" });
  }

  done(output) {
    this.running = false;
    const offer = typeof output === "string" ? parsed(output) : output;
    if (!offer?.fields || this.#sent) return;
    this.asks = true;
    this.element.replaceChildren(this.#form(offer));
  }

  failed() {
    this.running = false;
  }

  stopped() {}

  read() {}

  /** `sent`: the server has what was filled in, from whatever device. */
  refresh({ sent }) {
    if (!sent || this.#sent) return;
    this.#sent = true;
    this.asks = false;
    this.element.replaceChildren(h("p", { class: "thanks", tabindex: "-1" }, icon("check"), "Sent. Thank you."));
    this.#onSent();
  }

  #form(offer) {
    const fields = offer.fields.map((field) => new Field(field, this.#callId));
    const trouble = h("p", { class: "form-error", role: "alert", hidden: true });
    const button = h("button", { class: "primary" }, "Send");
    const form = h("form", { novalidate: true }, fields.map((field) => field.element), trouble, button);
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      trouble.hidden = true;
      if (!showErrors(fields, fields.map((field) => field.complaint()))) return;
      button.disabled = true;
      try {
        const values = Object.fromEntries(fields.map((field) => [field.name, field.value()]).filter(([, value]) => value !== ""));
        await request("POST", `api/tools/${encodeURIComponent(offer.tool)}`, { json: values, headers: { "X-Conversation-Id": this.#conversation() } });
        this.refresh({ sent: true });
        tellTabs(this.#conversation());
        this.element.firstChild.focus();
      } catch (problem) {
        const complaints = fields.map((field) => problem.fields?.find((error) => error.field === field.name)?.message ?? "");
        button.disabled = false;
        if (!showErrors(fields, complaints)) return;
        trouble.textContent = problem.status === 0 ? "There is no connection to the server. What you wrote is kept: try again in a moment." : problem.message;
        trouble.hidden = false;
      }
    });
    return h("section", { class: "lead", "aria-label": offer.title }, h("h3", {}, offer.title), offer.description ? h("p", {}, offer.description) : null, form);
  }
}

/** Whether there are none; else the first field with one gets the focus. */
function showErrors(fields, complaints) {
  fields.forEach((field, i) => field.show(complaints[i]));
  fields[complaints.findIndex(Boolean)]?.input.focus();
  return !complaints.some(Boolean);
}

class Field {
  constructor(field, callId) {
    const id = `${callId}-${field.name}`;
    const about = { id, name: field.name, required: field.required, "aria-describedby": `${id}-error` };
    this.name = field.name;
    this.type = field.type;
    if (field.type === "textarea") this.input = h("textarea", { ...about, rows: 3 });
    else if (field.type === "select") this.input = h("select", about, h("option", { value: "" }, "Choose"), (field.options ?? []).map((option) => h("option", { value: option }, option)));
    else this.input = h("input", { ...about, type: field.type, step: field.type === "number" ? "any" : null, autocomplete: { email: "email", tel: "tel" }[field.type] ?? (field.name === "name" ? "name" : null) });
    this.input.value = field.value ?? "";
    this.error = h("p", { class: "field-error", id: `${id}-error` });
    this.element = h(
      "div",
      { class: "field" },
      h("label", { for: id }, field.label, field.required ? null : h("span", { class: "optional" }, "optional")),
      this.input,
      this.error,
    );
    this.input.addEventListener("input", () => this.show(""));
  }

  value() {
    const text = this.input.value.trim();
    return this.type === "number" && text ? Number(text) : text;
  }

  complaint() {
    if (this.input.required && !this.input.value.trim()) return "Please fill this in.";
    return this.input.validity.valid ? "" : this.input.validationMessage;
  }

  show(message) {
    this.error.textContent = message;
    this.input.toggleAttribute("aria-invalid", Boolean(message));
    if (message) this.input.setAttribute("aria-invalid", "true");
  }
}
