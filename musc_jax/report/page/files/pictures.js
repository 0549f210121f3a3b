// Images, maps and masks on canvases. A map is one grey picture; overlay, outline and colours are made from it here.

const decoded = new Map();
// Pictures are decoded when they come into view; the last few stay.
function decode(address) {
  if (!decoded.has(address)) {
    const image = new Image();
    image.src = address;
    decoded.set(address, image.decode().then(() => image));
    if (decoded.size > 24) decoded.delete(decoded.keys().next().value);
  }
  return decoded.get(address);
}

const scratch = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
async function pixels(address, width, height, smoothing = "high") {
  const image = await decode(address);
  scratch.canvas.width = width;
  scratch.canvas.height = height;
  scratch.imageSmoothingQuality = smoothing;
  scratch.drawImage(image, 0, 0, width, height);
  return scratch.getImageData(0, 0, width, height).data;
}

// 256 colours between the anchors.
const HEAT = Array.from({ length: 256 }, (_, i) => {
  const place = (i / 255) * (data.heat.length - 1);
  const at = Math.min(Math.floor(place), data.heat.length - 2);
  return data.heat[at].map((value, channel) => value + (data.heat[at + 1][channel] - value) * (place - at));
});

// The values of a map, and for each how hot it is: by how much it exceeds what normal surface reaches in maps of its
// kind, as a share of the page's one span. So equal colours are equal excess, in every picture and every sample.
async function readMap(sample, kind, width, height) {
  // Smoothed linearly, which makes nothing higher than it was.
  const grey = await pixels(sample.maps[kind], width, height, "low");
  const { low, high, normal } = data.kinds[kind];
  const found = { values: new Float32Array(width * height), heat: new Float32Array(width * height), low, peak: -Infinity };
  for (let i = 0; i < found.values.length; i++) {
    const value = low + ((high - low) * grey[4 * i]) / 255;
    found.values[i] = value;
    found.heat[i] = Math.min(1, Math.max(0, (value - normal) / data.span));
    if (value > found.peak) found.peak = value;
  }
  return found;
}

const readMask = async (address, width, height) => {
  const grey = await pixels(address, width, height);
  const found = new Uint8Array(width * height);
  for (let i = 0; i < found.length; i++) found[i] = +(grey[4 * i] > 127);
  return found;
};

// Pixels just outside of what is marked, `thick` pixels wide.
function border(marked, width, height, thick) {
  const found = new Uint8Array(marked.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = y * width + x;
      if (!marked[at]) continue;
      const left = x === 0 || marked[at - 1];
      const right = x === width - 1 || marked[at + 1];
      const above = y === 0 || marked[at - width];
      const below = y === height - 1 || marked[at + width];
      if (left && right && above && below) continue;
      for (let v = Math.max(0, y - thick); v <= Math.min(height - 1, y + thick); v++) {
        for (let u = Math.max(0, x - thick); u <= Math.min(width - 1, x + thick); u++) {
          if (!marked[v * width + u]) found[v * width + u] = 1;
        }
      }
    }
  }
  return found;
}

// The size in which a sample's pictures are drawn.
function drawnSize(sample, longest) {
  const [width, height] = sample.size ?? [1, 1];
  const factor = longest / Math.max(width, height);
  return [Math.max(1, Math.round(width * factor)), Math.max(1, Math.round(height * factor))];
}
const mainMap = (sample) => (data.main && sample.maps?.[data.main] ? data.main : Object.keys(sample.maps ?? {})[0] ?? null);
const hasPictures = (sample) => Boolean(sample.image || mainMap(sample));

const OUTLINES = { predicted: [255, 64, 160], truth: [60, 220, 90] };
const paint = {
  image(out, { image }) {
    out.set(image);
  },
  map(out, { map }) {
    map.heat.forEach((heat, i) => out.set(HEAT[Math.round(255 * heat)], 4 * i));
  },
  // The image is grey under the heat, because red and yellow products look like heat.
  overlay(out, { image, map }) {
    map.heat.forEach((heat, i) => {
      const at = 4 * i;
      const grey = 0.299 * image[at] + 0.587 * image[at + 1] + 0.114 * image[at + 2];
      const opacity = 0.85 * heat ** 0.75;
      const hot = HEAT[Math.round(255 * heat)];
      for (let c = 0; c < 3; c++) out[at + c] = grey * (1 - opacity) + hot[c] * opacity;
    });
  },
  outline(out, { image, map, mask, width, height }) {
    if (image) out.set(image);
    else map.values.forEach((value, i) => out.fill(40 + (80 * (value - map.low)) / (map.peak - map.low || 1), 4 * i, 4 * i + 3));
    const thick = Math.max(1, Math.round(width / 220));
    const line = (marked, rgb) => border(marked, width, height, thick).forEach((on, i) => on && out.set(rgb, 4 * i));
    if (mask) line(mask, OUTLINES.truth);
    if (map && data.pixelThreshold !== null) {
      const hot = new Uint8Array(map.values.length);
      for (let i = 0; i < hot.length; i++) hot[i] = +(map.values[i] > data.pixelThreshold);
      line(hot, OUTLINES.predicted);
    }
  },
};

// Draws one view of a sample; gives back the map that was read, if any.
async function draw(canvas, sample, view, longest, kind = mainMap(sample)) {
  const [width, height] = drawnSize(sample, longest);
  const read = { width, height };
  if (sample.image && view !== "map") read.image = (await pixels(sample.image, width, height)).slice();
  if (kind && view !== "image") read.map = await readMap(sample, kind, width, height);
  if (sample.mask && view === "outline") read.mask = await readMask(sample.mask, width, height);
  const out = new ImageData(width, height);
  paint[view](out.data, read);
  for (let i = 3; i < out.data.length; i += 4) out.data[i] = 255;
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(out, 0, 0);
  return read.map ?? null;
}
const thumbnailView = (sample) => (!sample.image ? "map" : mainMap(sample) ? "overlay" : "image");
