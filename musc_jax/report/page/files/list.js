// The samples as pictures or as a table: what is shown, in which order, and which is chosen.

const verdictOf = (sample) => verdicts.get(sample.name) ?? null;
const FILTERS = {
  all: { text: "All", fits: () => true },
  defective: { text: "Judged defective", fits: (sample) => judged(sample) === 1 },
  good: { text: "Judged good", fits: (sample) => judged(sample) === 0 },
  missed: { text: "Missed", fits: (sample) => mistake(sample) === "missed", labels: true },
  false: { text: "False alarms", fits: (sample) => mistake(sample) === "false", labels: true },
  found: { text: "Found", fits: (sample) => sample.truth === 1 && judged(sample) === 1, labels: true },
  passed: { text: "Passed", fits: (sample) => sample.truth === 0 && judged(sample) === 0, labels: true },
  open: { text: "Without a verdict", fits: (sample) => !verdictOf(sample) },
  other: { text: "Verdict differs", fits: (sample) => verdictOf(sample) && verdictOf(sample) !== WORDS[judged(sample)] },
  health: { text: "With a warning", fits: (sample) => sample.health.length > 0 },
};

const byScore = (a, b) => (b.score ?? -Infinity) - (a.score ?? -Infinity) || a.rank - b.rank;
const byText = (key) => (a, b) => key(a).localeCompare(key(b), undefined, { numeric: true });
// How far on the wrong side of the threshold; the worst mistakes first.
const wrongness = (sample) => (mistake(sample) ? 1 + Math.abs(sample.score - limit()) : 0);
const limit = () => (Number.isFinite(state.threshold) && state.threshold !== null ? state.threshold : highest);
const ORDERS = {
  wrong: { text: "Mistakes first", compare: (a, b) => wrongness(b) - wrongness(a) || byScore(a, b), labels: true },
  worst: { text: "Highest score first", compare: byScore },
  best: { text: "Lowest score first", compare: (a, b) => byScore(b, a) },
  near: {
    text: "Nearest to the threshold",
    compare: (a, b) => Math.abs((a.score ?? Infinity) - limit()) - Math.abs((b.score ?? Infinity) - limit()),
  },
  alphabet: { text: "Name", compare: byText((sample) => sample.name) },
};

const COLUMNS = [
  { key: "rank", text: "Rank", number: true, value: (sample) => sample.rank, cell: (sample) => String(sample.rank) },
  { key: "name", text: "Sample", value: (sample) => sample.name, cell: (sample) => nameOf(sample) },
  { key: "score", text: "Score", number: true, value: (sample) => sample.score, cell: (sample) => shown(sample.score) },
  { key: "max", text: "Map's peak", number: true, minor: true, value: (sample) => sample.max, cell: (sample) => shown(sample.max) },
  {
    key: "percentile",
    text: "Percentile",
    number: true,
    minor: true,
    value: (sample) => sample.percentile,
    cell: (sample) => shown(sample.percentile, 0),
  },
  { key: "label", text: "Judged", value: (sample) => judged(sample) ?? -1, cell: (sample) => badge(judged(sample)) },
  {
    key: "truth",
    text: "Label",
    labels: true,
    value: (sample) => sample.truth ?? -1,
    cell: (sample) => (sample.truth === null ? "–" : badge(sample.truth)),
  },
  { key: "verdict", text: "Verdict", value: (sample) => verdictOf(sample) ?? "", cell: (sample) => verdictOf(sample) ?? "–" },
];

// By a column of the table, "score" or "-score" for the highest first.
function columnOrder(order) {
  const column = COLUMNS.find(({ key }) => key === order.replace(/^-/, ""));
  const sign = order.startsWith("-") ? -1 : 1;
  return (a, b) => {
    const [left, right] = [column.value(a), column.value(b)];
    if (typeof left === "string") return sign * byText(column.value)(a, b);
    return sign * ((left ?? -Infinity) - (right ?? -Infinity)) || a.rank - b.rank;
  };
}

