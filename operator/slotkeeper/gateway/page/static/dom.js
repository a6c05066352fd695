// Elements and texts. Everything from the cluster and from models is set as text, never as HTML.

/** Return an element with these attributes and children (elements or texts). */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Return a decorative icon of index.html. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** Set a text if it differs, so that unchanged elements keep selections and cause no layout. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Return the text of a number of things: "1 slot", "3 slots". */
export function count(number, singular, plural = `${singular}s`) {
  return `${integer.format(number)} ${number === 1 ? singular : plural}`;
}

export const integer = new Intl.NumberFormat("en");

/** Return a rate with a digit after the point only where it matters. */
export function rate(number) {
  return number < 9.95 && number > 0 ? number.toFixed(1) : integer.format(Math.round(number));
}

/** Return a duration in seconds as "0.4 s", "12 s" or "3 min 5 s". */
export function duration(seconds) {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** Return how long ago something was, from seconds. */
export function ago(seconds) {
  if (seconds < 5) return "just now";
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= length) return `${Math.floor(seconds / length)} ${unit} ago`;
  }
  return `${Math.floor(seconds)} s ago`;
}

/** Return a CamelCase reason as words: "Queue wait above target". */
export function words(reason) {
  const text = reason.replace(/([a-z])([A-Z])/g, (_, before, after) => `${before} ${after.toLowerCase()}`);
  return text.charAt(0).toUpperCase() + text.slice(1);
}
