// Clouds that can be turned and curves, drawn by plotly, which is unpacked when the first of them is asked for.

const packed = byId("charts").textContent;
const NO_CHARTS =
  "This needs the package plotly, which was not installed when the page was written: " +
  'pip install "musc-jax[report]", then run the command again.';

let unpacked = null;
function charts() {
  unpacked ??= (async () => {
    if (!packed) throw new Error(NO_CHARTS);
    if (typeof DecompressionStream === "undefined") throw new Error("This needs a newer browser (of 2023 or later).");
    const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    if (!self.Plotly) throw new Error("The browser refused to run the script for charts.");
    return self.Plotly;
  })();
  return unpacked;
}

let webgl = null;
const hasWebgl = () => (webgl ??= Boolean(document.createElement("canvas").getContext("webgl")));

// Whole numbers of 8 or 16 bits, little-endian, from base64.
function wholeNumbers(text, bytes) {
  const raw = atob(text);
  return Array.from({ length: raw.length / bytes }, (_, i) => {
    const low = raw.charCodeAt(bytes * i);
    return bytes === 1 ? low : low + 256 * raw.charCodeAt(2 * i + 1);
  });
}

function readCloud({ points, values, low, step }) {
  const whole = wholeNumbers(points, 2);
  const { low: from, high: to } = data.kinds[data.main];
  const axis = (which) => whole.filter((_, i) => i % 3 === which).map((number) => low[which] + step * number);
  return { x: axis(0), y: axis(1), z: axis(2), values: wholeNumbers(values, 1).map((v) => from + ((to - from) * v) / 255) };
}

// As the picture shows it: x to the right, y down, z away; a little from the side, so that depth is seen.
const VIEW = { eye: { x: 0.7, y: -1.0, z: -2.1 }, up: { x: 0, y: -1, z: 0 }, center: { x: 0, y: 0, z: 0 } };

// One place for all clouds: browsers allow only some drawings of this kind, and how it was turned is kept.
const cloudPlace = el("div", { id: "cloud", class: "cloud", role: "img" });
async function drawCloud(cloud, text) {
  if (!hasWebgl()) throw new Error("This browser has no WebGL, which a cloud needs.");
  const plotly = await charts();
  const { x, y, z, values } = readCloud(cloud);
  const { normal } = data.kinds[data.main];
  const hidden = { visible: false, showspikes: false };
  const trace = {
    type: "scatter3d",
    mode: "markers",
    x,
    y,
    z,
    marker: {
      size: 3.2,
      color: values,
      cmin: normal,
      cmax: normal + data.span,
      colorscale: data.heat.map((rgb, i) => [i / (data.heat.length - 1), `rgb(${rgb.join(",")})`]),
    },
    customdata: values.map((value) => shown(value)),
    hovertemplate: "%{customdata}<extra></extra>",
  };
  const layout = {
    margin: { l: 0, r: 0, t: 0, b: 0 },
    paper_bgcolor: "rgba(0,0,0,0)",
    uirevision: "kept",
    scene: { xaxis: hidden, yaxis: hidden, zaxis: hidden, aspectmode: "data", dragmode: "orbit", camera: VIEW },
  };
  cloudPlace.setAttribute("aria-label", text);
  await plotly.react(cloudPlace, [trace], layout, { displayModeBar: false, responsive: true });
}

// Turns what is drawn about the vertical by an angle, for keyboards.
function turnCloud(angle) {
  const { eye, up, center } = cloudPlace._fullLayout.scene._scene.getCamera();
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const turned = { x: cos * eye.x + sin * eye.z, y: eye.y, z: cos * eye.z - sin * eye.x };
  return self.Plotly.relayout(cloudPlace, { "scene.camera": { eye: turned, up, center } });
}

async function drawCurve(place, { title, x, y, at, points, texts }) {
  const plotly = await charts();
  const ink = color("ink");
  const axis = (text) => ({
    title: { text, font: { size: 12 } },
    range: [-0.02, 1.02],
    gridcolor: color("line"),
    zeroline: false,
    color: color("muted"),
    tickvals: [0, 0.25, 0.5, 0.75, 1],
    fixedrange: true,
  });
  const line = {
    x: points.map((point) => point[0]),
    y: points.map((point) => point[1]),
    text: texts,
    mode: "lines",
    line: { color: color("accent"), width: 2 },
    hovertemplate: `${x} %{x:.3f}<br>${y} %{y:.3f}<br>from %{text}<extra></extra>`,
  };
  const here = {
    x: at ? [at[0]] : [],
    y: at ? [at[1]] : [],
    mode: "markers",
    marker: { size: 10, color: color("bad"), line: { color: color("card"), width: 2 } },
    hovertemplate: `at the threshold<br>${x} %{x:.3f}<br>${y} %{y:.3f}<extra></extra>`,
  };
  const layout = {
    title: { text: title, font: { size: 13, color: ink }, x: 0.02, xanchor: "left" },
    font: { family: "system-ui, sans-serif", size: 11, color: ink },
    margin: { l: 46, r: 10, t: 32, b: 40 },
    height: 260,
    showlegend: false,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    xaxis: axis(x),
    yaxis: axis(y),
  };
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", `${title}: ${y} over ${x}`);
  await plotly.react(place, [line, here], layout, { displayModeBar: false, responsive: true });
}
