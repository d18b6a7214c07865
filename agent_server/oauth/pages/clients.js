/** The clients that the user has let in, and the button that ends each. Signs in with the key of the chat page, or else by e-mail and password. */

const KEY = "agent-server.key";
const $ = (id) => document.getElementById(id);
let token = sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY);

async function ask(method, path, json) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  if (json) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method, headers, body: json && JSON.stringify(json) });
  const body = answer.status === 204 ? null : await answer.json();
  if (!answer.ok) throw Object.assign(new Error(body.detail ?? body.title), { status: answer.status });
  return body;
}

function h(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").className = isError ? "error" : "";
}

const day = (time) => new Date(time).toLocaleDateString(undefined, { dateStyle: "medium" });

function show(client) {
  const name = h("strong", { dir: "auto" }, client.name);
  const used = client.last_used_at ? `, last used on ${day(client.last_used_at)}` : "";
  const button = h("button", { type: "button" }, "Disconnect");
  button.setAttribute("aria-label", `Disconnect ${client.name}`);
  const item = h(
    "li",
    {},
    h("div", {}, name, h("small", {}, `${client.answers_at} · connected on ${day(client.created_at)}${used} · until ${day(client.expires_at)}`), h("code", {}, client.scopes.join(" "))),
    button,
  );
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await ask("DELETE", `../api/clients/${client.id}`);
      item.remove();
      say($("clients").children.length ? `${client.name} is disconnected.` : `${client.name} is disconnected. No client is connected.`);
    } catch (error) {
      button.disabled = false;
      say(error.message, true);
    }
  });
  return item;
}

async function load() {
  if (!token) {
    $("sign-in").hidden = false;
    return;
  }
  try {
    const clients = await ask("GET", "../api/clients");
    $("sign-in").hidden = true;
    $("clients").replaceChildren(...clients.map(show));
    say(clients.length ? "" : "No client is connected.");
  } catch (error) {
    if (error.status === 401) token = null;
    $("sign-in").hidden = error.status !== 401 && error.status !== 403;
    say(error.message, true);
  }
}

$("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { email, password } = event.target.elements;
  token = null;
  try {
    token = (await ask("POST", "../api/auth/login", { email: email.value, password: password.value })).access_token;
  } catch (error) {
    say(error.message, true);
    return;
  }
  event.target.reset();
  await load();
});

load();
