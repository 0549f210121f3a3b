// With labels: the confusion at the threshold, and ROC and precision-recall curves.

const CELLS = [
  { truth: 1, label: 1, text: "found" },
  { truth: 1, label: 0, text: "missed" },
  { truth: 0, label: 1, text: "false" },
  { truth: 0, label: 0, text: "passed" },
];

function confusion() {
  const count = (truth, label) =>
    data.samples.filter((sample) => sample.truth === truth && judged(sample) === label).length;
  return Object.fromEntries(CELLS.map((cell) => [cell.text, count(cell.truth, cell.label)]));
}

function showConfusion() {
  const found = confusion();
  const cell = ({ truth, label, text }) =>
    el(
      "td",
      { class: truth === label ? "right" : "wrong" },
      el(
        "button",
        { type: "button", class: found[text] ? "cell" : "cell zero", "data-cell": text, onclick: () => showOnly(text) },
        el("strong", {}, String(found[text])),
        el("span", {}, { found: "found", missed: "missed", false: "false alarms", passed: "passed" }[text]),
      ),
    );
  const row = (truth, name) => el("tr", {}, el("th", { scope: "row" }, name), ...CELLS.filter((c) => c.truth === truth).map(cell));
  byId("confusion").replaceChildren(
    el("caption", {}, "At the threshold"),
    el("tr", {}, el("td"), el("th", { scope: "col" }, "judged defective"), el("th", { scope: "col" }, "judged good")),
    row(1, "labelled defective"),
    row(0, "labelled good"),
  );
}

// Cumulative counts from the highest score down, one point for each different score.
function sweep() {
  const known = data.samples
    .filter((sample) => sample.truth !== null && sample.score !== null)
    .sort((a, b) => b.score - a.score);
  const [positive, negative] = [1, 0].map((truth) => known.filter((sample) => sample.truth === truth).length);
  const found = [];
  let [hits, alarms] = [0, 0];
  known.forEach((sample, i) => {
    if (sample.truth) hits++;
    else alarms++;
    if (i + 1 === known.length || known[i + 1].score !== sample.score) found.push({ score: sample.score, hits, alarms });
  });
  return { positive, negative, found };
}

function drawCurves() {
  const place = byId("curves");
  if (!data.metrics) {
    place.replaceChildren(el("p", { class: "hint" }, "Curves need labels of both kinds, good and defective."));
    return;
  }
  const { positive, negative, found } = sweep();
  const now = confusion();
  const decided = now.found + now.false + now.missed + now.passed > 0;
  const texts = found.map((point) => shown(point.score));
  const curves = [
    {
      title: "ROC",
      x: "false alarms",
      y: "found",
      points: [[0, 0], ...found.map((p) => [p.alarms / negative, p.hits / positive])],
      texts: ["∞", ...texts],
      at: decided ? [now.false / negative, now.found / positive] : null,
    },
    {
      title: "Precision and recall",
      x: "recall",
      y: "precision",
      points: found.map((p) => [p.hits / positive, p.hits / (p.hits + p.alarms)]),
      texts,
      at: now.found + now.false ? [now.found / positive, now.found / (now.found + now.false)] : null,
    },
  ];
  while (place.children.length < curves.length) place.append(el("div", { class: "curve" }));
  Promise.all(curves.map((curve, i) => drawCurve(place.children[i], curve))).catch((error) => {
    place.replaceChildren(el("p", { class: "hint" }, error.message));
  });
}

function startLabels() {
  if (!labelled) return;
  byId("labels").hidden = false;
  const names = { AUROC: "AUROC", AP: "AP", F1Max: "F1-max" };
  byId("metrics").textContent = Object.entries(names)
    .filter(([key]) => data.metrics && data.metrics[key] !== null)
    .map(([key, name]) => `${name} ${(100 * data.metrics[key]).toFixed(1)} %`)
    .join("   ");
  when("decision", showConfusion);
  showConfusion();
  // Not before they are looked at: the script for charts takes a second of a phone's time.
  let seen = false;
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    seen = true;
    drawCurves();
  }).observe(byId("curves"));
  // At most once a frame, however fast the slider moves.
  let due = false;
  const again = () => {
    if (!seen || due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      drawCurves();
    });
  };
  when("decision", again);
  when("theme", again);
}