let visible = [];
function select(sample, { focus = false } = {}) {
  state.current = sample;
  changed("current");
  const item = itemOf(sample);
  if (!item) return;
  keepInSight(item);
  if (focus) item.focus({ preventScroll: true });
}
function step(by) {
  if (!visible.length) return;
  const at = visible.indexOf(state.current);
  const next = at < 0 ? 0 : Math.min(visible.length - 1, Math.max(0, at + by));
  select(visible[next], { focus: byId("list").contains(document.activeElement) });
}
const itemOf = (sample) => byId("list").querySelector(`[data-index="${data.samples.indexOf(sample)}"]`);
// Within the list only: the page itself stays where it is.
function keepInSight(item) {
  const list = byId("list");
  const [inner, outer] = [item.getBoundingClientRect(), list.getBoundingClientRect()];
  const head = list.querySelector("thead")?.offsetHeight ?? 0;
  if (inner.top < outer.top + head) list.scrollTop -= outer.top + head - inner.top + 6;
  else if (inner.bottom > outer.bottom) list.scrollTop += inner.bottom - outer.bottom + 6;
}

const observer = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      observer.unobserve(target);
      const sample = data.samples[target.dataset.sample];
      draw(target, sample, thumbnailView(sample), 200).catch(() => {});
    }
  },
  { rootMargin: "300px" },
);
function thumbnail(sample) {
  const canvas = el("canvas", { class: "thumbnail", "data-sample": data.samples.indexOf(sample), "aria-hidden": "true" });
  [canvas.width, canvas.height] = drawnSize(sample, 200);
  observer.observe(canvas);
  return canvas;
}

const narrow = matchMedia("(max-width: 1000px)");
// Elements are made once for each sample, so that thousands of them can be judged anew while the slider moves.
function keep(make, refresh) {
  const kept = new Map();
  return (sample) => {
    if (!kept.has(sample)) kept.set(sample, { element: make(sample), seen: null });
    const found = kept.get(sample);
    const seen = `${judged(sample)} ${verdictOf(sample)}`;
    if (found.seen !== seen) refresh(found.element, sample);
    found.seen = seen;
    return found.element;
  };
}
function common(sample) {
  return {
    "data-index": data.samples.indexOf(sample),
    tabindex: -1,
    "aria-selected": "false",
    onclick: () => {
      select(sample);
      // Where the list is below the sample, which would change out of sight.
      if (narrow.matches) byId("detail").scrollIntoView({ block: "start" });
    },
  };
}
function marks(sample) {
  const wrong = mistake(sample);
  const verdict = verdictOf(sample);
  return el(
    "span",
    { class: "marks" },
    badge(judged(sample)),
    wrong ? el("span", { class: "mistake" }, wrong === "false" ? "false alarm" : "missed") : null,
    verdict ? el("span", { class: `verdict ${verdict}` }, `checked: ${verdict}`) : null,
    sample.health.length ? el("span", { class: "warn", title: "The health check has a warning" }, "⚠") : null,
  );
}

const card = keep(
  (sample) =>
    el(
      "div",
      { role: "option", class: "item", ...common(sample) },
      hasPictures(sample) ? thumbnail(sample) : el("span", { class: "thumbnail none" }, "no picture"),
      el("span", { class: "item-text" }, nameOf(sample), el("span", { class: "number" }, shown(sample.score)), el("span")),
    ),
  (element, sample) => element.querySelector(".item-text").lastChild.replaceWith(marks(sample)),
);
const asPictures = () =>
  el("div", { role: "listbox", "aria-label": "Samples", class: "items" }, ...visible.map(card));

// Minor columns are left out on phones.
const kindOf = (column) => [column.number && "number", column.minor && "minor"].filter(Boolean).join(" ") || null;
const columns = COLUMNS.filter((column) => !column.labels || labelled);
const row = keep(
  (sample) => el("tr", { class: "row", ...common(sample) }),
  (element, sample) =>
    element.replaceChildren(
      ...columns.map((column) => el("td", { class: kindOf(column) }, column.cell(sample))),
    ),
);

