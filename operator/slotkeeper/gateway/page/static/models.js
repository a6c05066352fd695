// The dashboard: totals, models with their slots and queues, and scaling decisions.

import { ago, count, el, icon, integer, rate, setText, words } from "./dom.js";

const STATES = {
  Ready: ["ready", "Ready"],
  Waking: ["waking", "Waking"],
  AtZero: ["zero", "At zero"],
  Failed: ["failed", "Failed"],
};
const MAX_SQUARES = 64; // beyond, a square stands for several slots
const MAX_DECISIONS = 20;
const MAX_SAMPLES = 90; // of a spark line

export class Dashboard {
  /** `onChat(name)` is called to chat with a model. */
  constructor(onChat) {
    this.onChat = onChat;
    this.rows = new Map();
    this.decisions = new Map();
    this.samples = { slots: [], queued: [], tokens: [] };
    this.state = null;
    this.wanted = ""; // the state in the filter; "": all
    this.filter = byId("filter");
    this.filter.addEventListener("input", () => this.applyFilter());
    this.chips = new Map();
    this.mix = new Map(Object.entries(STATES).map(([state, [symbol]]) => [state, el("span", { class: `mix-${symbol}` })]));
    byId("mix").append(...this.mix.values());
    for (const [state, label] of [["", "All"], ...Object.entries(STATES).map(([key, [, text]]) => [key, text])]) {
      const number = el("span", { class: "chip-count" }, "–");
      const chip = el("button", { type: "button", class: "chip", "aria-pressed": String(state === "") }, `${label} `, number);
      chip.addEventListener("click", () => this.choose(state));
      this.chips.set(state, { chip, number });
      byId("states").append(chip);
    }
  }

  /** Show a state of the gateway. `now()`: its clock, in milliseconds. */
  render(state, now) {
    this.now = now;
    this.state = state;
    this.renderTotals(state);
    const keys = new Set();
    const body = byId("models");
    let position = 0;
    for (const model of state.models) {
      const key = `${model.server}\n${model.name}`;
      keys.add(key);
      let row = this.rows.get(key);
      if (!row) {
        row = new Row(model, this.onChat);
        this.rows.set(key, row);
      }
      row.update(model);
      row.position = position++;
    }
    for (const [key, row] of this.rows) {
      if (keys.has(key)) continue;
      row.element.remove();
      this.rows.delete(key);
    }
    // After the removals: rows that stay are moved only if their order changes, and keep the focus.
    for (const row of [...this.rows.values()].sort((a, b) => a.position - b.position)) {
      const present = body.children[row.position];
      if (present !== row.element) body.insertBefore(row.element, present ?? null);
    }
    this.applyFilter();
  }

  /** Forget all data: it belongs to another API key. */
  clear() {
    this.state = null;
    byId("models").replaceChildren();
    byId("decisions").replaceChildren();
    this.rows.clear();
    this.decisions.clear();
    for (const samples of Object.values(this.samples)) samples.length = 0;
    for (const { number } of this.chips.values()) setText(number, "–");
    for (const part of this.mix.values()) part.style.flexGrow = 0;
    for (const id of ["total-models", "total-slots", "total-queued", "total-tokens"]) setText(byId(id), "–");
    for (const id of ["slots", "queued", "tokens"]) drawSpark(byId(`spark-${id}`), []);
    show("models-note", "Loading models…");
    show("decisions-note", "Loading decisions…");
  }

  renderTotals(state) {
    const totals = { ready: 0, busy: 0, slots: 0, queued: 0, tokens: 0, measured: false };
    const byState = { "": state.models.length };
    for (const model of state.models) {
      byState[model.state] = (byState[model.state] ?? 0) + 1;
      totals.busy += model.slots.busy;
      totals.slots += model.slots.total;
      totals.queued += model.queued;
      totals.tokens += model.tokensPerSecond ?? 0;
      totals.measured ||= model.tokensPerSecond !== null;
    }
    setText(byId("total-models"), `${integer.format(byState.Ready ?? 0)} of ${integer.format(state.modelCount)}`);
    setText(byId("total-slots"), `${integer.format(totals.busy)} of ${integer.format(totals.slots)}`);
    setText(byId("total-queued"), integer.format(totals.queued));
    setText(byId("total-tokens"), totals.measured ? rate(totals.tokens) : "–");
    this.sample("slots", totals.busy, totals.slots);
    this.sample("queued", totals.queued);
    this.sample("tokens", totals.tokens);
    for (const [key, part] of this.mix) part.style.flexGrow = byState[key] ?? 0;
    for (const [key, { chip, number }] of this.chips) {
      setText(number, integer.format(byState[key] ?? 0));
      chip.classList.toggle("none", !byState[key]);
    }
  }

