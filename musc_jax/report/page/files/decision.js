// The histogram of the scores, the rules' thresholds, and the slider that judges anew.

const values = data.decisions.map((rule) => rule.value).filter((value) => value !== null);
const [lowest, highest] = (() => {
  const all = [...scores, ...values];
  if (!all.length) return [0, 1];
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const edge = 0.03 * (high - low) || 0.05 * Math.abs(low) || 0.5;
  return [low - edge, high + edge];
})();

function moveTo(threshold, rule = null) {
  state.threshold = threshold;
  state.rule = rule;
  state.touched = rule === null ? threshold !== null : rule !== 0;
  changed("decision");
}

const SORTED = labelled ? "labelled" : "judged";
const PAD = { left: 34, right: 10, bottom: 30 };
function bins() {
  const sorted = [...scores].sort((a, b) => a - b);
  const quartile = (q) => sorted[Math.floor(q * (sorted.length - 1))];
  const width = 2 * (quartile(0.75) - quartile(0.25)) * sorted.length ** (-1 / 3);
  const number = Math.round(Math.min(60, Math.max(12, width > 0 ? (highest - lowest) / width : 12)));
  const found = Array.from({ length: number }, (_, i) => ({
    low: lowest + ((highest - lowest) * i) / number,
    high: lowest + ((highest - lowest) * (i + 1)) / number,
    samples: [],
  }));
  for (const sample of data.samples) {
    if (sample.score === null) continue;
    found[Math.min(number - 1, Math.floor(((sample.score - lowest) / (highest - lowest)) * number))].samples.push(sample);
  }
  return found;
}
const binned = scores.length ? bins() : [];

// Round numbers for an axis, about as many as asked for.
function ticks(low, high, about) {
  const raw = (high - low) / about;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(i * step);
  return found;
}

// Names of thresholds above the bars, in as many rows as it takes for none to lie over another.
function placeNames(rules, x, width) {
  const rows = [];
  return rules.map((rule) => {
    const text = readable(rule.rule).slice(0, 22);
    const size = 6.6 * text.length + 12;
    const left = Math.min(Math.max(x(rule.value) - size / 2, 0), width - size);
    let row = rows.findIndex((end) => left >= end);
    if (row < 0) row = rows.push(0) - 1;
    rows[row] = left + size;
    return { rule, row, text, middle: left + size / 2, rows };
  });
}

function drawHistogram() {
  const svg = byId("histogram");
  const width = Math.max(260, svg.parentElement.clientWidth);
  const plot = width - PAD.left - PAD.right;
  const x = (value) => PAD.left + (plot * (value - lowest)) / (highest - lowest);
  const drawn = data.decisions
    .map((rule, index) => ({ ...rule, index }))
    .filter((rule) => rule.value !== null)
    .sort((a, b) => a.value - b.value);
  const names = placeNames(drawn, x, width);
  const top = 8 + 16 * (names[0]?.rows.length ?? 0);
  const height = top + 150 + PAD.bottom;
  const most = Math.max(1, ...binned.map((bin) => bin.samples.length));
  const y = (count) => height - PAD.bottom - (150 * count) / most;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  svg.replaceChildren();
  for (const count of ticks(0, most, 3).filter(Number.isInteger)) {
    svg.append(
      el("line", { class: "grid", x1: PAD.left, x2: width - PAD.right, y1: y(count), y2: y(count) }),
      el("text", { class: "tick", x: PAD.left - 6, y: y(count) + 4, "text-anchor": "end" }, String(count)),
    );
  }
  const steps = ticks(lowest, highest, plot / 90);
  const digits = digitsFor([steps[0] ?? 0, steps[1] ?? 1]) - 1;
  for (const value of steps) {
    const place = { class: "tick", x: x(value), y: height - 4, "text-anchor": "middle" };
    svg.append(el("text", place, shown(value, Math.max(0, digits))));
  }
  for (const bin of binned) drawBin(svg, bin, x, y);
  for (const { rule, row, text, middle } of names) {
    const now = rule.index === state.rule;
    const at = 12 + 16 * row;
    svg.append(
      el("line", { class: now ? "rule now" : "rule", x1: x(rule.value), x2: x(rule.value), y1: at + 4, y2: y(0) }),
      el("text", { class: now ? "rule-name now" : "rule-name", x: middle, y: at, "text-anchor": "middle" }, text),
    );
  }
  if (Number.isFinite(state.threshold) && state.threshold !== null) {
    const at = Math.min(Math.max(x(state.threshold), PAD.left), width - PAD.right);
    svg.append(el("line", { class: "threshold-line", x1: at, x2: at, y1: top, y2: y(0) }));
  }
  svg.append(el("line", { class: "axis", x1: PAD.left, x2: width - PAD.right, y1: y(0), y2: y(0) }));
  if (state.current && state.current.score !== null) {
    const at = x(state.current.score);
    const mark = `M${at} ${y(0) + 2}l-5 8h10z`;
    svg.append(el("path", { class: "mark", d: mark }, el("title", {}, `selected: ${shown(state.current.score)}`)));
  }
}

