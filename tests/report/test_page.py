"""The page as text: what is in it, how large it becomes, and that no name can leave its place."""

import base64
import hashlib
import io
import json
import re
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import page_examples
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from musc_jax.decisions import Decision
from musc_jax.report import page as pages
from musc_jax.report.page import content as contents
from musc_jax.report.page import encoding, html
from musc_jax.report.pictures import color_scale

HOSTILE = (
    "</script><img src=x onerror=\"document.title='taken'\">",
    "<!--<script>",
    "{{script}}{{content}}",
    "\u202egnp.exe\u2066",
    "\udcff\ud800 half",
    "line\u2028para\u2029\0\n\t",
    "'\"`&amp;&lt;",
    "name" * 75,
    "部品 деталь قطعة פריט भाग",
)


class Elements(HTMLParser):
    """Start tags, and the text of scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, tuple(sorted(name for name, _ in attributes))))
        if tag == "script":
            self.scripts.append((dict(attributes), ""))

    def handle_data(self, text):
        if self.tags and self.tags[-1][0] == "script" and self.cdata_elem:
            attributes, before = self.scripts.pop()
            self.scripts.append((attributes, before + text))


def parsed(text):
    """The page's content as its script reads it."""
    (found,) = (text for attributes, text in Elements(text).scripts if attributes.get("id") == "content")
    return json.loads(found)


@pytest.fixture(scope="module")
def found():
    return page_examples.samples(4, size=48)


def hostile_page(found, names=HOSTILE):
    """A page with a hostile text wherever a page takes one."""
    changed = [
        replace(
            sample,
            name=f"{i} {name}",
            path=name,
            maps={**sample.maps, name: sample.maps["2D"]},
            voters=[replace(picture, caption=name) for picture in page_examples.voters()],
        )
        for i, (sample, name) in enumerate(zip([*found, *found, *found], names))
    ]
    first = names[0]
    return page_examples.page(
        page_examples.ranked(changed),
        title=first,
        decisions=[Decision(name, 0.5, 1, 1, 1, name) for name in names],
        settings={name: name for name in names},
        health=[pages.PageWarning(name, name, f"{i} {name}") for i, name in enumerate(names)],
        notes=names,
        inputs=names,
        skipped=[(name, name) for name in names],
    )


def test_no_text_can_become_markup(found):
    tame = [f"name {i}" for i in range(len(HOSTILE))]
    expected = Elements(pages.report_html(hostile_page(found, tame), charts=False)).tags
    text = pages.report_html(hostile_page(found), charts=False)
    assert Elements(text).tags == expected, "the same elements with the same attributes, whatever the names"
    assert text.encode("utf-8"), "also with halves of characters, which undecodable file names hold"
    data = parsed(text)
    assert {sample["path"] for sample in data["samples"]} == set(HOSTILE), "and all texts arrive as they were"
    assert data["notes"] == list(HOSTILE)


def test_data_in_a_script_element_is_inert():
    text = html.as_data(list(HOSTILE))
    assert text.isascii()
    assert not set("<>&\n") & set(text)
    assert json.loads(text) == list(HOSTILE)
    with pytest.raises(ValueError, match="JSON compliant"):
        html.as_data(float("nan"))


def test_policy_allows_the_pages_own_scripts_alone(found):
    text = pages.report_html(page_examples.page(found))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert (rules["default-src"], rules["connect-src"], rules["img-src"]) == ("'none'", "'none'", "data:")
    assert "unsafe" not in rules["script-src"]
    scripts = Elements(text).scripts
    # An element with a type of its own is no script to a browser.
    own = [script for attributes, script in scripts if "type" not in attributes]
    run = [script for script in (*own, pages.charts_script()) if script is not None]
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in run]
    assert rules["script-src"].split() == [f"'sha256-{digest}'" for digest in digests]
    assert len(own) == 1


def test_every_file_of_the_page_is_part_of_the_package():
    here = {file.name for file in (resources.files(pages) / "files").iterdir()}
    assert here == {*html.SCRIPTS, "template.html", "page.css"}, "and each is used"
    source = Path(__file__).parents[2] / "pyproject.toml"
    if source.exists():  # the tests also run against the installed package, where the files themselves are there
        globs = tomllib.loads(source.read_text())["tool"]["setuptools"]["package-data"]["musc_jax"]
        folder = Path(__file__).parents[2] / "musc_jax"
        packed = {file.name for glob in globs for file in folder.glob(glob)}
        assert here <= packed


def test_scripts_hold_nothing_that_ends_them():
    for text in (html._script(), pages.charts_script() or ""):
        assert "</script" not in text.lower()
        assert "<!--" not in text
    for name in html.SCRIPTS:
        text = html._file(name)
        for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "http:", "fetch("):
            # The name of SVG is an address that nobody goes to.
            assert word not in text.replace("http://www.w3.org/2000/svg", ""), f"{name}: {word}"


