"""Tables, the comparison with published figures, and pictures."""

import csv
import io

import numpy as np
import pytest

from musc_jax import report
from musc_jax.report.tables import METRIC_KEYS

ROW = {key: 0.9 - 0.01 * i for i, key in enumerate(METRIC_KEYS)}


def test_table_shows_percent_and_dashes():
    undefined = ROW | {"image_AUROC": None}
    text = report.metrics_table(
        {"A": ROW, "Long name": undefined}, ROW, dict.fromkeys(METRIC_KEYS, 2) | {"image_AUROC": 1}
    )
    lines = text.splitlines()
    assert next(line for line in lines if line.startswith("A ")).split()[1:3] == ["90.00", "89.00"]
    assert next(line for line in lines if line.startswith("Long")).split()[2] == "-"
    assert "image_AUROC 1" in lines[-1]
    assert max(map(len, lines)) <= 110
    assert report.metrics_table({"A": ROW}, ROW, {}, note="random weights").endswith("NOTE random weights")


def test_csv_has_fractions_and_empty_cells():
    rows = list(csv.DictReader(io.StringIO(report.metrics_csv({"A": ROW | {"pixel_PRO": None}}, ROW))))
    assert [row["category"] for row in rows] == ["A", "mean"]
    assert float(rows[0]["pixel_AUROC"]) == ROW["pixel_AUROC"]
    assert rows[0]["pixel_PRO"] == ""


def test_timings_add_up():
    text = report.timings_table({"A": {"maps": 0.25, "loading": 0.5}, "B": {"maps": 1.0}})
    assert text.splitlines()[-1].split() == ["all", "0.750", "1.000"]


@pytest.mark.parametrize(
    ("modality", "backbone", "want"),
    [
        ("rgb+points", "dino_vitb8", [83.93, 82.91, 86.11, 97.54, 44.65, 41.75, 90.11]),
        ("rgb", "dino_vitb8", [85.1, 81.8, 86.6, 97.4, 42.0, 36.8, 89.0]),
        ("points", "point_mae", [69.1, 72.1, 71.7, 89.8, 28.1, 21.4, 66.9]),
    ],
)
def test_published_means(modality, backbone, want):
    candies = [
        "CandyCane",
        "ChocolateCookie",
        "ChocolatePraline",
        "Confetto",
        "GummyBear",
        "HazelnutTruffle",
        "LicoriceSandwich",
        "Lollipop",
        "Marshmallow",
        "PeppermintCandy",
    ]
    options = {"modality": modality, "backbone": backbone, "variant": "released", "categories": candies}
    found = report.published("eyecandies", image_size=224, **options)
    assert list(found.mean.values()) == want
    assert (len(found.categories) == 10) == (modality == "rgb+points")
    assert report.published("eyecandies", image_size=448, **options) is None
    some = report.published("eyecandies", image_size=224, **options | {"categories": candies[:1]})
    assert (some is not None) == (modality == "rgb+points")
    assert some is None or some.mean["image_AUROC"] == 46.56
    assert report.published("eyecandies", image_size=224, **options | {"categories": ["Apple"]}) is None
    assert report.published("synthetic", image_size=224, **options) is None


def test_difference_compares_pro_with_pro_200():
    reference = report.Published("here", {"image_AUROC": 80.0, "pixel_PRO": 90.0}, {})
    line = report.difference_line(ROW | {"pixel_PRO": 0.1, "pixel_PRO_200": 0.91}, reference)
    assert "image AUROC +10.00" in line
    assert "PRO +1.00" in line


def picture(scale, level, mask=None, note=None):
    image = np.full((64, 64, 3), 128, np.uint8)
    anomaly_map = np.full((64, 64), level, np.float32)
    return report.sample_picture(
        image,
        mask,
        anomaly_map,
        scale=(float(scale[0]), float(scale[1])),
        name="000",
        pred_score=0.5,
        gt_label=None,
        note=note,
    )


def test_one_scale_keeps_good_parts_dark(rng):
    maps = rng.uniform(0, 0.2, (3, 64, 64)).astype(np.float32)
    maps[2, :4, :4] = 1
    low, high = report.color_scale(maps)
    assert low == pytest.approx(0.1, abs=0.02)
    assert high == 1
    overlay = lambda level: np.asarray(picture((low, high), level))[200, 830].astype(int)  # noqa: E731
    assert np.abs(overlay(0.1) - 128).max() <= 2, "normal surface looks like the image"
    assert np.abs(overlay(1.0) - 128).max() > 60
    report.color_scale(np.zeros((2, 4, 4), np.float32))


def test_picture_is_a_png_with_truth_and_note():
    mask = np.zeros((64, 64), bool)
    mask[20:40, 20:40] = True
    plain, noted = picture((0, 1), 0.0, mask), picture((0, 1), 0.0, mask, note="random weights")
    assert noted.height > plain.height
    truth = np.asarray(plain)[54:374, 340:660].astype(int)
    assert (np.abs(truth - [60, 220, 90]).max(-1) < 25).any(), "the outline is green"
    assert report.png_bytes(plain).startswith(b"\x89PNG")
