// The chat box: one conversation with one model at a time, kept in this tab only.

import { count, duration, el, icon, integer, rate, setText } from "./dom.js";
import { ChatError, complete } from "./stream.js";

const STATUS_MS = 250; // between two updates of the status line
const HINTS = {
  AtZero: "is at zero. The first message starts it, which can take minutes.",
  Waking: "is starting. Messages are queued until it is ready.",
  Failed: "failed to start.",
};

export class Chat {
  /** `auth`: the API key. `announce(text)`: for screen readers. */
  constructor(auth, announce) {
    this.auth = auth;
    this.announce = announce;
    this.messages = [];
    this.models = new Map();
    this.controller = null; // of the response in progress
    for (const [name, id] of [["select", "chat-model"], ["clearButton", "chat-clear"], ["log", "log"], ["empty", "log-empty"], ["status", "chat-status"], ["input", "message"], ["sendButton", "send"]]) {
      this[name] = document.getElementById(id);
    }
    document.getElementById("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.controller) this.controller.abort();
      else this.send();
    });
    this.input.addEventListener("input", () => this.updateControls());
    this.input.addEventListener("keydown", (event) => {
      // An input method editor uses Enter too.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      if (!this.controller) this.send();
    });
    document.getElementById("chat").addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.controller?.abort();
    });
    this.clearButton.addEventListener("click", () => this.clear());
    this.select.addEventListener("change", () => this.updateHint());
  }

  /** Update the list of models. */
  setModels(models) {
    this.models = new Map(models.map((model) => [model.name, model]));
    const names = [...this.models.keys()];
    const options = [...this.select.options];
    // An open list of options is closed by changes, so there must be none without a reason.
    if (names.join("\n") !== options.map((option) => option.value).join("\n")) {
      const chosen = this.select.value;
      this.select.replaceChildren(...names.map((name) => el("option", { value: name }, name)));
      const ready = models.find((model) => model.state === "Ready") ?? models[0];
      this.select.value = this.models.has(chosen) ? chosen : (ready?.name ?? "");
    }
    this.updateControls();
    this.updateHint();
  }

  /** Choose a model, and move the focus to the message. */
  open(name) {
    if (!this.controller) this.select.value = name;
    this.updateHint();
    this.input.focus({ preventScroll: true });
    // On a narrow screen the chat is below the list.
    document.getElementById("chat").scrollIntoView({ block: "nearest" });
  }

  /** End the conversation. */
  clear() {
    this.controller?.abort();
    this.messages = [];
    this.log.replaceChildren(this.empty);
    this.updateControls();
    this.updateHint();
  }

  async send() {
    const text = this.input.value.trim();
    const model = this.select.value;
    if (!text || !model) return;
    this.input.value = "";
    this.empty.remove();
    this.messages.push({ role: "user", content: text });
    this.log.append(el("div", { class: "turn user" }, el("h3", {}, "You"), el("p", { class: "content" }, text)));
    const turn = new Turn(model, this.log);
    this.controller = new AbortController();
    const { signal } = this.controller;
    // Screen readers read the response once, when it is complete.
    this.log.setAttribute("aria-busy", "true");
    this.updateControls();
    const timer = setInterval(() => this.setStatus(turn.progress(this.models.get(model))), STATUS_MS);
    this.setStatus(turn.progress(this.models.get(model)));
    try {
      const messages = [...this.messages];
      for await (const part of complete(model, messages, this.auth.headers(), signal)) {
        if (signal.aborted) break;
        if (part.comment && !turn.comment) this.announce("The request is queued.");
        turn.add(part);
      }
      turn.end(signal.aborted);
    } catch (error) {
      if (signal.aborted) turn.end(true);
      else this.fail(turn, error, text);
    } finally {
      clearInterval(timer);
      this.controller = null;
      this.log.removeAttribute("aria-busy");
    }
    this.updateControls();
    if (!this.messages.length) return this.updateHint(); // cleared meanwhile
    if (turn.text) this.messages.push({ role: "assistant", content: turn.text });
    else this.messages.pop();
    this.setStatus(turn.summary());
  }

  fail(turn, error, text) {
    const described = error instanceof ChatError ? error : new ChatError("The page failed.", String(error));
    if (described.status === 401) this.auth.reject();
    const again = el("button", { type: "button", class: "quiet" }, "Try again");
    again.addEventListener("click", () => {
      if (this.controller) return;
      again.remove();
      this.input.value = text;
      this.send();
    });
    turn.fail(described, again);
  }

  updateControls() {
    const running = this.controller !== null;
    this.select.disabled = running || !this.models.size;
    this.clearButton.disabled = this.log.contains(this.empty);
    this.sendButton.disabled = !running && (!this.input.value.trim() || !this.models.size);
    setText(this.sendButton, running ? "Stop" : "Send");
  }

  /** Show what to expect of the chosen model. */
  updateHint() {
    if (this.controller || !this.log.contains(this.empty)) return;
    const model = this.models.get(this.select.value);
    const hint = model && HINTS[model.state];
    this.setStatus(hint ? `${model.name} ${hint}` : "");
  }

  setStatus(text) {
    setText(this.status, text);
  }
}