def decoded(address):
    head, content = address.split(",", 1)
    assert head in ("data:image/webp;base64", "data:image/png;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("L"), np.float64)


def test_maps_keep_their_values_to_a_level(rng):
    values = rng.uniform(-3, 5, (20, 30)).astype(np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    grey = decoded(encoding.map_picture(values, (-3.0, 5.0), side=100))
    found = -3 + grey * 8 / 255
    np.testing.assert_allclose(found[1:], values[1:], atol=8 / 255 + 1e-5)
    assert (found[1:] <= values[1:] + 1e-5).all(), "nothing comes to lie above a threshold that it does not exceed"
    assert found[0, :3].tolist() == [-3, 5, -3], "what is not a number is black"
    constant = decoded(encoding.map_picture(np.full((4, 4), 2, np.float32), (2.0, 2.0), side=100))
    assert not constant.any()
    large = decoded(encoding.map_picture(np.ones((400, 100), np.float32), (0.0, 1.0), side=100))
    assert large.shape == (100, 25)


def test_one_defective_pixel_stays_in_a_small_mask():
    mask = np.zeros((999, 500), bool)
    mask[998, 499] = True
    small = decoded(encoding.mask_picture(mask, side=100)) > 127
    assert max(small.shape) <= 100
    assert np.argwhere(small).tolist() == [[small.shape[0] - 1, small.shape[1] - 1]]


def test_images_take_what_they_may_and_no_more(rng):
    noise = rng.integers(0, 256, (512, 384, 3)).astype(np.uint8)
    for side, size in ((512, 60_000), (256, 8_000), (512, 3_000)):
        content = base64.b64decode(encoding.photograph(noise, side=side, size=size).split(",")[1])
        assert len(content) <= size
        width, height = Image.open(io.BytesIO(content)).size
        assert height <= side
        assert width / height == pytest.approx(0.75, abs=0.02)
    smooth = np.full((512, 512, 3), 90, np.uint8)
    content = base64.b64decode(encoding.photograph(smooth, side=512, size=9_000).split(",")[1])
    assert Image.open(io.BytesIO(content)).size == (512, 512), "what is smooth keeps its pixels"


def test_clouds_keep_their_shape(rng):
    points = rng.normal(0, 1, (4000, 3)).astype(np.float32) * np.float32([1, 100, 0.01])
    values = rng.uniform(0, 2, 4000).astype(np.float32)
    points[::7, 1] = np.nan
    values[::11] = np.nan
    packed = encoding.packed_cloud(points, values, (0.0, 2.0))
    whole = np.frombuffer(base64.b64decode(packed["points"]), "<u2").reshape(-1, 3)
    again = whole * packed["step"] + packed["low"]
    levels = np.frombuffer(base64.b64decode(packed["values"]), np.uint8) / 127.5
    assert len(again) == len(levels) == 1500
    known = np.isfinite(points).all(1) & np.isfinite(values)
    nearest = cKDTree(points[known]).query(again)[1]
    np.testing.assert_allclose(points[known][nearest], again, atol=packed["step"])
    np.testing.assert_allclose(values[known][nearest], levels, atol=1 / 255 + 1e-6)
    assert len({*nearest}) > 1450, "each point once"
    assert encoding.packed_cloud(points[:1], values[:1], (0.0, 2.0)) is None
    one = encoding.packed_cloud(points[1:2], values[1:2], (0.0, 0.0))
    assert one["low"] == pytest.approx(points[1].tolist())


def test_many_pictures_share_what_a_page_may_take(rng, monkeypatch):
    monkeypatch.setattr(contents, "_BYTES", 400_000)
    noise = rng.integers(0, 256, (200, 200, 3)).astype(np.uint8)
    samples = [replace(sample, image=noise) for sample in page_examples.samples(12, labels=False)]
    rows = contents.content(page_examples.page(samples), limit=300)["samples"]
    taken = sum(len(json.dumps(row)) for row in rows)
    assert 300_000 < taken < 400_000 + 12 * 1000, "the numbers are a few hundred bytes a sample"


def test_two_hundred_samples_are_small_enough_to_send():
    script = pages.charts_script()
    charts = 2_500_000 if script is None else len(html._packed(script))
    numbers = 200 * 1000
    assert contents._BYTES + charts + numbers < 15_000_000
    assert script is None or charts < 2_500_000


def test_the_worst_and_the_mistaken_have_pictures():
    samples = page_examples.samples(12, size=16)
    best = min(samples, key=lambda sample: sample.pred_score)
    samples = [replace(sample, gt_label=1) if sample is best else sample for sample in samples]
    rows = contents.content(page_examples.page(samples), limit=4)["samples"]
    assert [row["rank"] for row in rows] == list(range(1, 13)), "all are in the table, worst first"
    assert [row["rank"] for row in rows if "image" in row] == [1, 2, 3, 12]
    assert all("maps" in row and "cloud" in row for row in rows if "image" in row)


def test_colours_are_those_of_the_pictures(found):
    data = contents.content(page_examples.page(found), limit=9)
    maps = np.stack([sample.maps["fused"] for sample in found])
    low, high = color_scale(maps)
    assert data["main"] == "fused"
    assert data["kinds"]["fused"]["normal"] == pytest.approx(low)
    assert data["kinds"]["fused"]["normal"] + data["span"] == pytest.approx(high)
    assert data["kinds"].keys() == {"2D", "3D", "fused"}
    only = contents.content(page_examples.page(page_examples.samples(3, size=16, points=False)), limit=9)
    assert only["main"] == "2D"


@pytest.mark.parametrize(
    ("options", "drawn"),
    [({}, True), ({"points": False}, True), ({"labels": False}, True), ({"points": False, "labels": False}, False)],
)
def test_the_charts_come_along_only_where_something_is_drawn(options, drawn):
    page = page_examples.page(page_examples.samples(4, size=16, **options))
    if pages.charts_script() is None:
        pytest.skip("plotly is not installed")
    text = pages.report_html(page)
    assert (len(text) > 1_500_000) == drawn
    assert len(text) < 2_500_000, "and packed"
    assert len(pages.report_html(page, charts=False)) < 200_000


def test_a_page_without_plotly_is_whole_otherwise(found, monkeypatch):
    monkeypatch.setattr(html, "charts_script", lambda: None)
    text = pages.report_html(page_examples.page(found))
    assert '<script type="text/plain" id="charts"></script>' in text
    assert "pip install" in text
    assert parsed(text) == contents.content(page_examples.page(found), limit=300)


def test_labels_may_be_truth_values(found):
    plain = contents.content(page_examples.page(found), limit=9)
    bools = [replace(s, pred_label=bool(s.pred_label), gt_label=bool(s.gt_label)) for s in found]
    again = contents.content(page_examples.page(bools), limit=9)
    assert [(type(row["label"]), row["label"], row["truth"]) for row in again["samples"]] == [
        (int, row["label"], row["truth"]) for row in plain["samples"]
    ]
    assert again == plain


def test_labels_give_metrics_where_there_are_both_kinds(found):
    data = contents.content(page_examples.page(found), limit=9)
    assert data["metrics"]["AUROC"] == 1
    same = [replace(sample, gt_label=1) for sample in found]
    assert contents.content(page_examples.page(same), limit=9)["metrics"] is None
    some = [*found[:2], *(replace(sample, gt_label=None) for sample in found[2:])]
    assert contents.content(page_examples.page(some), limit=9)["metrics"]["AP"] == 1


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_samples_and_odd_numbers_make_a_page(count):
    samples = page_examples.samples(count, size=16)
    odd = pages.PageSample("odd", float("nan"), float("inf"), 0.0, count + 1)
    undecided = page_examples.page([*samples, odd], decisions=[], pixel_threshold=float("inf"))
    data = parsed(pages.report_html(undecided, charts=False))
    assert [row["name"] for row in data["samples"]][-1] == "odd"
    assert (data["samples"][-1]["score"], data["pixelThreshold"], data["decisions"]) == (None, None, [])


def test_what_does_not_fit_together_is_refused(found):
    with pytest.raises(ValueError, match=r"different names, received 'part_000' twice"):
        pages.report_html(page_examples.page([*found, found[0]]))
    wrong = [replace(found[0], voters=[pages.PagePicture("votes", b"GIF89a")])]
    with pytest.raises(ValueError, match="PNG, JPEG or WebP"):
        pages.report_html(page_examples.page(wrong))


def test_previews_without_scripts_have_a_table(found):
    text = pages.report_html(page_examples.page(found), charts=False)
    plain = re.search(r"<noscript>(.*?)</noscript>", text, flags=re.S)[1]
    worst = max(found, key=lambda sample: sample.pred_score)
    first = plain.split("<tr>")[2]
    assert worst.name in first
    assert f"{worst.pred_score:.5g}" in first
    assert "defective" in first
    assert "scores mean nothing" in plain


def test_a_warning_about_several_samples_is_a_line_of_the_batch_and_marks_each(found):
    names = [sample.name for sample in found[:2]]
    page = page_examples.page(found, health=[pages.PageWarning("are dark", "Look.", others=names)])
    content = parsed(pages.report_html(page, charts=False))
    assert content["health"] == [[None, "are dark", "Look."]]
    assert sorted(sample["name"] for sample in content["samples"] if sample["health"]) == sorted(names)
