// One sample: its pictures beside each other, its cloud, its numbers, and a person's verdict.

let asked = 0;
let cloudShown = false;

function figure(sample, view, text, kind = null) {
  const [width, height] = drawnSize(sample, 512);
  const canvas = el("canvas", { role: "img", "aria-label": text, width, height });
  const shape = height > 1.5 * width ? "tall" : width > 2.2 * height ? "large" : "";
  const peak = el("span", { class: "number" });
  const frame = el(
    "figure",
    { class: `panel ${shape}`, "data-view": view, "data-kind": kind },
    el("button", { type: "button", class: "frame", "aria-label": `${text}: larger or smaller`, onclick: enlarge }, canvas),
    el("figcaption", {}, el("span", {}, text), peak),
  );
  return { frame, canvas, peak, view, kind };
}
function enlarge(event) {
  event.currentTarget.closest("figure").classList.toggle("large");
}

function panels(sample) {
  const kinds = Object.keys(data.kinds).filter((kind) => sample.maps?.[kind]);
  const outlined = [data.pixelThreshold !== null && kinds.length ? "predicted" : null, sample.mask ? "labelled" : null];
  const found = [];
  if (sample.image) found.push(figure(sample, "image", "Image"));
  if (sample.image && kinds.length) found.push(figure(sample, "overlay", "Overlay"));
  if (outlined.some(Boolean)) found.push(figure(sample, "outline", "Outline"));
  for (const kind of kinds) found.push(figure(sample, "map", kinds.length > 1 ? `Map: ${kind}` : "Map", kind));
  return found;
}

async function drawPanel({ frame, canvas, peak, view, kind }, sample, turn) {
  const longest = view === "map" && !frame.classList.contains("tall") ? 320 : 512;
  const map = await draw(canvas, sample, view, longest, kind ?? mainMap(sample));
  if (turn !== asked) return;
  if (view === "map") {
    const above = map.peak - data.kinds[kind].normal;
    peak.textContent = `peak ${shown(map.peak)} (${above >= 0 ? "+" : ""}${shown(above)})`;
    canvas.addEventListener("pointermove", (event) => readOut(event, canvas, map, kind, sample));
  }
  if (view === "outline") frame.querySelector("button").append(...boxes(sample));
}
function readOut(event, canvas, map, kind, sample) {
  const box = canvas.getBoundingClientRect();
  const at = (place, size, count) => Math.min(count - 1, Math.max(0, Math.floor((place / size) * count)));
  const x = at(event.clientX - box.left, box.width, canvas.width);
  const y = at(event.clientY - box.top, box.height, canvas.height);
  const [width, height] = sample.full;
  const [u, v] = [Math.round(((x + 0.5) / canvas.width) * width), Math.round(((y + 0.5) / canvas.height) * height)];
  byId("read-out").textContent = `${kind} at (${u}, ${v}): ${shown(map.values[y * canvas.width + x])}`;
}
function boxes(sample) {
  return (sample.regions ?? []).map(([left, top, right, bottom, peak]) =>
    el("span", {
      class: "box",
      title: `peak ${shown(peak)}`,
      style: `left:${100 * left}%;top:${100 * top}%;width:${100 * (right - left)}%;height:${100 * (bottom - top)}%`,
    }),
  );
}

// Colours and what they mean: one scale for every picture of the page.
function scale() {
  if (!data.main) return null;
  const { normal } = data.kinds[data.main];
  const stops = data.heat.map((rgb, i) => `rgb(${rgb.join(",")}) ${(100 * i) / (data.heat.length - 1)}%`).join(",");
  const tick = (part, text, className = "") =>
    el("span", { class: `scale-tick ${className}`, style: `left:${100 * Math.min(1, Math.max(0, part))}%` }, text);
  const bar = el("div", { class: "scale-bar", style: `background:linear-gradient(90deg,${stops})` });
  const numbers = el("div", { class: "scale-ticks" });
  for (const part of [0, 0.25, 0.5, 0.75, 1]) numbers.append(tick(part, shown(normal + part * data.span)));
  if (data.pixelThreshold !== null) {
    const part = (data.pixelThreshold - normal) / data.span;
    if (part >= 0 && part <= 1) bar.append(el("span", { class: "scale-mark", style: `left:${100 * part}%` }));
  }
  const others = Object.entries(data.kinds).filter(([kind]) => kind !== data.main);
  const text =
    "Dark: at most what normal surface reaches" +
    (others.length
      ? `; the colours of ${others.map(([kind, { normal }]) => `${kind} begin at ${shown(normal)}`).join(", ")} and span as much.`
      : ".") +
    (data.pixelThreshold === null ? "" : ` Outlined above ${shown(data.pixelThreshold)}.`);
  return el(
    "div",
    { class: "scale" },
    bar,
    numbers,
    el("p", { class: "hint" }, text, el("span", { id: "read-out", class: "number" })),
  );
}

function legend(sample) {
  const parts = [];
  if (data.pixelThreshold !== null && mainMap(sample)) parts.push(el("span", { class: "key predicted" }, "predicted"));
  if (sample.mask) parts.push(el("span", { class: "key truth" }, "labelled"));
  return parts.length ? el("p", { class: "legend" }, ...parts) : null;
}

function facts(sample) {
  const rows = [
    ["Score", shown(sample.score)],
    ["Map's peak", shown(sample.max)],
    ["Percentile", shown(sample.percentile, 0)],
    ["Rank", `${sample.rank} of ${data.samples.length}`],
    ...(sample.regions?.length ? [["Regions", String(sample.regions.length)]] : []),
    ...(sample.truth === null ? [] : [["Label", WORDS[sample.truth]]]),
  ];
  return el("dl", { class: "facts" }, ...rows.map(([key, value]) => el("div", {}, el("dt", {}, key), el("dd", {}, value))));
}

