/**
 * Making elements. Text goes in as text; `setHtml` is the only way in for HTML, which the server has sanitised. Whatever
 * holds words of people or models takes its direction from them.
 */

const SHAPES = {
  alert: "M12 8v5M12 16.5v.01M10.3 3.9 2.4 17.6A2 2 0 0 0 4.1 20.6h15.8a2 2 0 0 0 1.7-3L13.7 3.9a2 2 0 0 0-3.4 0z",
  bad: "M17 14V3M9 18.1l1-4.1H4.2a2 2 0 0 1-1.9-2.6l2.3-7A2 2 0 0 1 6.5 3H20a1 1 0 0 1 1 1v9a1 1 0 0 1-1 1h-3l-3.6 7A3 3 0 0 1 9 18.1z",
  check: "M5 12.5l4.5 4.5L19 7.5",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h10a1 1 0 0 1 1 1v10a1 1 0 0 1-1 1H9a1 1 0 0 1-1-1V10a1 1 0 0 1 1-1zM16 5V4a1 1 0 0 0-1-1H5a1 1 0 0 0-1 1v10a1 1 0 0 0 1 1",
  down: "M12 5v14M6 13l6 6 6-6",
  good: "M7 10v11M15 5.9L14 10h5.8a2 2 0 0 1 1.9 2.6l-2.3 7a2 2 0 0 1-1.9 1.4H4a1 1 0 0 1-1-1v-9a1 1 0 0 1 1-1h3l3.6-7A3 3 0 0 1 15 5.9z",
  key: "M15 9a5 5 0 1 1-4.6-5 5 5 0 0 1 4.6 5zM13.6 12.6L21 20M18 17l2-2",
  list: "M8 6h12M8 12h12M8 18h12M4 6v.01M4 12v.01M4 18v.01",
  menu: "M4 7h16M4 12h16M4 17h10",
  pencil: "M4 20l1-4L16.5 4.5a1.8 1.8 0 0 1 2.6 0l.4.4a1.8 1.8 0 0 1 0 2.6L8 19z",
  plus: "M12 5v14M5 12h14",
  right: "M9 6l6 6-6 6",
  stop: "M8 8h8v8H8z",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l1 13h8l1-13M10.5 11v5M13.5 11v5",
  wait: "M12 7.5V12l3 2M12 3.5a8.5 8.5 0 1 0 .01 0",
  up: "M12 19V5M6 11l6-6 6 6",
};

const WORDED = new Set(["a", "dd", "dt", "h2", "h3", "h4", "input", "label", "option", "p", "select", "span", "textarea"]);

export const $ = (id) => document.getElementById(id);

/** `h("p", {class: "x", onclick: f}, "text", node, null)`; a null or false attribute is left out. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  if (WORDED.has(tag)) element.dir = "auto";
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", SHAPES[name]);
  svg.append(path);
  return svg;
}

/** `html` must come from the server's renderer: of a text's block, of a tool's result, of a message or of a passage. */
export function setHtml(element, html) {
  element.dir = "auto";
  element.innerHTML = html;
}

/** A button that copies what `text()` gives and says so; none over plain http, where browsers have no clipboard. */
export function copyButton(label, text) {
  if (!navigator.clipboard) return null;
  const button = h("button", { class: "quiet copy", type: "button", "aria-label": label });
  const show = (name, word) => button.replaceChildren(icon(name), word);
  show("copy", "Copy");
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text());
    show("check", "Copied");
    announce("Copied.");
    setTimeout(show, 1600, "copy", "Copy");
  });
  return button;
}

/** "search_knowledge" -> "Search knowledge" */
export function words(name) {
  const spaced = name.replace(/[_-]+/g, " ").trim();
  return spaced.charAt(0).toUpperCase() + spaced.slice(1);
}

export function button(label, act, look = "plain-button") {
  return h("button", { class: look, type: "button", onclick: act }, label);
}

export function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

export function announce(text) {
  $("status").textContent = text;
}
