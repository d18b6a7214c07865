/** The tables and charts of a result. Loaded when there are some. The server draws the charts in the colours of the page. */

import { read } from "./api.js";
import { h } from "./dom.js";

const dark = matchMedia("(prefers-color-scheme: dark)");
const narrow = matchMedia("(max-width: 40rem)");

/** `said` is the result in words, with its tables; the charts among the `figures` are drawn at `path()`. */
export function show(card, said, figures, path) {
  if (!document.querySelector("link[href='static/charts.css']")) {
    document.head.append(h("link", { rel: "stylesheet", href: "static/charts.css" }));
  }
  const charts = h("div", {}, h("p", { class: "asked drawing" }, "Drawing the chart"));
  const more = h("details", { class: "data" }, h("summary", {}, "Show figures"), said);
  const box = h("div", { class: "figures" }, charts, more);
  card.querySelector(".figures")?.remove();
  card.append(box);
  if (!figures.some(({ type }) => type === "chart")) {
    charts.remove();
    more.open = true;
    return;
  }
  const draw = async () => {
    const drawn = await read(`${path()}?theme=${dark.matches ? "dark" : "light"}&narrow=${narrow.matches}`).catch(() => null);
    charts.replaceChildren(...(drawn ?? []).map(picture));
    // Without a picture the figures are all that there is to see.
    if (!drawn?.some(({ svg }) => svg)) more.open = true;
  };
  const again = () => (box.isConnected ? draw() : dark.removeEventListener("change", again));
  // A long conversation has more charts than anybody looks at.
  new IntersectionObserver((seen, watcher) => {
    if (!seen.some((entry) => entry.isIntersecting)) return;
    watcher.disconnect();
    dark.addEventListener("change", again);
    draw();
  }).observe(box);
}

/** As an image, in which nothing runs and which loads nothing. */
function picture({ title, alt, svg, note }) {
  const src = `data:image/svg+xml,${encodeURIComponent(svg)}`;
  return h("figure", {}, h("figcaption", { dir: "auto" }, title), svg ? h("img", { src, alt }) : h("p", { class: "asked" }, note));
}
