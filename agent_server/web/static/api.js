/**
 * Requests with the caller's credential: an API key where one was given, else the token of a guest, which the server
 * issues with its first answer (X-Guest-Token). A failure is thrown as a Problem.
 */

const GUEST = "agent-server.guest";
const KEY = "agent-server.key";

export class Problem extends Error {
  /** `status` 0: no answer came. `fields`: what is wrong with which field. */
  constructor(status, body = {}, retryAfter = null) {
    super(body.detail || body.title || "The server could not be reached.");
    this.status = status;
    this.code = body.code;
    this.fields = body.errors ?? [];
    this.reference = body.request_id;
    this.confirmation = body.confirmation;
    this.retryAfter = retryAfter;
  }
}

export const credential = {
  get key() {
    return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY);
  },
  get token() {
    return this.key ?? localStorage.getItem(GUEST);
  },
  useKey(key, remember) {
    this.forgetKey();
    (remember ? localStorage : sessionStorage).setItem(KEY, key);
  },
  forgetKey() {
    sessionStorage.removeItem(KEY);
    localStorage.removeItem(KEY);
  },
  forgetGuest() {
    localStorage.removeItem(GUEST);
  },
  keepGuest(token) {
    localStorage.setItem(GUEST, token);
  },
};

/** The response of a success, null for 204. Paths are relative, so that the page works under a proxy's prefix. */
export async function request(method, path, { json, body, headers = {}, signal } = {}) {
  const token = credential.token;
  const all = { ...headers };
  if (token) all.Authorization = `Bearer ${token}`;
  if (json !== undefined) all["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers: all, signal, body: json === undefined ? body : JSON.stringify(json) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0);
  }
  const guest = response.headers.get("X-Guest-Token");
  if (guest) credential.keepGuest(guest);
  if (response.status === 204) return null;
  if (response.ok) return response;
  throw await problemOf(response);
}

export async function read(path) {
  return (await request("GET", path)).json();
}

async function problemOf(response) {
  const body = await response.json().catch(() => ({ title: "The server answered with something unexpected." }));
  return new Problem(response.status, body, Number(response.headers.get("Retry-After")) || null);
}

export function uniqueKey() {
  // randomUUID is missing over plain http from another machine.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
