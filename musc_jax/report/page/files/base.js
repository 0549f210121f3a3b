// What all parts of the page use: the content, elements, numbers, and what is chosen at the moment.

const data = JSON.parse(document.getElementById("content").textContent);
const byId = (id) => document.getElementById(id);

// An element; strings among its children become text and never markup.
function el(tag, attributes = {}, ...children) {
  const element = tag === "svg" || tag in SHAPES ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}
const SVG = "http://www.w3.org/2000/svg";
const SHAPES = { g: 1, rect: 1, line: 1, text: 1, title: 1, path: 1, circle: 1 };

// Names as they can be read: what is invisible, or turns the text around it, is spelled out.
const INVISIBLE = /[\p{Cc}\p{Zl}\p{Zp}\p{Cs}\p{Bidi_Control}\ufeff]/gu;
function readable(text) {
  return String(text).replace(INVISIBLE, (found) => `\\u{${found.codePointAt(0).toString(16)}}`);
}
function nameOf(sample, className = "name") {
  return el("bdi", { class: className, title: readable(sample.name) }, readable(sample.name));
}

// As many digits as tell the scores of this batch apart.
function digitsFor(values) {
  const finite = values.filter(Number.isFinite);
  const spread = finite.length ? Math.max(...finite) - Math.min(...finite) : 0;
  const size = spread || Math.abs(finite[0] ?? 1) || 1;
  return Math.min(8, Math.max(0, 2 - Math.floor(Math.log10(size))));
}
const scores = data.samples.map((sample) => sample.score).filter((score) => score !== null);
const DIGITS = digitsFor(scores);
function shown(value, digits = DIGITS) {
  if (value === null || value === undefined) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (Math.abs(value) >= 1e6) return value.toExponential(3);
  return value.toFixed(digits).replace("-", "−");
}
const share = (part, all) => (all ? `${((100 * part) / all).toFixed(part && part < all / 100 ? 1 : 0)} %` : "–");
const many = (count, one, several = `${one}s`) => `${count} ${count === 1 ? one : several}`;

const WORDS = { 0: "good", 1: "defective" };
const chosen = data.decisions[0] ?? null;
const labelled = data.samples.some((sample) => sample.truth !== null);

// `threshold` is null where nothing was decided; Infinity where no score is high enough.
const state = {
  threshold: chosen ? chosen.value ?? Infinity : null,
  rule: chosen && 0,
  touched: false,
  current: data.samples[0] ?? null,
  filter: "all",
  search: "",
  order: labelled ? "wrong" : "worst",
  table: false,
};

// The run's own decision until somebody moves the threshold.
function judged(sample) {
  if (!state.touched || state.threshold === null) return sample.label;
  return sample.score !== null && sample.score > state.threshold ? 1 : 0;
}
// "missed" and "false" where the decision and the label differ.
function mistake(sample) {
  const label = judged(sample);
  if (label === null || sample.truth === null || label === sample.truth) return null;
  return label ? "false" : "missed";
}
function badge(label, text = WORDS[label]) {
  return el("span", { class: `badge ${WORDS[label] ?? "none"}` }, text ?? "not judged");
}

// Parts of the page draw themselves anew when something that they show has changed.
const listeners = {};
const when = (event, action) => (listeners[event] ??= []).push(action);
const changed = (...events) => {
  for (const event of events) for (const action of listeners[event] ?? []) action();
};

const styles = getComputedStyle(document.documentElement);
const color = (name) => styles.getPropertyValue(`--${name}`).trim();
