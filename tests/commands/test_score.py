"""`python -m launch.score` on folders as people have them: what it writes, says and refuses."""

import base64
import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from eyecandies_tree import fingerprint
from PIL import Image

from launch import score, score_flags, score_page
from launch.score_files import DEFAULT_SAVE, SAVES
from musc_jax.execution.recurring import Recurring

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = ("--image_size=32", "--blocks=0,1,2")
HEIGHT, WIDTH = 48, 96


def part(seed, *, defect=False, size=(HEIGHT, WIDTH)):
    """Stripes, the same in all parts up to noise; a defect is a checkerboard in the right half."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((*size, 3))
    pixels[:] = 120 + 40 * np.sin(np.arange(size[1]) / 3)[:, None]
    if defect:
        y, x = np.mgrid[: size[0] // 2, : size[1] // 4]
        pixels[size[0] // 4 : size[0] // 4 + len(y), size[1] // 2 : size[1] // 2 + x.shape[1]] = (
            255 * ((x // 2 + y // 2) % 2)[..., None]
        )
    return np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def parts(tmp_path_factory):
    """Nine parts in a folder and in folders in it; one of them has a defect and is upright, as its camera noted."""
    root = tmp_path_factory.mktemp("parts") / "caps"
    for i in range(8):
        path = root / ("shift 1" if i < 4 else "shift 2") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(part(i)).save(path)
    turned = Image.Exif()
    turned[0x0112] = 6  # shown turned by a quarter to the right
    Image.fromarray(np.rot90(part(9, defect=True))).save(root / "<b>&x.png", exif=turned)
    return root


@pytest.fixture
def run(tmp_path, image_weights, in_process, monkeypatch):
    """Runs the command with a narrow backbone; returns its exit code, what it printed, and the results' folder."""
    monkeypatch.setattr("launch.score.keep_programs", lambda cache_dir: None)

    def call(*arguments, weights=image_weights):
        given = [*SMALL, f"--weights_rgb={weights}", f"--output_dir={tmp_path / 'results'}"]
        code, out, err = in_process(score, *given, f"--cache_dir={tmp_path / 'cache'}", *arguments)
        return code, out, err, tmp_path / "results" / "score"

    return call


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def page_content(page):
    """The data of a page."""
    return json.loads(re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', page, re.S)[1])


def test_a_folder_with_one_defect(run, parts):
    before = fingerprint(parts)
    code, out, err, folder = run(parts)
    assert code == 0, err
    assert fingerprint(parts) == before
    results, folder = folder, folder / "caps"
    table = {row["sample"]: row for row in rows(folder / "scores.csv")}
    assert len(table) == 9
    (defect,) = [name for name, row in table.items() if row["rank"] == "1"]
    assert table[defect]["image_path"] == str(parts / "<b>&x.png")
    assert table[defect]["name"] == "<b>&x.png"
    assert [name for name, row in table.items() if row["pred_label"] == "1"] == [defect]
    assert float(table[defect]["pred_score"]) > float(table[defect]["threshold"])
    assert table[defect]["percentile"] == "100.00"
    assert {row["rule"] for row in table.values()} == {"gap"}
    # The same, in anomalib's words, and where everything lies.
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    for line in lines:
        row = table[line["sample"]]
        assert (repr(line["pred_score"]), str(line["pred_label"])) == (row["pred_score"], row["pred_label"])
        assert line["image_size"] == [HEIGHT, WIDTH]
        anomaly_map = tifffile.imread(folder / line["anomaly_map"])
        assert anomaly_map.shape == (32, 32)
        assert anomaly_map.max() == np.float32(line["max_score"])
        with Image.open(folder / line["pred_mask"]) as mask, Image.open(folder / line["overlay"]) as overlay:
            assert mask.size == overlay.size == (WIDTH, HEIGHT)
            assert set(np.unique(mask)) <= {0, 255}
            assert np.asarray(mask).any() == bool(line["pred_boxes"]) or len(line["pred_boxes"]) == 0
    # On the picture as it is shown, although the file lies on its side.
    found = next(line for line in lines if line["sample"] == defect)
    left, top, right, bottom = found["pred_boxes"][0]
    assert found["box_scores"][0] == pytest.approx(found["max_score"], rel=0.05)
    first = next(row for row in rows(folder / "regions.csv") if row["sample"] == defect)
    assert [int(first[key]) for key in ("left", "top", "right", "bottom")] == [left, top, right, bottom]
    assert 0 < int(first["area"]) <= (right - left) * (bottom - top)
    assert left <= float(first["centroid_x"]) <= right
    # The page, which no name can leave.
    page = (folder / "report.html").read_text(encoding="utf-8")
    content = page_content(page)
    assert content["samples"][0]["name"] == defect
    assert [decision["rule"] for decision in content["decisions"]] == ["gap", "mad:3.5", "rate:0.05"]
    assert "<b>&x" not in page
    # In the right half there, although in the file it is the upper one.
    run(parts, f"--pixel_threshold={0.9 * found['max_score']}")
    (region,) = rows(folder / "regions.csv")
    assert region["sample"] == defect
    assert int(region["left"]) > WIDTH * 0.4
    # What is said in the end.
    assert defect in out
    assert "decided by gap: 1 called defective" in out
    assert "assumes that at most half of the samples are defective" in out
    assert str(folder) in out.splitlines()[-1]
    run_json = json.loads((results / "run.json").read_text())
    assert run_json["products"]["caps"]["num_defective"] == 1
    rules = [decision["rule"] for decision in run_json["products"]["caps"]["decisions"]]
    assert rules == ["gap", "mad:3.5", "rate:0.05"]


def test_a_region_of_interest(run, parts, tmp_path):
    """The defect lies outside; what lies there is dark in all pictures, and never hot, whatever the threshold."""
    drawn = np.zeros((10, 20), np.uint8)
    drawn[:, :8] = 255
    Image.fromarray(drawn).save(tmp_path / "roi.png")
    code, _, err, folder = run(parts, f"--roi={tmp_path / 'roi.png'}", "--pixel_threshold=-1")
    assert code == 0, err
    assert f"caps: roi: only what is bright in {tmp_path / 'roi.png'} counts, of every sample" in err
    told, folder = json.loads((folder / "run.json").read_text()), folder / "caps"
    assert told["inputs"]["caps"]["roi"] == {"file": str(tmp_path / "roi.png")}
    assert told["flags"]["roi"] == str(tmp_path / "roi.png")
    table = rows(folder / "scores.csv")
    peaks = {row["image_path"]: float(row["max_score"]) for row in table}
    assert peaks[str(parts / "<b>&x.png")] < 1.5 * np.median(list(peaks.values()))
    outside = round(0.4 * WIDTH)
    for line in map(json.loads, (folder / "predictions.jsonl").read_text().splitlines()):
        anomaly_map = tifffile.imread(folder / line["anomaly_map"])
        assert anomaly_map[:, :13].min() > 0
        assert not anomaly_map[:, 13:].any()
        with Image.open(folder / line["pred_mask"]) as mask, Image.open(folder / line["overlay"]) as overlay:
            hot, shown = np.asarray(mask) > 0, np.asarray(overlay).mean(-1)
        assert hot[:, : outside - 2].all()
        assert not hot[:, outside + 2 :].any()
        assert shown[:, outside + 12 :].mean() < 0.5 * shown[:, : outside - 12].mean()
        assert line["pred_boxes"][0][2] <= outside + 2
    page = page_content((folder / "report.html").read_text(encoding="utf-8"))
    with Image.open(io.BytesIO(base64.b64decode(page["samples"][0]["image"].split(",")[1]))) as image:
        shown = np.asarray(image.convert("L"), float)
    assert shown[:, outside + 12 :].mean() < 0.5 * shown[:, : outside - 12].mean()
    assert page["kinds"]["fused"]["low"] > 0  # of what is inside alone


def test_another_decision_takes_the_scores_that_are_there(run, parts, monkeypatch):
    _, _, _, folder = run(parts)
    before = {row["sample"]: row["pred_score"] for row in rows(folder / "caps" / "scores.csv")}

    def again(*args, **options):
        raise AssertionError("scored again")

    monkeypatch.setattr(score, "run_category", again)
    code, out, err, _ = run(parts, "--threshold=rate:0.34", "--save=full_maps,full_overlays")
    assert code == 0, err
    assert "taken from the cache" in err
    assert "decided by rate:0.34: 3 called defective" in out
    after = rows(folder / "caps" / "scores.csv")
    assert {row["sample"]: row["pred_score"] for row in after} == before
    assert sum(row["pred_label"] == "1" for row in after) == 3
    # Only what was asked for this time is there.
    kinds = {path.name for path in (folder / "caps").iterdir() if path.is_dir()}
    assert kinds == {"full_maps", "full_overlays"}
    for path in (folder / "caps" / "full_maps").iterdir():
        assert tifffile.imread(path).shape == (HEIGHT, WIDTH)
    for path in (folder / "caps" / "full_overlays").iterdir():
        with Image.open(path) as overlay:
            assert overlay.size == (WIDTH, HEIGHT)


def test_a_decision_is_carried_to_the_next_batch(run, parts, tmp_path):
    _, _, _, folder = run(parts)
    whole, own = (json.loads((place / "run.json").read_text()) for place in (folder, folder / "caps"))
    assert (own["products"], own["inputs"]) == (whole["products"], whole["inputs"])
    assert own["inputs"]["caps"]["files"]["used"]["pictures"] == 9
    told = own["products"]["caps"]
    other = tmp_path / "next"
    other.mkdir()
    for i in range(4):
        Image.fromarray(part(20 + i)).save(other / f"{i}.png")
    # The run as a whole is the next one's from now on, the product's own stays.
    code, _, err, _ = run(other)
    assert code == 0, err
    assert list(json.loads((folder / "run.json").read_text())["products"]) == ["next"]
    assert json.loads((folder / "caps" / "run.json").read_text()) == own
    code, out, err, _ = run(other, f"--threshold_from={folder / 'caps'}")
    assert code == 0, err
    assert f"decided by the threshold of {folder / 'caps' / 'run.json'} (by gap there): 0 called defective" in out
    assert {row["rule"] for row in rows(folder / "next" / "scores.csv")} == {"carried"}
    now = json.loads((folder / "run.json").read_text())["products"]["next"]
    assert now["map_threshold"] == pytest.approx(told["map_threshold"], rel=1e-6)
    assert now["pixel_threshold"] == told["pixel_threshold"]
    assert now["num_defective"] == 0


def test_each_folder_a_product(run, parts):
    code, out, err, folder = run(parts, "--per_folder")
    assert code == 0, err
    assert len(rows(folder / "shift 1" / "scores.csv")) == len(rows(folder / "shift 2" / "scores.csv")) == 4
    assert "shift 1: 4 samples" in out


@pytest.mark.parametrize("encoder", ["point_mae", "descriptors"])
def test_pictures_and_points(run, tmp_path, encoder):
    images, points = tmp_path / "images", tmp_path / "points"
    points.mkdir()
    images.mkdir()
    y, x = np.mgrid[:40, :40] / 40 + 0.1
    for i in range(4):
        Image.fromarray(part(i, size=(40, 40))).save(images / f"{i}.png")
        z = 1 + 0.1 * np.sin(5 * x + i)
        tifffile.imwrite(points / f"{i}.tiff", np.stack([x, y, z], -1).astype(np.float32), photometric="minisblack")
    code, _, err, folder = run(
        f"--images={images}",
        f"--points={points}",
        *[f"--weights_points={GOLDEN / 'point_mae_tiny.pth'}"] * (encoder == "point_mae"),
        f"--point_backbone={encoder}",
        "--num_groups=32",
        "--group_size=16",
    )
    assert code == 0, err
    config = json.loads((folder / "run.json").read_text())["config"]
    assert (config["modality"], config["point_backbone"]["name"]) == ("rgb+points", encoder)
    assert len(rows(folder / "images" / "scores.csv")) == 4
    first = page_content((folder / "images" / "report.html").read_text(encoding="utf-8"))["samples"][0]
    assert first["cloud"]
    assert {"2D", "3D", "fused"} == set(first["maps"])


def test_a_table(run, parts, tmp_path):
    table = tmp_path / "batch 7.csv"
    lines = [f"shift 1/{i}.png,good" for i in range(4)] + ["<b>&x.png,bad"]
    table.write_text("image_path,label\n" + "".join(f"{parts}/{line}\n" for line in lines), encoding="utf-8")
    code, _, err, folder = run(f"--table={table}")
    assert code == 0, err
    found = rows(folder / "batch 7" / "scores.csv")
    assert [row["gt_label"] for row in found] == ["0"] * 4 + ["1"]
    assert [row["rank"] for row in found][-1] == "1"
    assert run(f"--table={table}", f"--points={parts}")[0] == 2
    assert run(f"--table={table}", parts)[0] == 2


def test_random_weights_are_said(run, parts):
    code, out, err, folder = run(parts, "--backbone=dino_vits8", weights="random")
    assert code == 0, err
    assert "NOTE: random weights" in out
    assert "random weights" in json.loads((folder / "run.json").read_text())["note"]


def test_what_is_odd_about_the_batch_is_said_everywhere(run, tmp_path):
    odd = tmp_path / "odd"
    odd.mkdir()
    for i in range(7):
        Image.fromarray(part(i)).save(odd / f"{i}.png")
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).save(odd / "blank.png")
    code, _, err, folder = run(odd, "--save=report")
    assert code == 0, err
    line = "1 of 8 pictures is of one colour, or nearly so, with nothing to be seen"
    assert f"health of odd: {line}: blank; take them again, or leave them out" in err
    (facts,) = json.loads((folder / "run.json").read_text())["inputs"]["odd"]["health"]
    assert (facts["rule"], facts["samples"]) == ("flat", ["blank"])
    content = page_content((folder / "odd" / "report.html").read_text(encoding="utf-8"))
    assert content["health"] == [["blank", line, "take them again, or leave them out"]]
    assert [sample["name"] for sample in content["samples"] if sample["health"]] == ["blank"]


