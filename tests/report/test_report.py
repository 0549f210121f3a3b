"""Tables, the comparison with published figures, and pictures."""

import csv
import io

import numpy as np
import pytest

from musc_jax import report
from musc_jax.report import pictures
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


def test_an_empty_table_and_a_long_footnote():
    assert report.metrics_table({}, {}, {}).splitlines()[-1].split() == ["mean", *["-"] * 8]
    rows = {f"category_{i}": dict.fromkeys(METRIC_KEYS) for i in range(11)} | {"last": ROW}
    lines = report.metrics_table(rows, ROW, dict.fromkeys(METRIC_KEYS, 1)).splitlines()
    assert max(map(len, lines)) <= 110
    assert all(key in "".join(lines) for key in METRIC_KEYS), "each mean says over how many categories it runs"


def test_timings_add_up():
    text = report.timings_table({"A": {"maps": 0.25, "loading": 0.5}, "B": {"maps": 1.0}})
    assert text.splitlines()[-1].split() == ["all", "0.750", "1.000"]


def test_the_whole_is_measured_and_need_not_be_known_by_stage():
    text = report.timings_table({"A": {"maps": 0.25, "all": 0.75}, "B": {"all": 1.0}})
    assert [line.split() for line in text.splitlines()[1:]] == [["maps", "0.250", "0.000"], ["all", "0.750", "1.000"]]


def test_timings_of_many_categories_fit():
    timings = {name: {"maps": float(i), "loading": 10.0 - i} for i, name in enumerate(CATEGORIES["eyecandies"])}
    lines = report.timings_table(timings).splitlines()
    assert max(map(len, lines)) <= 110
    assert lines[0].split()[-3:] == ["mean", "lowest", "highest"]
    assert lines[1].split() == ["maps", "4.500", "0.000", "9.000"]
    assert lines[-1].split() == ["all", "10.000", "10.000", "10.000"]
    assert len(report.timings_table({}).splitlines()) == 2


# Means in the order of METRIC_KEYS, as the papers print them.
PUBLISHED = {
    ("eyecandies", "rgb+points", "dino_vitb8"): [83.93, 82.91, 86.11, 97.54, 44.65, 41.75, 90.11],
    ("eyecandies", "rgb", "dino_vitb8"): [85.1, 81.8, 86.6, 97.4, 42.0, 36.8, 89.0],
    ("eyecandies", "rgb", "clip_vitl14_336"): [85.1, 84.8, 87.4, 96.9, 44.0, 38.9, 89.4],
    ("eyecandies", "points", "point_mae"): [69.1, 72.1, 71.7, 89.8, 28.1, 21.4, 66.9],
    ("eyecandies", "rgb+points", "clip_vitl14_336"): [85.9, 84.4, 87.6, 97.3, 46.2, 42.6, 90.9],
    ("mvtec3d", "rgb+points", "dino_vitb8"): [88.08, 92.96, 96.77, 99.03, 54.58, 54.70, 96.98],
    ("mvtec3d", "rgb", "dino_vitb8"): [75.7, 90.5, 92.6, 98.2, 40.4, 34.7, 93.1],
    ("mvtec3d", "rgb", "clip_vitl14_336"): [75.8, 90.3, 91.1, 98.0, 47.1, 41.7, 94.0],
    ("mvtec3d", "points", "point_mae"): [83.7, 92.5, 94.4, 97.1, 45.9, 44.4, 88.4],
    ("mvtec3d", "rgb+points", "clip_vitl14_336"): [89.9, 93.6, 97.2, 98.8, 58.8, 60.0, 96.6],
    ("mvtec_ad", "rgb", "clip_vitl14_336"): [97.7, 97.6, 99.1, 97.3, 63.1, 63.5],
    ("visa", "rgb", "clip_vitl14_336"): [91.9, 88.5, 92.8, 98.8, 50.4, 46.1],
    ("mpdd", "rgb", "clip_vitl14_336"): [79.0, 83.6, 78.7, 97.5, 37.7, 32.6],
    ("btad", "rgb", "clip_vitl14_336"): [96.5, 96.1, 99.1, 97.5, 59.0, 57.3],
}
_NAMES = {
    "eyecandies": "CandyCane ChocolateCookie ChocolatePraline Confetto GummyBear HazelnutTruffle LicoriceSandwich "
    "Lollipop Marshmallow PeppermintCandy",
    "mvtec3d": "bagel cable_gland carrot cookie dowel foam peach potato rope tire",
    "mvtec_ad": "bottle cable capsule carpet grid hazelnut leather metal_nut pill screw tile toothbrush transistor "
    "wood zipper",
    "visa": "candle capsules cashew chewinggum fryum macaroni1 macaroni2 pcb1 pcb2 pcb3 pcb4 pipe_fryum",
    "mpdd": "bracket_black bracket_brown bracket_white connector metal_plate tubes",
    "btad": "01 02 03",
}
CATEGORIES = {dataset: names.split() for dataset, names in _NAMES.items()}


