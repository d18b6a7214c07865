/**
 * Server-sent events over fetch (EventSource can neither POST nor send a credential), followed across broken
 * connections: the server continues after the id of the last frame that came, so nothing is lost and nothing doubled.
 */

import { Problem } from "./api.js";

const TRIES = 6;
const SILENCE = 60_000; // the server pings more often than this: a longer silence is a dead connection

/**
 * Chunks of an answer up to its end. `open(lastId)` gives the response to read on from, null where nothing is running;
 * then the last chunk is {type: "gone"}. `onTrouble` is called before each wait for another try.
 */
export async function* follow(open, { signal, onTrouble }) {
  let last = null;
  for (let failures = 0; ; ) {
    try {
      const response = await open(last);
      if (!response) return yield { type: "gone" };
      for await (const { id, data } of frames(response.body, signal)) {
        if (data === "[DONE]") return;
        failures = 0;
        last = id ?? last;
        yield JSON.parse(data);
      }
      throw new Problem(0);
    } catch (problem) {
      if (signal.aborted || !mayPass(problem) || ++failures >= TRIES) throw problem;
      onTrouble();
      await pause(300 * 2 ** failures * (0.75 + Math.random() / 2), signal);
    }
  }
}

function mayPass(problem) {
  return problem instanceof Problem ? [0, 502, 504].includes(problem.status) : problem instanceof TypeError;
}

async function pause(milliseconds, signal) {
  await new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    addEventListener("online", resolve, { once: true });
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
  signal.throwIfAborted();
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
  return Promise.race([reading, silence]).finally(() => clearTimeout(timer));
}