function verdictButtons(sample) {
  const button = (verdict, key) =>
    el(
      "button",
      {
        type: "button",
        class: `say ${verdict}`,
        "data-verdict": verdict,
        "aria-pressed": verdictOf(sample) === verdict,
        onclick: () => say(sample, verdictOf(sample) === verdict ? null : verdict),
      },
      verdict === "good" ? "Good" : "Defective",
      el("kbd", {}, key),
    );
  return el(
    "div",
    { class: "says", role: "group", "aria-label": "Your verdict" },
    el("span", { class: "muted" }, "Your verdict"),
    button("good", "G"),
    button("defective", "D"),
  );
}

function cloudPart(sample) {
  if (!sample.cloud) return null;
  const place = el("div");
  const message = el("p", { class: "hint", role: "status" });
  const turn = (angle, text, arrow) =>
    el("button", { type: "button", class: "quiet", "aria-label": text, onclick: () => turnCloud(angle) }, arrow);
  const tools = el("div", { class: "cloud-tools", hidden: true }, turn(0.35, "Turn left", "↺"), turn(-0.35, "Turn right", "↻"));
  const show = el("button", { type: "button", id: "show-cloud", class: "plain" }, "Show the cloud");
  const hide = el("button", { type: "button", class: "quiet", onclick: () => ((cloudShown = false), showDetail()) }, "Hide");
  tools.append(hide);
  const begin = async () => {
    show.disabled = true;
    message.textContent = "Drawing …";
    try {
      place.append(cloudPlace);
      await drawCloud(sample.cloud, `Cloud of ${sample.cloud.values.length} points, coloured by score`);
      [cloudShown, show.hidden, tools.hidden, message.textContent] = [true, true, false, "Drag to turn, pinch or scroll to come closer."];
    } catch (error) {
      place.remove();
      [show.hidden, message.textContent] = [true, error.message];
    }
  };
  show.addEventListener("click", begin);
  if (cloudShown) begin();
  return el("section", { class: "part", "aria-label": "Cloud" }, el("div", { class: "part-head" }, el("h4", {}, "Cloud"), tools), show, place, message);
}

function votersPart(sample) {
  if (!sample.voters?.length) return null;
  const pictures = sample.voters.map(([caption, address]) =>
    el("figure", {}, el("img", { src: address, alt: readable(caption), loading: "lazy" }), el("figcaption", {}, readable(caption))),
  );
  return el("details", { class: "part" }, el("summary", {}, "Who voted?"), el("div", { class: "voters" }, ...pictures));
}

function heading(sample) {
  const move = (by, text, arrow) =>
    el("button", { type: "button", class: "quiet step", "data-step": by, "aria-label": text, onclick: () => step(by) }, arrow);
  const where = visible.indexOf(sample);
  return el(
    "div",
    { class: "detail-head" },
    el(
      "div",
      { class: "detail-title" },
      el("h3", { id: "detail-name" }, nameOf(sample)),
      sample.path && sample.path !== sample.name ? el("p", { class: "path" }, el("bdi", {}, readable(sample.path))) : "",
    ),
    el(
      "div",
      { class: "steps" },
      move(-1, "Previous sample", "←"),
      el("span", { class: "muted number" }, where < 0 ? "–" : `${where + 1} / ${visible.length}`),
      move(1, "Next sample", "→"),
    ),
  );
}

function showDetail() {
  const sample = state.current;
  const place = byId("detail");
  if (!sample) {
    place.replaceChildren(el("p", { class: "empty" }, "No sample was scored."));
    return;
  }
  const turn = ++asked;
  const drawn = panels(sample);
  const warnings = sample.health.map((i) => el("p", { class: "warning" }, readable(data.health[i].slice(1).filter(Boolean).join(". "))));
  const held = document.activeElement?.dataset?.step;
  place.replaceChildren(
    heading(sample),
    el("div", { class: "detail-row" }, el("span", { id: "detail-marks" }, marks(sample)), verdictButtons(sample)),
    facts(sample),
    ...warnings,
    drawn.length
      ? el("div", { class: "panels" }, ...drawn.map(({ frame }) => frame))
      : el("p", { class: "hint" }, "No pictures in this page: it has those of the worst samples only."),
    ...[legend(sample), drawn.some(({ view }) => view !== "image") ? scale() : null, cloudPart(sample), votersPart(sample)].filter(Boolean),
    el("p", { class: "hint keys" }, "Keys: ← → previous and next, G good, D defective, U take back"),
  );
  if (held) place.querySelector(`[data-step="${held}"]`).focus();
  drawPanels(drawn, sample, turn);
}
// One after the other, and no more of them when the next sample has been asked for.
async function drawPanels(drawn, sample, turn) {
  for (const panel of drawn) {
    if (turn !== asked) return;
    await drawPanel(panel, sample, turn).catch(() => panel.frame.classList.add("broken"));
  }
}

// What changes with the threshold or a verdict, without drawing the pictures again.
function refreshDetail() {
  const sample = state.current;
  if (!sample) return;
  byId("detail-marks").replaceChildren(marks(sample));
  for (const button of byId("detail").querySelectorAll("[data-verdict]")) {
    button.setAttribute("aria-pressed", verdictOf(sample) === button.dataset.verdict);
  }
  const where = visible.indexOf(sample);
  byId("detail").querySelector(".steps .number").textContent = where < 0 ? "–" : `${where + 1} / ${visible.length}`;
}

function startDetail() {
  when("current", showDetail);
  for (const event of ["list", "decision", "verdicts"]) when(event, refreshDetail);
  showDetail();
}