def find(dataset, modality, backbone, **changes):
    size = 518 if backbone.startswith("clip") else 224
    options = {"variant": "released", "image_size": size, "categories": CATEGORIES.get(dataset, ["a"])}
    return report.published(dataset, modality=modality, backbone=backbone, **options | changes)


@pytest.mark.parametrize("key", PUBLISHED)
def test_published_means(key):
    found = find(*key)
    assert list(found.mean.values()) == PUBLISHED[key]
    assert list(found.mean) == [*METRIC_KEYS[:6], "pixel_PRO"][: len(found.mean)]
    assert str(518 if "clip" in key[2] else 224) in found.setting
    by_category = key[1:] == ("rgb+points", "dino_vitb8")
    assert list(found.categories) == (CATEGORIES[key[0]] if by_category else [])
    for other in ({"image_size": 448}, {"categories": ["Apple"]}, {"categories": []}, {"variant": "another"}):
        assert find(*key, **other) is None, other
    some = find(*key, categories=CATEGORIES[key[0]][:1])
    assert (some is not None) == by_category
    assert not by_category or some.mean == found.categories[CATEGORIES[key[0]][0]]


def test_published_other_settings():
    candy_cane = find("eyecandies", "rgb+points", "dino_vitb8", categories=["CandyCane"])
    assert candy_cane.mean["image_AUROC"] == 46.56
    paper = find("eyecandies", "rgb+points", "dino_vitb8", variant="paper")
    assert (paper.mean["image_AUROC"], paper.categories) == (83.9, {}), "rows by category are the released program's"
    assert find("synthetic", "rgb", "dino_vitb8") is None
    assert find("eyecandies", "rgb", "dinov2_vitb14") is None
    assert find("mvtec_ad", "rgb", "dino_vitb8") is None
    # Any of the sizes that the papers leave open, named.
    assert "224" in find("mvtec3d", "rgb", "clip_vitl14_336", image_size=224).setting


def test_published_version_1():
    found = find("mvtec_ad", "rgb", "clip_vitl14_336", variant="v1")
    assert found.mean["image_AUROC"] == pytest.approx(97.8, abs=0.06)
    assert found.categories["bottle"]["pixel_PRO"] == 96.1
    assert find("mvtec_ad", "rgb", "clip_vitl14_336", variant="v1", image_size=224) is None
    assert find("mvtec3d", "rgb", "dino_vitb8", variant="v1").mean["image_AUROC"] == 69.9
    assert find("mvtec3d", "rgb+points", "dino_vitb8", variant="v1") is None


def test_difference_compares_pro_with_pro_200():
    reference = report.Published("here", {"image_AUROC": 80.0, "pixel_PRO": 90.0}, {})
    line = report.difference_line(ROW | {"pixel_PRO": 0.1, "pixel_PRO_200": 0.91}, reference)
    assert "image AUROC +10.00" in line
    assert "PRO +1.00" in line
    assert "200 thresholds" in line
    whole = report.difference_line(ROW, find("eyecandies", "rgb+points", "clip_vitl14_336"))
    assert max(map(len, whole.splitlines())) <= 110
    assert "nothing in common" in report.difference_line(dict.fromkeys(METRIC_KEYS), reference)


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
    maps = np.zeros((5, 64, 64), np.float32)
    maps[:, 16:48, 16:48] = rng.uniform(0.1, 0.2, (5, 32, 32))  # three quarters are background, as with point maps
    maps[1, 16:40, 16:40] = 0.6  # a large defect, and most samples have one
    maps[2:, 20:24, 20:24] = 1
    low, high = report.color_scale(maps)
    assert low == pytest.approx(0.2, abs=0.02)
    assert high == 1
    overlay = lambda level: np.asarray(picture((low, high), level))[200, 830].astype(int)  # noqa: E731
    assert np.abs(overlay(0.19) - 128).max() <= 2, "normal surface looks like the image"
    assert np.ptp(overlay(0.6)) > 60, "the large defect is coloured"
    assert overlay(1.0).sum() > overlay(0.6).sum() + 60, "hotter is brighter"


