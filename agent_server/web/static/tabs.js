/** What another tab of this browser, or another device, may have changed meanwhile. */

import { keepTrying, pause } from "./stream.js";

const EVERY = 20_000; // milliseconds between two looks while the page is in view

const channel = new BroadcastChannel("agent-server");

/** Tell the other tabs at once that a conversation has changed; without an id, that the list has. */
export function tellTabs(id = null) {
  channel.postMessage({ id });
}

/**
 * Call `look(null)` from time to time, at once when the page comes into view or the machine online, and `look(id)` when
 * another tab tells of a conversation. `onLink` is given the problem of a failed connection, null of one that works.
 */
export async function watch(look, onLink) {
  const { signal } = new AbortController(); // for as long as the page is open
  channel.addEventListener("message", ({ data }) => look(data.id).catch(() => {}));
  addEventListener("offline", () => onLink({ status: 0 }));
  for (;;) {
    await pause(EVERY, signal, true);
    if (document.hidden) continue;
    await keepTrying(() => look(null), { signal, onTrouble: onLink, onBack() {} }).then(() => onLink(null), () => {});
  }
}