  sample(name, value, maximum = 0) {
    const samples = this.samples[name];
    samples.push(value);
    if (samples.length > MAX_SAMPLES) samples.shift();
    drawSpark(byId(`spark-${name}`), samples, maximum);
  }

  choose(state) {
    this.wanted = state;
    for (const [key, { chip }] of this.chips) chip.setAttribute("aria-pressed", String(key === state));
    this.applyFilter();
  }

  applyFilter() {
    if (!this.state) return;
    const text = this.filter.value.trim().toLowerCase();
    const matches = (...names) => !text || names.some((name) => name.toLowerCase().includes(text));
    let shown = 0;
    for (const { element, model } of this.rows.values()) {
      const matching =
        (!this.wanted || model.state === this.wanted) && matches(model.name, model.server, ...model.aliases);
      element.hidden = !matching;
      if (matching) shown += 1;
    }
    const total = this.rows.size;
    const further = this.state.modelCount - total;
    if (!total) {
      show("models-note", "No models. Create a LlamaServer that matches the gateway's serverSelector.");
    } else if (!shown) {
      show("models-note", "No model matches the filter.");
    } else if (shown < total) {
      show("models-note", `${integer.format(shown)} of ${count(total, "model")}`);
    } else {
      show("models-note", further > 0 ? `${integer.format(further)} more are not shown.` : "");
    }
    this.renderDecisions((event) => matches(event.model, event.server));
  }

  renderDecisions(matches) {
    const events = this.state.history.filter(matches).slice(0, MAX_DECISIONS);
    const kept = new Map();
    for (const event of events) {
      const key = JSON.stringify([event.server, event.model, event.time, event.from, event.to]);
      kept.set(key, this.decisions.get(key) ?? new Decision(event));
    }
    const elements = [...kept.values()].map((decision) => decision.element);
    const list = byId("decisions");
    if (elements.length !== list.children.length || elements.some((each, index) => each !== list.children[index])) {
      list.replaceChildren(...elements);
    }
    this.decisions = kept;
    this.tick();
    const none = this.state.history.length ? "No decision matches the filter." : "No scaling decisions yet.";
    show("decisions-note", events.length ? "" : none);
  }

  /** Update relative times. */
  tick() {
    for (const decision of this.decisions.values()) decision.tick(this.now());
  }
}

class Row {
  constructor(model, onChat) {
    const name = el("bdi", { class: "name" }, model.name);
    this.aliases = el("span", { class: "aliases" });
    this.message = el("bdi", { class: "message" });
    this.state = el("span", { class: "state" });
    this.slots = new Slots();
    this.queued = el("span", { class: "number" });
    this.fill = el("span", { class: "bar-fill" });
    this.bar = el("span", { class: "bar", "aria-hidden": "true" }, this.fill);
    this.tokens = el("span", { class: "number" });
    this.chat = el("button", { type: "button", class: "quiet" }, "Chat", el("span", { class: "hidden-text" }, " with ", el("bdi", {}, model.name)));
    this.chat.addEventListener("click", () => onChat(model.name));
    const cell = (label, ...children) => el("td", { role: "cell", "data-label": label }, ...children);
    this.element = el(
      "tr",
      { role: "row" },
      el("th", { role: "rowheader", scope: "row" }, name, this.aliases, this.message),
      cell("State", this.state),
      cell("Slots", this.slots.element),
      cell("Queued", this.queued, this.bar),
      cell("Tokens/s", this.tokens),
      cell("", this.chat),
    );
  }