@pytest.mark.parametrize("count", [2, 3])
def test_few_samples(run, tmp_path, count):
    few = tmp_path / "few"
    few.mkdir()
    for i in range(count):
        Image.fromarray(part(i, defect=i == 0)).save(few / f"{i}.png")
    code, _, err, folder = run(few)
    assert code == 0, err
    assert len(rows(folder / "few" / "scores.csv")) == count


def test_one_sample_is_too_few(run, tmp_path):
    one = tmp_path / "one"
    one.mkdir()
    Image.fromarray(part(0)).save(one / "0.png")
    code, _, err, folder = run(one)
    assert code == 2
    assert "samples score each other" in err
    assert not (folder / "one").exists()


def test_files_that_cannot_be_read_are_left_out_by_name(run, parts, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(parts / "shift 1", mixed)
    (mixed / "cut short.png").write_bytes((mixed / "0.png").read_bytes()[:300])
    code, _, err, folder = run(mixed)
    assert code == 0, err
    assert len(rows(folder / "mixed" / "scores.csv")) == 4
    assert "left out of mixed: cut short" in err
    assert json.loads((folder / "run.json").read_text())["products"]["mixed"]["skipped"] == ["cut short"]
    page = (folder / "mixed" / "report.html").read_text(encoding="utf-8")
    assert "cut short" in json.dumps(page_content(page)["skipped"])
    code, _, err, _ = run(mixed, "--noskip_bad")
    assert code == 2
    assert "cut short.png" in err
    for path in mixed.glob("*.png"):
        path.write_bytes(b"nothing")
    code, out, err, _ = run(mixed)
    assert (code, out) == (2, "")
    assert "6 problems in dataset folder:" in err  # five files, and what is left of them


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "expected the folder of your samples"),
        (("a", "b"), "put several into one, and pass --per_folder"),
        (("PARTS", "--points=nowhere"), "--points: nowhere: is not a folder"),
        (("",), "received ''; pass . for the current one"),
        (("--images=",), "received ''; pass . for the current one"),
        (("--table=", "--modality=rgb"), "--data_dir: expected a path, received ''"),
        (("PARTS", "--images=x"), "DIR, --images: expected one of them, received 2"),
        (("PARTS", "--threshold=best"), "--threshold: expected a number, gap"),
        (("PARTS", "--threshold=rate:2"), "--threshold: rate: expected 0 to 1"),
        (("PARTS", "--threshold=0.5", "--threshold_from=x"), "expected one of them"),
        (("PARTS", "--threshold_from=nowhere"), "is no run.json of launch.score"),
        (("PARTS", "--pixel_threshold=nan"), "--pixel_threshold: expected a number, received nan"),
        (("PARTS", "--save=pictures"), "--save: expected a list of maps"),
        (("PARTS", "--dataset=visa"), "this scores a folder of your own"),
        (("PARTS", "--subsets=3"), "launch.eval has them"),
        (("PARTS", "--per_folder", "--categories=x"), "expected one of them"),
        (("PARTS/shift 1", "--per_folder"), "has no folders, each of them a product"),
        (("nowhere",), "nowhere: is not a folder"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(run, parts, arguments, said):
    code, out, err, folder = run(*(str(argument).replace("PARTS", str(parts)) for argument in arguments))
    assert code == 2
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert said in lines[0]
    assert not list(folder.glob("*/scores.csv"))


def test_help_fits_on_a_screen(in_process):
    code, out, _ = in_process(score, "--help")
    assert code == 0
    assert len(out.splitlines()) <= 40
    assert max(map(len, out.splitlines())) <= 130
    for name in ("threshold", "per_folder", "save", "weights_rgb"):
        assert f"--{name}" in out
    full = in_process(score, "--helpfull")[1]
    assert "--k_iter" in full
    assert "--threshold_from" in full


def test_every_kind_that_is_saved_has_its_place():
    from launch.own_files import SAVED

    assert set(DEFAULT_SAVE) <= set(SAVES) <= {*SAVED, "report"}
    assert score_flags.THRESHOLD.default == "gap"


def test_a_picture_is_read_once_for_overlay_and_page():
    read = []

    def picture(index, most):
        read.append((index, most))
        return np.zeros((600, 800, 3), np.uint8)

    pictures = score_page._Pictures(picture)
    assert pictures(0, 2_000_000).shape == (600, 800, 3)
    small = pictures(0, 250_000)
    assert 240_000 < small.shape[0] * small.shape[1] <= 250_000
    assert pictures(1, 250_000).shape == (600, 800, 3)  # as it was given
    assert pictures(1, 100_000).shape[0] < 300
    assert read == [(0, 2_000_000), (1, 250_000)]
    # One that is too small for an overlay does not stand for it.
    pictures(1, 2_000_000)
    assert len(read) == 3


def test_samples_that_share_a_defect_are_named(run, parts, monkeypatch):
    """Unless told otherwise, and also where the scores come out of the cache."""
    seen = []

    def found(features, jumps, programs):
        seen.append([radius.shape for radius, _ in jumps[0]])
        return Recurring([], ((1, 4, 7),))

    monkeypatch.setattr("musc_jax.execution.scoring.find_recurring", found)
    for where in ("", "taken from the cache"):
        code, _, err, folder = run(parts)
        assert code == 0, err
        assert where in err
        assert "note: caps: 3 samples share what hardly any other has" in err
        names = [row["sample"] for row in rows(folder / "caps" / "scores.csv")]
        shared = json.loads((folder / "run.json").read_text())["products"]["caps"]["recurring"]
        assert shared == [[names[i] for i in (1, 4, 7)]]
        page = page_content((folder / "caps" / "report.html").read_text(encoding="utf-8"))
        assert "3 samples share what hardly any other has" in json.dumps(page)
    assert seen == [[(9, 16)]]
    code, _, err, folder = run(parts, "--recurring=off")
    assert code == 0
    assert "share what" not in err
    assert len(seen) == 1
