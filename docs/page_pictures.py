"""Write the pictures of the report page in docs/images: rendered candies, with maps made up from their masks.

    python docs/page_pictures.py

Needs Chromium, which the page's tests drive, too.
"""

import io
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from musc_jax.data.cleaning.eyecandies import FOCAL_LENGTH
from musc_jax.data.synthetic.samples import render
from musc_jax.decisions import side_by_side
from musc_jax.report.page import Page, PageCloud, PageRegion, PageSample, PageWarning, report_html

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests" / "report"))
SIZE = 224
_WORST = """(() => {
    sort.value = "worst";
    sort.dispatchEvent(new Event("change"));
    document.querySelector("#list [data-index]").click();
    scrollTo(0, 0);
})()"""


def candy(index: int, rng: np.random.Generator) -> PageSample:
    """A rendered sample, scored as if by a good run that is not perfect."""
    picture = render("Praline", index, size=SIZE)
    low, high = picture.depth_range
    depth = low + (high - low) * picture.depth / 65535
    red, _, blue = np.moveaxis(picture.image.astype(int), -1, 0)
    brown = ndimage.binary_closing((red - blue > 25) | picture.mask, iterations=4)
    surface = ndimage.gaussian_filter(np.clip(ndimage.distance_transform_edt(brown), 0, 8) / 8, 3)
    texture = ndimage.gaussian_filter(rng.normal(0, 1, (2, SIZE, SIZE)), (0, 9, 9)) * 0.35
    kind = picture.kind or ""
    seen = {"2D": 0.1 if kind == "dents" else 0.5, "3D": 0.55 if kind in ("bumps", "dents") else 0.05}
    spot = ndimage.gaussian_filter(picture.mask.astype(float), 5) * rng.uniform(0.2, 0.8)
    maps, worn = {}, 1 + min(0.25, 0.2 * rng.gamma(2, 0.5))
    for (name, strength), grain, base in zip(seen.items(), texture, (0.28, 0.2), strict=True):
        maps[name] = (base * (0.4 + 0.6 * surface * worn) + 0.12 * grain * surface + strength * spot).astype(np.float32)
    maps["fused"] = maps["2D"] + maps["3D"]
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    focal = FOCAL_LENGTH * SIZE / 512
    points = np.stack([x * depth / focal, y * depth / focal, depth], -1)[brown].astype(np.float32)
    peak = float(maps["fused"].max())
    hot, _ = ndimage.label(maps["fused"] > 0.62)
    regions = [
        PageRegion((across.start, down.start, across.stop, down.stop), float(maps["fused"][down, across].max()))
        for down, across in ndimage.find_objects(hot)
    ]
    return PageSample(
        name=f"{index:03d}",
        path=f"line_2/praline_{index:03d}.png",
        pred_score=peak,
        max_score=peak,
        percentile=0,
        rank=1,
        gt_label=int(picture.kind is not None),
        image=picture.image,
        gt_mask=picture.mask,
        maps=maps,
        regions=regions,
        cloud=PageCloud(points, maps["fused"][brown]),
    )


def example(count: int = 36) -> Page:
    """A page about that many candies."""
    rng = np.random.default_rng(3)
    # Every fourth is defective: those of odd numbers are.
    found = [candy(2 * i + (i % 4 == 1), rng) for i in range(count)]
    order = {sample.name: i for i, sample in enumerate(sorted(found, key=lambda sample: -sample.pred_score))}
    decisions = side_by_side([sample.pred_score for sample in found], "mad:3.5")
    found = [
        replace(
            sample,
            rank=order[sample.name] + 1,
            percentile=100 * (1 - order[sample.name] / (count - 1)),
            pred_label=sample.pred_score > decisions[0].threshold,
        )
        for sample in found
    ]
    return Page(
        title="Praline, line 2",
        samples=found,
        decisions=decisions,
        pixel_threshold=0.62,
        settings={"backbones": "dino_vitb8, point_mae", "image size": SIZE, "samples": count, "seed": 0},
        health=[PageWarning("is nearly the same picture as 012", "Leave one of them out.", "014")],
        notes=["An example: the maps are made up from the masks."],
        inputs=[f"{count} pictures and {count} scans, paired by name"],
    )


def main() -> None:
    """Write both pictures."""
    from browser import browser

    folder = ROOT / "docs" / "images"
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, browser() as tab:
        file = Path(scratch) / "report.html"
        file.write_text(report_html(example()), encoding="utf-8")
        for name, width, height, dark in (("report_desktop", 1280, 1780, False), ("report_phone", 390, 1500, True)):
            tab.open(file, width=width, height=height, dark=dark)
            tab.run(_WORST)
            if dark:
                tab.click("#show-cloud")
                tab.until("document.querySelector('#cloud canvas') && !document.querySelector('.cloud-tools').hidden")
                tab.run("document.getElementById('detail').scrollIntoView()")
            tab.run("new Promise((done) => setTimeout(done, 3000))")
            picture = Image.open(io.BytesIO(tab.picture()))
            picture.convert("RGB").save(folder / f"{name}.webp", quality=80, method=6)


if __name__ == "__main__":
    main()