  update(model) {
    this.model = model;
    if (this.shownState !== model.state) {
      this.shownState = model.state;
      const [symbol, label] = STATES[model.state] ?? ["zero", model.state];
      this.state.className = `state state-${symbol}`;
      this.state.replaceChildren(icon(symbol), label);
      this.element.className = `is-${symbol}`;
    }
    const aliases = model.aliases.join(", ");
    if (aliases !== this.shownAliases) {
      this.shownAliases = aliases;
      this.aliases.replaceChildren(...(aliases ? ["also ", el("bdi", {}, aliases)] : []));
    }
    setText(this.message, model.message);
    this.slots.update(model);
    setText(this.queued, integer.format(model.queued));
    this.bar.classList.toggle("none", !model.queued);
    // Full: as many queued requests as slots, so that each slot has a second request to process.
    this.fill.style.width = `${Math.min(100, (100 * model.queued) / Math.max(1, model.slots.total))}%`;
    setText(this.tokens, model.tokensPerSecond === null ? "–" : rate(model.tokensPerSecond));
  }
}

/** Slots as squares, one for each slot, or for several if there are many. */
class Slots {
  constructor() {
    this.squares = el("span", { class: "squares", role: "img" });
    this.text = el("span", { class: "slots-text", "aria-hidden": "true" });
    this.element = el("span", { class: "slots" }, this.text, this.squares);
    this.shown = "";
  }

  update({ slots: { total, busy }, replicas }) {
    const shown = `${total} ${busy} ${replicas}`;
    if (shown === this.shown) return;
    this.shown = shown;
    const unit = Math.ceil(total / MAX_SQUARES) || 1;
    const number = Math.ceil(total / unit);
    while (this.squares.childElementCount > number) this.squares.lastElementChild.remove();
    while (this.squares.childElementCount < number) this.squares.append(el("span", { class: "square" }, el("span", { class: "fill" })));
    [...this.squares.children].forEach((square, index) => {
      const part = Math.max(0, Math.min(1, (busy - index * unit) / Math.min(unit, total - index * unit)));
      square.firstElementChild.style.transform = `scaleY(${part})`;
    });
    const label = total ? `${integer.format(busy)} of ${count(total, "slot")} busy` : "no slots";
    const each = unit > 1 ? `, one square is ${unit} slots` : "";
    this.squares.setAttribute("aria-label", `${label}, ${count(replicas, "replica")} ready${each}`);
    setText(this.text, total ? `${integer.format(busy)}/${integer.format(total)}` : "–");
    this.element.classList.toggle("none", !total);
    this.element.title = `${count(replicas, "replica")} ready${each}`;
  }
}

class Decision {
  constructor(event) {
    this.time = Date.parse(event.time);
    this.ago = el("time", { datetime: event.time, title: new Date(this.time).toLocaleString() });
    const up = event.to > event.from;
    this.element = el(
      "li",
      { class: up ? "up" : "down" },
      icon(up ? "up" : "down"),
      el(
        "div",
        { class: "decision-text" },
        el("span", { class: "decision-what" }, el("bdi", { class: "name" }, event.model), ` ${event.from} → ${count(event.to, "replica")}`),
        el("span", { class: "decision-why" }, words(event.reason)),
        el("bdi", { class: "decision-message" }, event.message),
      ),
      this.ago,
    );
  }

  tick(now) {
    setText(this.ago, ago((now - this.time) / 1000));
  }
}

function drawSpark(svg, samples, maximum = 0) {
  const top = Math.max(maximum, ...samples, 1);
  const start = MAX_SAMPLES - samples.length;
  const line = samples.map((value, index) => `${start + index} ${(23 - (22 * value) / top).toFixed(1)}`).join("L");
  const [area, stroke] = svg.children;
  stroke.setAttribute("d", samples.length > 1 ? `M${line}` : "");
  area.setAttribute("d", samples.length > 1 ? `M${start} 24L${line}L${MAX_SAMPLES - 1} 24z` : "");
}

function show(id, text) {
  const note = byId(id);
  setText(note, text);
  note.hidden = !text;
}

function byId(id) {
  return document.getElementById(id);
}