/** One response in the conversation. */
class Turn {
  constructor(model, log) {
    this.model = model;
    this.log = log;
    this.text = "";
    this.comment = "";
    this.tokens = 0;
    this.began = performance.now();
    this.first = 0; // time of the first token
    this.note = "";
    this.content = el("p", { class: "content" });
    this.element = el("div", { class: "turn model" }, el("h3", {}, el("bdi", {}, model)), this.content);
    log.append(this.element);
    this.scroll();
  }

  add(part) {
    if (part.comment) this.comment = part.comment;
    if (part.usage?.completion_tokens > 0) this.tokens = part.usage.completion_tokens;
    if (part.finish === "length") this.note = "Stopped at the token limit.";
    const text = part.reasoning ?? part.text;
    if (text === undefined) return;
    this.first ||= performance.now();
    this.last = performance.now();
    this.tokens += 1; // until the usage is known: one token in each event
    const follow = this.isAtEnd();
    if (part.reasoning) {
      this.reasoning ??= this.addReasoning();
      this.reasoning.append(text);
    } else {
      this.text += text;
      this.node ??= this.content.appendChild(document.createTextNode(""));
      this.node.appendData(text);
    }
    if (follow) this.scroll();
  }

  end(aborted) {
    if (aborted) this.note = "Stopped.";
    else if (!this.text && !this.note) this.note = "The response is empty.";
    if (this.note) this.element.append(el("p", { class: "turn-note" }, this.note));
    this.ended = true;
    this.scroll();
  }

  fail(error, again) {
    const detail = error.detail ? [el("bdi", { class: "detail" }, error.detail)] : [];
    this.element.append(el("div", { class: "turn-error" }, icon("failed"), el("div", {}, el("p", {}, error.message), ...detail, again)));
    this.scroll();
  }

  /** Return the text of the status line while the response is in progress. */
  progress(model) {
    const seconds = (performance.now() - this.began) / 1000;
    if (this.first) {
      const speed = this.speed();
      return `${count(this.tokens, "token")}${speed ? `, ${speed}` : ""}`;
    }
    const waited = duration(Math.floor(seconds)).replace(".0", "");
    const position = /^queued, position (\d+)$/.exec(this.comment);
    if (model && model.state !== "Ready" && model.state !== "Failed") return `Starting ${this.model}, ${waited}`;
    if (position) return `Queued, position ${position[1]}, ${waited}`;
    return `${this.comment ? `Waiting (${this.comment.slice(0, 80)})` : "Waiting for the first token"}, ${waited}`;
  }

  /** Return the text of the status line after the end. */
  summary() {
    if (!this.first) return "";
    const speed = this.speed();
    const wait = `first token after ${duration((this.first - this.began) / 1000)}`;
    return [count(this.tokens, "token"), speed, wait].filter(Boolean).join(", ");
  }

  speed() {
    const seconds = (this.last - this.first) / 1000;
    // The first token ends the computation of the prompt, and counts for nothing.
    return seconds > 0.2 ? `${rate((this.tokens - 1) / seconds)} tokens/s` : "";
  }

  addReasoning() {
    const text = el("p", { class: "content" });
    this.content.before(el("details", { class: "reasoning" }, el("summary", {}, "Reasoning"), text));
    return text;
  }

  isAtEnd() {
    return this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 40;
  }

  scroll() {
    this.log.scrollTop = this.log.scrollHeight;
  }
}