function asTable() {
  const order = state.order.replace(/^-/, "");
  const heading = (column) => {
    const now = order === column.key;
    const next = now && !state.order.startsWith("-") ? `-${column.key}` : column.key;
    const first = now ? next : column.number && column.key !== "rank" ? `-${column.key}` : column.key;
    const sorted = now ? (state.order.startsWith("-") ? "descending" : "ascending") : null;
    const sort = () => {
      state.order = now && state.order.startsWith("-") ? column.key : first;
      changed("list");
      byId("list").querySelector(`[data-column="${column.key}"]`).focus();
    };
    return el(
      "th",
      { scope: "col", class: kindOf(column), "aria-sort": sorted },
      el("button", { type: "button", "data-column": column.key, onclick: sort }, column.text, now ? (sorted === "ascending" ? " ↑" : " ↓") : ""),
    );
  };
  return el(
    "table",
    { class: "rows" },
    el("thead", {}, el("tr", {}, ...columns.map(heading))),
    el("tbody", {}, ...visible.map(row)),
  );
}

let listed = null;
function showList() {
  const text = state.search.trim().toLocaleLowerCase();
  const compare = ORDERS[state.order]?.compare ?? columnOrder(state.order);
  visible = data.samples
    .filter((sample) => FILTERS[state.filter].fits(sample))
    .filter((sample) => !text || `${sample.name} ${sample.path}`.toLocaleLowerCase().includes(text))
    .sort(compare);
  const now = `${state.table} ${state.order} ${visible.map((sample) => sample.rank + sample.name)}`;
  if (now === listed) {
    visible.forEach(state.table ? row : card);
  } else {
    const focused = byId("list").contains(document.activeElement) && document.activeElement.dataset.index;
    byId("list").replaceChildren(
      visible.length ? (state.table ? asTable() : asPictures()) : el("p", { class: "empty" }, "No sample fits."),
    );
    markCurrent();
    if (focused) byId("list").querySelector(`[data-index="${focused}"]`)?.focus({ preventScroll: true });
  }
  listed = now;
  byId("count").textContent =
    visible.length === data.samples.length ? String(visible.length) : `${visible.length} of ${data.samples.length}`;
  byId("browse").classList.toggle("table", state.table);
  byId("as-table").setAttribute("aria-pressed", state.table);
  byId("as-pictures").setAttribute("aria-pressed", !state.table);
  byId("filter").value = state.filter;
  byId("sort").value = state.order in ORDERS ? state.order : "";
}

function markCurrent() {
  for (const item of byId("list").querySelectorAll("[data-index]")) {
    const now = data.samples[item.dataset.index] === state.current;
    item.setAttribute("aria-selected", now);
    item.tabIndex = now ? 0 : -1;
  }
  // One of them can always be reached by the Tab key.
  if (!visible.includes(state.current)) byId("list").querySelector("[data-index]")?.setAttribute("tabindex", 0);
}

function showOnly(filter) {
  state.filter = filter;
  state.search = byId("search").value = "";
  changed("list");
  if (visible.length) select(visible[0]);
  byId("samples").scrollIntoView({ block: "start" });
}

function startList() {
  const options = (all) =>
    Object.entries(all)
      .filter(([, one]) => !one.labels || labelled)
      .map(([value, { text }]) => el("option", { value }, text));
  byId("filter").append(...options(FILTERS));
  byId("sort").append(...options(ORDERS), el("option", { value: "", hidden: true }, "By a column"));
  const listen = (id, event, key, value) =>
    byId(id).addEventListener(event, (happened) => {
      state[key] = value ?? happened.target.value;
      changed("list");
    });
  listen("filter", "change", "filter");
  listen("sort", "change", "order");
  listen("search", "input", "search");
  byId("as-table").addEventListener("click", () => ((state.table = true), changed("list")));
  byId("as-pictures").addEventListener("click", () => ((state.table = false), changed("list")));
  for (const event of ["list", "decision", "verdicts"]) when(event, showList);
  when("current", markCurrent);
  showList();
  if (visible.length) state.current = visible[0];
  markCurrent();
}
