/**
 * Server-sent events over fetch (EventSource can neither POST nor send a credential), followed across broken
 * connections: the server continues after the id of the last frame that came, so nothing is lost and nothing doubled.
 * What may pass is tried again for as long as the page is open.
 */

import { Problem } from "./api.js";

const LONGEST_WAIT = 30_000;
const SILENCE = 60_000; // the server pings more often than this: a longer silence is a dead connection

/** Whether it is a trouble of the connection or of a busy server, and not the answer to what was asked. */
export function mayPass(problem) {
  return problem instanceof Problem && [0, 502, 503, 504].includes(problem.status);
}

/** What a person is told while it is tried again. */
export function trouble(problem) {
  return problem.status === 503 ? "The server is busy. Trying again…" : "There is no connection to the server. Trying again…";
}

/**
 * Chunks of an answer up to its end. `open(lastId)` gives the response to read on from, null where nothing is running;
 * then the last chunk is {type: "gone"}. `onTrouble(problem)` is called before each wait for another try, and
 * `onBack()` when one has succeeded.
 */
export async function* follow(open, { signal, onTrouble, onBack }) {
  let last = null;
  for (let failures = 0; ; ) {
    try {
      const response = await open(last);
      if (!response) return yield { type: "gone" };
      if (failures) onBack();
      for await (const { id, data } of frames(response.body, signal)) {
        if (data === "[DONE]") return;
        failures = 0;
        last = id ?? last;
        yield JSON.parse(data);
      }
      throw new Problem(0);
    } catch (problem) {
      if (signal.aborted || !mayPass(problem)) throw problem;
      onTrouble(problem);
      await waitAfter(problem, ++failures, signal);
    }
  }
}

/** What `work()` gives, however often it has to be tried. */
export async function keepTrying(work, { signal, onTrouble, onBack }) {
  for (let failures = 0; ; ) {
    try {
      const result = await work();
      if (failures) onBack();
      return result;
    } catch (problem) {
      if (signal.aborted || !mayPass(problem)) throw problem;
      onTrouble(problem);
      await waitAfter(problem, ++failures, signal);
    }
  }
}

/** Longer after each failure, but not when the connection is back or somebody looks again. */
export function waitAfter(problem, failures, signal) {
  const asked = problem.retryAfter;
  const wait = Math.min(300 * 2 ** failures, LONGEST_WAIT) * (0.75 + Math.random() / 4);
  return pause(asked ? asked * 1000 : wait, signal, !asked);
}

/** Wait; `short` says that it ends when the page comes to the foreground or the machine online. */
export function pause(milliseconds, signal, short) {
  return new Promise((resolve, reject) => {
    const over = new AbortController();
    const end = () => {
      clearTimeout(timer);
      over.abort();
      if (signal.aborted) reject(signal.reason);
      else resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal.addEventListener("abort", end, { signal: over.signal });
    if (!short) return;
    addEventListener("online", end, { signal: over.signal });
    document.addEventListener("visibilitychange", () => document.hidden || end(), { signal: over.signal });
  });
}

async function* frames(body, signal) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const cancel = () => reader.cancel().catch(() => {});
  signal.addEventListener("abort", cancel, { once: true });
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await withinSilence(reader.read());
      if (done) return;
      const events = (rest + decoder.decode(value, { stream: true })).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const frame = {};
        for (const line of event.split("\n")) {
          const colon = line.indexOf(":");
          if (colon > 0) frame[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
        }
        if (frame.data) yield frame;
      }
    }
  } finally {
    cancel();
  }
}

async function withinSilence(reading) {
  let timer;
  const silence = new Promise((_, reject) => { timer = setTimeout(() => reject(new Problem(0)), SILENCE); });
  const broken = () => { throw new Problem(0); }; // a reader says it in other words in each browser
  return Promise.race([reading.catch(broken), silence]).finally(() => clearTimeout(timer));
}