@pytest.mark.parametrize("level", [0, 0.5, -3, 1e8])
def test_constant_maps_have_a_scale(level):
    scale = report.color_scale(np.full((2, 4, 4), level, np.float32))
    assert scale[0] < scale[1]
    np.testing.assert_allclose(np.asarray(picture(scale, level))[200, 830], 128, atol=1)


def test_red_products_do_not_look_hot():
    image = np.full((64, 64, 3), (200, 40, 40), np.uint8)
    options = {"scale": (0.0, 1.0), "name": "0", "pred_score": 0.0, "gt_label": 0}
    drawn = np.asarray(report.sample_picture(image, None, np.zeros((64, 64), np.float32), **options))
    assert tuple(drawn[200, 100]) == (200, 40, 40), "the first tile shows the colours"
    assert np.ptp(drawn[200, 830]) == 0, "under the heat the image is grey"
    with pytest.raises(ValueError, match="low < high"):
        report.sample_picture(image, None, np.zeros((64, 64), np.float32), **options | {"scale": (1.0, 1.0)})


def test_titles_stay_inside():
    image, anomaly_map = np.full((64, 64, 3), 128, np.uint8), np.zeros((64, 64), np.float32)
    options = {"scale": (0.0, 1.0), "pred_score": 0.5, "gt_label": 1}
    for name in ("000", "crack_" * 60):
        drawn = report.sample_picture(image, None, anomaly_map, name=name, **options)
        title = np.asarray(drawn)[:30]
        assert (title[:, -8:] == 255).all(), "the margin is free"
        assert (title < 100).any()
    empty, unknown = (
        np.asarray(report.sample_picture(image, mask, anomaly_map, name="000", **options))[:, 340:660]
        for mask in (np.zeros((64, 64), bool), None)
    )
    assert (empty != unknown).any(), "a mask without defects is not a missing mask"


def test_picture_is_a_png_with_truth_and_note():
    mask = np.zeros((64, 64), bool)
    mask[20:40, 20:40] = True
    plain, noted = picture((0, 1), 0.0, mask), picture((0, 1), 0.0, mask, note="random weights")
    assert noted.height > plain.height
    truth = np.asarray(plain)[54:374, 340:660].astype(int)
    assert (np.abs(truth - [60, 220, 90]).max(-1) < 25).any(), "the outline is green"
    assert report.png_bytes(plain).startswith(b"\x89PNG")


class Font:
    """Has signs for some letters, and one box for all others."""

    def __init__(self, letters):
        self.letters = letters

    def getmask(self, character):
        return Sign(character.encode() if character in self.letters else b"box")


class Sign(bytes):
    size = (8, 8)


def test_titles_in_any_script(monkeypatch):
    fonts = {"a.ttf": Font("abc 1"), "b.ttf": Font("\u65e5\u672c1"), "c.ttf": Font("\u65e5")}
    monkeypatch.setattr(pictures, "_FONTS", ("none.ttf", *fonts))
    monkeypatch.setattr(pictures, "_system_font", lambda name, size: fonts.get(name))
    assert pictures.title_font("good_0", size=18)[1] == "good_0"
    assert pictures.title_font("good_0", size=18)[0] not in fonts.values()
    assert pictures.title_font("\u65e5\u672c 1", size=18) == (fonts["b.ttf"], "\u65e5\u672c 1")
    assert pictures.title_font("\u65e5\u0416", size=18) == (fonts["b.ttf"], "\u65e5\\u0416")
    assert pictures.title_font("a\n\udcff", size=18)[1] == "a\\n\\udcff"


@pytest.mark.parametrize(
    "name", ["\u65e5\u672c" * 90, "a\nb\tc", "\u05e9\u05dc", "\U0001f600", "\udcff", "", "x" * 300]
)
def test_a_picture_of_any_name(name):
    image, maps = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.float32)
    settings = {"scale": (0.0, 1.0), "pred_score": 0.5, "gt_label": None}
    made = report.sample_picture(image, None, maps, name=name, **settings)
    plain = report.sample_picture(image, None, maps, name="plain", **settings)
    assert made.size == plain.size
    assert made.tobytes() != plain.tobytes()
