"""Pages made up for tests: small pictures drawn by hand, or candies as the synthetic set has them."""

from dataclasses import replace

import numpy as np
from PIL import Image
from scipy import ndimage

from musc_jax.decisions import Decision
from musc_jax.report.page import Page, PageCloud, PagePicture, PageRegion, PageSample, PageWarning
from musc_jax.report.pictures import png_bytes

THRESHOLDS = {"mad:3.5": 0.62, "rate:0.05": 0.71, "gap": 0.66, "0.55": 0.55}


def samples(count, *, size=64, points=True, labels=True, seed=0):
    """Parts with a hot spot on every fourth, whose scores lie apart from the others'."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        bad = i % 4 == 1
        y, x = rng.integers(size // 4, 3 * size // 4, 2).tolist()
        spot = np.zeros((size, size), np.float32)
        spot[y, x] = 1
        spot = ndimage.gaussian_filter(spot, size / 16)
        spot /= spot.max()
        flat = ndimage.gaussian_filter(rng.normal(0, 1, (size, size)), 3).astype(np.float32) * 0.05
        base = (0.2 + flat).astype(np.float32)
        score = float(rng.uniform(0.65, 0.95) if bad else rng.uniform(0.3, 0.6))
        maps = {"2D": base + 0.4 * score * spot * bad, "3D": 0.5 * base + 0.3 * score * spot * bad}
        maps["fused"] = maps["2D"] + maps["3D"]
        image = np.full((size, size, 3), (190, 170, 60), np.uint8)
        image[spot > 0.6] = (60, 40, 30) if bad else (190, 170, 60)
        found.append(
            PageSample(
                name=f"part_{i:03d}",
                path=f"Batch/part_{i:03d}.png",
                pred_score=score,
                max_score=float(maps["fused"].max()),
                percentile=0.0,
                rank=1,
                pred_label=int(score > THRESHOLDS["mad:3.5"]),
                gt_label=int(bad) if labels else None,
                image=image,
                gt_mask=(spot > 0.6) & bad if labels else None,
                maps=maps if points else {"2D": maps["2D"]},
                regions=[PageRegion((x - 6, y - 6, x + 6, y + 6), 0.9)] if bad else [],
                cloud=_cloud(maps["fused"], rng) if points else None,
            )
        )
    return ranked(found)


def _cloud(values, rng):
    size = len(values)
    y, x = np.mgrid[:size, :size] / size
    z = 0.2 * ((x - 0.5) ** 2 + (y - 0.5) ** 2) + rng.normal(0, 1e-3, x.shape)
    return PageCloud(np.stack([x, y, z], -1).reshape(-1, 3).astype(np.float32), values.ravel())


def ranked(found):
    """With ranks and percentiles by the scores, in the order given."""
    order = sorted(found, key=lambda sample: -sample.pred_score)
    rank = {sample.name: i for i, sample in enumerate(order)}
    many = max(1, len(found) - 1)
    return [
        replace(sample, rank=rank[sample.name] + 1, percentile=100 * (1 - rank[sample.name] / many)) for sample in found
    ]


def page(found, **changes):
    """A page with all its parts."""
    scores = np.array([sample.pred_score for sample in found])
    counts = {rule: int((scores > value).sum()) for rule, value in THRESHOLDS.items()}
    rules = [
        Decision(rule, value, counts[rule], counts[rule], counts[rule] + i, f"what {rule} takes for granted")
        for i, (rule, value) in enumerate(THRESHOLDS.items())
    ]
    first = found[0].name if found else None
    parts = {
        "title": "Candies",
        "samples": found,
        "decisions": [*rules, Decision("valley", None, 0, 0, 0, "scores of good and bad parts lie apart")],
        "pixel_threshold": 0.6,
        "settings": {"backbone": "dino_vitb8", "image size": 224, "seed": 0, "interval": 0.3},
        "health": [
            PageWarning("is darker than the others", "Take it again, or leave it out.", first),
            PageWarning("8 samples are few", "20 or more give steadier scores."),
        ],
        "notes": ["The weights are random: scores mean nothing."],
        "inputs": ["8 pictures, 8 scans, paired by name"],
        "skipped": [("broken.png", "is no picture")],
    }
    return Page(**parts | changes)


def voters(size=48):
    """A picture of who voted."""
    pixels = np.random.default_rng(1).integers(0, 255, (size, 4 * size, 3)).astype(np.uint8)
    return [PagePicture("lowest: part_002, part_003", png_bytes(Image.fromarray(pixels)))]