// Defective above good; with labels by what they are, otherwise by how they are judged.
function drawBin(svg, bin, x, y) {
  let below = 0;
  for (const label of [null, 0, 1]) {
    const found = bin.samples.filter((sample) => (labelled ? sample.truth : judged(sample)) === label);
    if (!found.length) continue;
    const bar = {
      class: `bin ${WORDS[label] ?? "none"}`,
      x: x(bin.low) + 0.75,
      width: Math.max(1, x(bin.high) - x(bin.low) - 1.5),
      y: y(below + found.length),
      height: y(below) - y(below + found.length),
    };
    const what = label === null ? `not ${SORTED}` : `${SORTED} ${WORDS[label]}`;
    const text = `${shown(bin.low)} to ${shown(bin.high)}: ${found.length} ${what}`;
    svg.append(el("rect", bar, el("title", {}, text)));
    below += found.length;
  }
}

const sentence = (text) => text && `${text[0].toUpperCase()}${text.slice(1)}${text.endsWith(".") ? "" : "."}`;
function drawRules() {
  const rows = data.decisions.map((rule, index) =>
    el(
      "label",
      { class: index === state.rule ? "rule-row now" : "rule-row" },
      el("input", {
        type: "radio",
        name: "rule",
        value: index,
        onchange: () => moveTo(rule.value ?? Infinity, index),
      }),
      el("span", { class: "rule-title" }, el("bdi", {}, readable(rule.rule)), index === 0 ? el("span", { class: "tag" }, "chosen") : ""),
      el("span", { class: "number" }, rule.value === null ? "no clear defects" : shown(rule.value)),
      el("span", { class: "number count" }, many(rule.count, "defective", "defective")),
      el("span", { class: "hint" }, readable(rule.stability)),
    ),
  );
  byId("rules").append(...rows);
}

function showDecision() {
  const count = data.samples.filter((sample) => judged(sample) === 1).length;
  const all = data.samples.length;
  const decided = state.threshold !== null;
  byId("judged").textContent = decided ? `${count} of ${all} judged defective (${share(count, all)})` : "Nothing decided yet";
  const finite = decided && Number.isFinite(state.threshold);
  byId("slider").value = finite ? state.threshold : highest;
  byId("slider").setAttribute("aria-valuetext", `${decided ? shown(state.threshold) : "none"}, ${count} judged defective`);
  if (document.activeElement !== byId("threshold")) {
    byId("threshold").value = finite ? String(+state.threshold.toFixed(DIGITS + 2)) : "";
  }
  byId("reset").hidden = !state.touched;
  document.querySelectorAll("#rules label").forEach((row, index) => {
    row.classList.toggle("now", index === state.rule);
    row.querySelector("input").checked = index === state.rule;
  });
  const rule = data.decisions[state.rule];
  byId("assumption").textContent = rule
    ? sentence(readable(rule.assumes))
    : decided
      ? "A threshold set by hand: samples that score above it are defective."
      : "";
  byId("histogram-text").textContent =
    (scores.length
      ? `Histogram of ${many(scores.length, "score")} from ${shown(Math.min(...scores))} to ${shown(Math.max(...scores))}. `
      : "") + byId("judged").textContent;
  drawHistogram();
}

function startDecision() {
  const slider = byId("slider");
  Object.assign(slider, { min: lowest, max: highest, step: (highest - lowest) / 500 });
  slider.addEventListener("input", () => moveTo(+slider.value));
  byId("threshold").addEventListener("input", (event) => {
    if (event.target.value !== "" && Number.isFinite(+event.target.value)) moveTo(+event.target.value);
  });
  byId("threshold").addEventListener("change", showDecision);
  byId("reset").addEventListener("click", () => {
    moveTo(chosen ? chosen.value ?? Infinity : null, chosen && 0);
    byId("slider").focus();
  });
  drawRules();
  byId("bar-key").textContent = `${SORTED} defective`;
  when("decision", showDecision);
  when("current", drawHistogram);
  when("theme", drawHistogram);
  new ResizeObserver(drawHistogram).observe(byId("histogram").parentElement);
  showDecision();
}
