// A person's verdicts: kept by the browser where it allows that, and saved as a file of `sample,verdict`.

const KEPT = `musc-jax verdicts ${data.batch}`;
const given = data.samples.filter((sample) => sample.verdict).map((sample) => [sample.name, sample.verdict]);
const verdicts = new Map(given);
let unsaved = false;
let kept = true;

function recall() {
  try {
    const found = JSON.parse(localStorage.getItem(KEPT) ?? "null");
    if (!Array.isArray(found)) return;
    verdicts.clear();
    const names = new Set(data.samples.map((sample) => sample.name));
    for (const [name, verdict] of found) {
      if (names.has(name) && Object.values(WORDS).includes(verdict)) verdicts.set(name, verdict);
    }
  } catch {
    kept = false;
  }
}

function say(sample, verdict) {
  if (!sample) return;
  if (verdict) verdicts.set(sample.name, verdict);
  else verdicts.delete(sample.name);
  unsaved = true;
  try {
    localStorage.setItem(KEPT, JSON.stringify([...verdicts]));
  } catch {
    kept = false;
  }
  changed("verdicts");
}

// As RFC 4180 has it, so that any name comes back as it was.
function verdictsFile() {
  const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const rows = data.samples
    .filter((sample) => verdicts.has(sample.name))
    .map((sample) => `${cell(sample.name)},${verdicts.get(sample.name)}\r\n`);
  return `sample,verdict\r\n${rows.join("")}`;
}

function saveVerdicts() {
  const address = URL.createObjectURL(new Blob([verdictsFile()], { type: "text/csv" }));
  const link = el("a", { href: address, download: "verdicts.csv" });
  document.body.append(link);
  link.click();
  link.remove();
  // Not at once: some browsers begin to read after this.
  setTimeout(() => URL.revokeObjectURL(address), 10000);
  unsaved = false;
  showVerdicts();
}

function showVerdicts() {
  const count = verdicts.size;
  byId("save").disabled = !count;
  byId("kept").textContent = count
    ? `${many(count, "verdict")}${unsaved && !kept ? ", not saved yet" : ""}`
    : "No verdicts yet";
}

function startVerdicts() {
  recall();
  byId("save").addEventListener("click", saveVerdicts);
  addEventListener("beforeunload", (event) => {
    if (unsaved && !kept) event.preventDefault();
  });
  when("verdicts", showVerdicts);
  showVerdicts();
}
