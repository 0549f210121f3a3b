// The page as a whole: heading, notes, lines on the run, the theme, and keys.

function showHead() {
  document.title = readable(data.title);
  byId("title").append(el("bdi", {}, readable(data.title)));
  byId("summary").textContent = [
    many(data.samples.length, "sample"),
    data.skipped.length ? `${data.skipped.length} skipped` : null,
    labelled ? "labelled" : null,
  ]
    .filter(Boolean)
    .join(" · ");
  byId("notes").append(...data.notes.map((note) => el("p", { class: "note" }, readable(note))));
  if (data.health.length) {
    byId("health-link").hidden = false;
    byId("health-link").textContent = `⚠ ${many(data.health.length, "warning")}`;
  }
}

function showHealth() {
  if (!data.health.length) return;
  byId("health").hidden = false;
  for (const [name, what, advice] of data.health) {
    const sample = data.samples.find((one) => one.name === name);
    const button = sample
      ? el("button", { type: "button", class: "link", onclick: () => goTo(sample) }, nameOf(sample))
      : name
        ? el("bdi", {}, readable(name))
        : el("span", { class: "muted" }, "The batch");
    byId("health-lines").append(
      el("li", {}, button, el("span", {}, readable(what)), advice ? el("span", { class: "muted" }, readable(advice)) : ""),
    );
  }
}
function goTo(sample) {
  if (!visible.includes(sample)) showOnly("all");
  select(sample);
  byId("samples").scrollIntoView({ block: "start" });
}

function showRun() {
  const pairs = (rows) =>
    el(
      "dl",
      { class: "pairs" },
      ...rows.map(([key, value]) => el("div", {}, el("dt", {}, el("bdi", {}, readable(key))), el("dd", {}, el("bdi", {}, readable(value))))),
    );
  const parts = [
    ["Settings", data.settings.length, () => pairs(data.settings)],
    ["What the files were read as", data.inputs.length, () => el("ul", { class: "lines" }, ...data.inputs.map((line) => el("li", {}, readable(line))))],
    ["Skipped", data.skipped.length, () => pairs(data.skipped)],
  ];
  for (const [text, count, part] of parts) {
    if (count) byId("run-parts").append(el("h3", {}, text), part());
  }
  byId("run").hidden = !parts.some(([, count]) => count);
}

function startTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const dark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const show = () => {
    byId("theme").textContent = dark() ? "Light" : "Dark";
    byId("theme").setAttribute("aria-label", dark() ? "Light colours" : "Dark colours");
    changed("theme");
  };
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    show();
  });
  system.addEventListener("change", show);
  show();
}

const KEYS = {
  ArrowLeft: () => step(-1),
  ArrowUp: () => step(-1),
  ArrowRight: () => step(1),
  ArrowDown: () => step(1),
  g: () => say(state.current, "good"),
  d: () => say(state.current, "defective"),
  u: () => say(state.current, null),
};
function startKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select, textarea")) return;
    const inList = byId("list").contains(event.target);
    // Up and down scroll the page, unless somebody is in the list.
    if (["ArrowUp", "ArrowDown"].includes(event.key) && !inList) return;
    if (inList && (event.key === "Enter" || event.key === " ") && event.target.dataset.index) {
      event.preventDefault();
      select(data.samples[event.target.dataset.index]);
      return;
    }
    const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

byId("app").hidden = false;
showHead();
startVerdicts();
startDecision();
startLabels();
startList();
startDetail();
showHealth();
showRun();
startTheme();
startKeys();
