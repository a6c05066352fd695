// Connects the parts: polls the state, and keeps the API key and the theme.

import { ago, count, icon, setText } from "./dom.js";
import { Chat } from "./chat.js";
import { Dashboard } from "./models.js";

const POLL_MS = 2000;
const MAX_POLL_MS = 30_000;
const TIMEOUT_MS = 10_000;
const MAX_ANNOUNCED = 3;
const LABELS = { Ready: "ready", Waking: "starting", AtZero: "at zero", Failed: "failed" };

const byId = (id) => document.getElementById(id);

/** The API key: in this tab only, and sent as a header only. */
const auth = {
  key: stored(() => sessionStorage.getItem("slotkeeper.key")) ?? "",

  headers() {
    return this.key ? { Authorization: `Bearer ${this.key}` } : {};
  },

  set(key) {
    this.key = key;
    stored(() => (key ? sessionStorage.setItem("slotkeeper.key", key) : sessionStorage.removeItem("slotkeeper.key")));
    byId("sign-out").hidden = !key;
  },

  /** The gateway rejected the key, or the lack of one. */
  reject() {
    setText(byId("key-error"), this.key ? "This API key is not accepted." : "");
    this.set("");
    signIn(true);
  },
};

const chat = new Chat(auth, announce);
const dashboard = new Dashboard((name) => chat.open(name));
let timer = 0;
let generation = 0; // of polls: a response to an earlier one is dropped
let failures = 0;
let skew = 0; // of the gateway's clock, in milliseconds
let received = 0;
let states = null;

/** A response that is no state; the message is for people. */
class Unexpected extends Error {}

async function poll() {
  clearTimeout(timer);
  const current = ++generation;
  try {
    const response = await fetch("page/state.json", {
      headers: auth.headers(),
      credentials: "omit",
      cache: "no-store",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    const tree = response.ok ? await response.json().catch(() => null) : null;
    if (current !== generation) return;
    if (response.status === 401) {
      auth.reject();
      return;
    }
    if (!response.ok) throw new Unexpected(`responded with status ${response.status}`);
    if (!Array.isArray(tree?.models) || !Array.isArray(tree.history)) {
      throw new Unexpected("responded with something other than its state");
    }
    show(tree);
    failures = 0;
  } catch (error) {
    if (current !== generation) return;
    failures += 1;
    // One lost poll is nothing to report, unless there is nothing to show.
    if (failures > 1 || !received) reportFailure(error);
  }
  schedule();
}

function schedule() {
  // Hidden tabs do not poll.
  if (!document.hidden) timer = setTimeout(poll, Math.min(POLL_MS * 2 ** failures, MAX_POLL_MS));
}

function show(state) {
  received = Date.now();
  skew = Date.parse(state.updated) - received;
  signIn(false);
  byId("banner").hidden = true;
  document.body.classList.remove("stale");
  setText(byId("gateway"), state.gateway);
  if (state.gateway) document.title = `${state.gateway} – Slotkeeper`;
  dashboard.render(state, now);
  chat.setModels(state.models);
  announceChanges(state.models);
  tick();
}

function reportFailure(error) {
  const since = received ? ` This is the state of ${new Date(received).toLocaleTimeString()}.` : "";
  const late = error.name === "TimeoutError" ? "did not respond in time" : "cannot be reached";
  const problem = error instanceof Unexpected ? error.message : late;
  setText(byId("banner"), `The gateway ${problem}. Retrying.${since}`);
  byId("banner").hidden = false;
  document.body.classList.toggle("stale", received > 0);
  if (!received) {
    for (const id of ["models-note", "decisions-note"]) setText(byId(id), "No data.");
  }
}

/** Announce models whose state changed, and nothing else: numbers change all the time. */
function announceChanges(models) {
  const before = states;
  states = new Map(models.map((model) => [model.name, model.state]));
  if (!before) return;
  const changed = models.filter((model) => before.get(model.name) !== model.state);
  if (changed.length > MAX_ANNOUNCED) announce(`${count(changed.length, "model")} changed state`);
  else if (changed.length) announce(changed.map((model) => `${model.name} is ${LABELS[model.state] ?? model.state}`).join(", "));
}

function announce(text) {
  byId("announcer").textContent = text;
}

/** Show the form for the API key in place of the content, or the content. */
function signIn(required) {
  const form = byId("sign-in");
  if (form.hidden === !required) return;
  form.hidden = !required;
  byId("content").hidden = required;
  if (required) {
    dashboard.clear();
    chat.setModels([]);
    chat.clear();
    setText(byId("gateway"), "");
    document.title = "Slotkeeper";
    byId("banner").hidden = true;
    document.body.classList.remove("stale");
    received = 0;
    states = null;
    byId("key").focus();
  } else {
    // The form that had the focus is gone: continue with what has replaced it.
    byId("models-title").focus({ preventScroll: true });
  }
  tick();
}

byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = byId("key").value.trim();
  byId("key").value = "";
  const valid = /^[\x21-\x7e]+$/.test(key); // other characters cannot be sent in a header
  setText(byId("key-error"), valid ? "" : "An API key has only letters, digits and punctuation.");
  if (!valid) return;
  auth.set(key);
  poll();
});

byId("sign-out").addEventListener("click", () => {
  generation += 1;
  clearTimeout(timer);
  auth.set("");
  signIn(true);
});

/** The gateway's time, in milliseconds: decisions carry times of the cluster. */
function now() {
  return Date.now() + skew;
}

function tick() {
  setText(byId("freshness"), received ? `Updated ${ago((Date.now() - received) / 1000)}` : "");
  dashboard.tick();
}

const THEMES = ["auto", "light", "dark"];

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  stored(() => (theme === "auto" ? localStorage.removeItem("slotkeeper.theme") : localStorage.setItem("slotkeeper.theme", theme)));
  byId("theme").firstElementChild.replaceWith(icon(theme));
  setText(byId("theme-name"), `Theme: ${theme}`);
}

byId("theme").addEventListener("click", () => {
  const current = document.documentElement.dataset.theme ?? "auto";
  setTheme(THEMES[(THEMES.indexOf(current) + 1) % THEMES.length]);
});

/** Return the result of `access` to a storage; undefined if the browser blocks it. */
function stored(access) {
  try {
    return access();
  } catch {
    return undefined;
  }
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else if (byId("sign-in").hidden) poll();
});

setTheme(document.documentElement.dataset.theme ?? "auto");
auth.set(auth.key);
setInterval(tick, 1000);
poll();
