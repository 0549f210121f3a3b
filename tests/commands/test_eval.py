"""`python -m launch.eval` end to end on small trees, in this process where that is enough."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from eyecandies_tree import fingerprint, write_category
from PIL import Image

import weights
from launch import eval as command
from musc_jax.data import SampleError
from musc_jax.execution.extraction import extract
from musc_jax.execution.programs import Programs

GOLDEN = Path(__file__).parents[1] / "golden"
KILLED = Path(__file__).parent / "killed_command.py"
SMALL = ("--image_size=32", "--num_groups=48", "--group_size=24", "--k_iter=16")


@pytest.fixture
def run(tmp_path, image_weights, candies, capsys):
    """Runs the command with small settings; returns its exit code, what it printed, and its results folder."""

    def call(
        *arguments, data=candies, points=GOLDEN / "point_mae_tiny.pth", output=tmp_path / "results", defaults=True
    ):
        given = [f"--output_dir={output}", f"--cache_dir={tmp_path / 'cache'}"]
        if defaults:
            given += ["--dataset=eyecandies", f"--data_dir={data}", f"--weights_rgb={image_weights}", *SMALL]
            given += [f"--weights_points={points}"]
        code = command.main(["eval", *given, *arguments])
        out = capsys.readouterr()
        return code, out.out, out.err, output / "eyecandies"

    return call


def read_scores(folder):
    with (folder / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("modality", ["rgb", "points", "rgb+points"])
def test_a_run_from_start_to_end(run, candies, modality):
    before = fingerprint(candies)
    code, out, _, folder = run(f"--modality={modality}", "--save=maps,images,report")
    assert code == 0
    assert "Apple" in out
    assert "Berry" in out
    assert "NOTE" not in out
    summary = json.loads((folder / "metrics.json").read_text())
    assert set(summary["categories"]) == {"Apple", "Berry"}
    keys = {
        "image_AUROC",
        "image_F1Max",
        "image_AP",
        "pixel_AUROC",
        "pixel_F1Max",
        "pixel_AP",
        "pixel_PRO",
        "pixel_PRO_200",
    }
    for row in (*summary["categories"].values(), summary["mean"]):
        assert set(row) == keys
        assert all(v is None or 0 <= v <= 1 for v in row.values())
    for category in ("Apple", "Berry"):
        rows = read_scores(folder / category)
        assert [r["sample"] for r in rows] == [f"{i:02d}" for i in range(6)]
        assert [r["gt_label"] for r in rows] == ["0", "1"] * 3
        for row in rows:
            anomaly_map = tifffile.imread(folder / category / "maps" / f"{row['sample']}.tiff")
            assert anomaly_map.shape == (32, 32)
            assert anomaly_map.dtype == np.float32
            assert anomaly_map.max() == pytest.approx(float(row["max_score"]), rel=1e-6)
            with Image.open(folder / category / "images" / f"{row['sample']}.png") as picture:
                picture.verify()
    record = json.loads((folder / "run.json").read_text())
    assert record["config"]["modality"] == modality
    assert (record["config"]["image_backbone"] is None) == (modality == "points")
    assert record["note"] is None
    assert {name: set(seconds) for name, seconds in record["seconds_per_sample"].items()} == {
        "Apple": {"all"},
        "Berry": {"all"},
    }
    assert (folder / "metrics.csv").read_text().splitlines()[-1].startswith("mean,")
    assert fingerprint(candies) == before
    assert not [p for p in folder.rglob("*") if "partial" in p.name]
    page = (folder / "Apple" / "report.html").read_text(encoding="utf-8")
    content = json.loads(page.split('id="content">')[1].split("</script>")[0])
    assert {sample["name"] for sample in content["samples"]} == {row["sample"] for row in read_scores(folder / "Apple")}
    # With labels there are curves, with points a cloud.
    assert content["metrics"] is not None
    assert bool(content["samples"][0].get("cloud")) == (modality != "rgb")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--variant=paper", "--ablate=trust"),
        ("--variant=v1", "--blocks=0,1,2"),
        ("--ablate=ipg,swpooling,ia,cae,rescoring",),
        ("--ablate=window", "--dtype=bfloat16", "--degrees=1", "--interval=0.5", "--windows=1,2"),
    ],
)
def test_variants_and_ablations(run, arguments):
    code, _, err, folder = run(*arguments, "--categories=Apple")
    assert code == 0, err
    assert len(read_scores(folder / "Apple")) == 6


def test_an_ablation_changes_the_numbers(run, tmp_path):
    first = run("--categories=Apple", "--modality=rgb")[3]
    other = run("--categories=Apple", "--modality=rgb", "--ablate=ia", output=tmp_path / "other")[3]
    assert read_scores(first / "Apple") != read_scores(other / "Apple")


def test_stages_are_timed_on_request(run):
    code, out, _, folder = run("--modality=rgb", "--profile", "--categories=Apple")
    assert code == 0
    seconds = json.loads((folder / "run.json").read_text())["seconds_per_sample"]["Apple"]
    stages = {"image backbone", "image aggregation", "loading", "mutual scoring", "maps", "re-scoring", "metrics"}
    assert set(seconds) == stages | {"all"}
    assert sum(seconds[name] for name in stages) < seconds["all"]
    assert stages < {line[2:].split("  ")[0] for line in out.splitlines()}


def test_two_categories_take_one_set_of_programs(run, monkeypatch):
    made = []
    monkeypatch.setattr(command, "Programs", lambda **options: made.append(Programs(**options)) or made[-1])
    code, _, err, _ = run()
    assert code == 0, err
    # As many as the pipeline takes for one, see test_pipeline.
    assert [programs.count for programs in made] == [13]


def test_subsets_are_repeated_over_seeds(run, monkeypatch):
    extracted = []
    monkeypatch.setattr("musc_jax.pipeline.extract", lambda *a, **k: extracted.append(1) or extract(*a, **k))
    code, out, _, folder = run("--subsets=2", "--seeds=0,1,4", "--modality=rgb")
    assert code == 0
    assert len(extracted) == 2  # once for each category, whatever the number of seeds
    assert "standard deviations over 3 random choices (seeds 0,1,4)" in out
    summary = json.loads((folder / "metrics.json").read_text())
    assert list(summary["seeds"]) == ["0", "1", "4"]
    for name, row in summary["categories"].items():
        of_seeds = [seed["categories"][name]["pixel_AUROC"] for seed in summary["seeds"].values()]
        assert row["pixel_AUROC"] == pytest.approx(np.mean(of_seeds))
        assert summary["deviation"]["categories"][name]["pixel_AUROC"] == pytest.approx(np.std(of_seeds))
        assert np.std(of_seeds) > 0
    means = [seed["mean"]["image_AP"] for seed in summary["seeds"].values()]
    assert summary["mean"]["image_AP"] == pytest.approx(np.mean(means))
    assert summary["deviation"]["mean"]["image_AP"] == pytest.approx(np.std(means))
    assert "\ndeviation," in (folder / "metrics.csv").read_text()
    assert len(read_scores(folder / "Apple")) == 6
    code, _, err, _ = run("--subsets=2", "--seeds=0,1,4", "--modality=rgb")
    assert "finished before" in err
    code, _, err, _ = run("--subsets=2", "--seeds=0,1,5", "--modality=rgb")
    assert "finished before" not in err


@pytest.mark.parametrize("modality", ["rgb", "rgb+points"])
def test_little_memory_gives_the_same_numbers(run, tmp_path, modality, monkeypatch):
    import musc_jax.execution.memory as memory

    monkeypatch.setattr(memory, "_PROGRAMS", 0)  # small as it is, it would be most of what these samples need
    free = run(f"--modality={modality}", output=tmp_path / "free")
    capped = run(f"--modality={modality}", "--memory_gb=0.000165", output=tmp_path / "capped")
    assert "features on the device" in free[2]
    assert "of features on disk, scoring " in capped[2]
    assert not list((tmp_path / "cache" / "features").iterdir())
    for category in ("Apple", "Berry"):
        for one, other in zip(read_scores(free[3] / category), read_scores(capped[3] / category), strict=True):
            assert float(one["max_score"]) == pytest.approx(float(other["max_score"]), rel=1e-4)
    run_json = json.loads((capped[3] / "run.json").read_text())
    assert run_json["peak_memory_bytes"]["host"] > 1e8


def test_eval_compares_flags_and_samples(run, monkeypatch):
    """As a process that hears from another whose samples and settings are other ones."""
    compared = []
    monkeypatch.setattr("launch.distributed.differing", lambda digests: compared.append(digests) or list(digests)[-1:])
    for arguments in ((), ("--interval=0.5",), ("--limit=5",)):
        code, _, err, _ = run("--modality=rgb", *arguments)
        assert code == 2
        assert "these differ: " in err
    plain, interval, limit = compared
    assert list(plain) == list(interval) == list(limit)
    assert [name for name in plain if plain[name] != interval[name]] == ["scoring.interval"]
    assert [name for name in plain if plain[name] != limit[name]] == [
        "the categories or their samples (--data_dir, --categories, --limit)"
    ]
    assert {"image_backbone", "point_backbone", "rescoring.windows", "variant"} <= set(plain)


def test_few_references_and_fast_products(run, tmp_path):
    code, _, _, folder = run("--references=2", "--precision=fast", "--modality=rgb")
    assert code == 0
    scoring = json.loads((folder / "run.json").read_text())["config"]["scoring"]
    assert scoring.items() >= {"interval": 0.3, "precision": "fast", "references": 2, "seed": 0}.items()


def test_small_batches_and_fewer_good_samples(run):
    code, _, _, folder = run("--batch_size=3", "--normal_ratio=1/2", "--seeds=2", "--modality=rgb")
    assert code == 0
    kept = [row["gt_label"] for row in read_scores(folder / "Apple")]
    everything = run("--modality=rgb")[3]
    labels = [row["gt_label"] for row in read_scores(everything / "Apple")]
    assert kept.count("1") == labels.count("1")
    assert kept.count("0") == round(labels.count("0") / 2)


def test_without_good_samples_image_metrics_are_undefined(run):
    code, _, _, folder = run("--normal_ratio=0", "--modality=rgb")
    assert code == 0
    row = json.loads((folder / "metrics.json").read_text())["categories"]["Apple"]
    assert row["image_AUROC"] is row["image_F1Max"] is row["image_AP"] is None
    assert all(row[key] is not None for key in ("pixel_AUROC", "pixel_F1Max", "pixel_AP", "pixel_PRO"))


def test_random_weights_are_named_everywhere(run):
    code, out, _, folder = run(
        "--weights_rgb=random", "--backbone=dino_vits16", "--modality=rgb", "--limit=2", "--save=images"
    )
    assert code == 0
    assert "random weights" in out
    assert "random weights" in json.loads((folder / "metrics.json").read_text())["note"]
    assert "random weights" in json.loads((folder / "run.json").read_text())["note"]
    with Image.open(folder / "Apple" / "images" / "00.png") as picture:
        assert picture.height > 54 + 320 + 8


def test_finished_categories_are_taken_and_stale_ones_are_not(run, candies, tmp_path):
    _code, _, _, folder = run("--modality=rgb", "--save=maps")
    stamp = (folder / "Apple" / "category.json").stat().st_mtime_ns
    first = (folder / "metrics.json").read_bytes()
    _, _, err, _ = run("--modality=rgb")
    assert "Apple: finished before" in err
    assert (folder / "Apple" / "category.json").stat().st_mtime_ns == stamp
    assert (folder / "metrics.json").read_bytes() == first
    (folder / "Berry" / "maps" / "03.tiff").write_bytes(b"spoiled")
    _, _, err, _ = run("--modality=rgb", "--save=maps")
    assert "Apple: finished" in err
    assert "Berry: finished" not in err
    assert (folder / "metrics.json").read_bytes() == first
    _, _, err, _ = run("--modality=rgb", "--interval=0.9")
    assert "finished" not in err
    assert not (folder / "Apple" / "maps").exists()


def test_results_do_not_depend_on_where_the_data_lies(run, candies, tmp_path):
    import shutil

    moved = tmp_path / "moved with spaces é"
    shutil.copytree(candies, moved)
    first = run("--modality=rgb+points", "--categories=Apple")[3]
    other = run("--modality=rgb+points", "--categories=Apple", data=moved, output=tmp_path / "other")[3]
    assert (first / "metrics.json").read_bytes() == (other / "metrics.json").read_bytes()


def write_xyz(file, value, count=48 * 48):
    points = np.where(np.arange(48 * 48).reshape(48, 48, 1) < count, np.float32(value), np.zeros(3, np.float32))
    tifffile.imwrite(file, points, photometric="minisblack", planarconfig="contig")


def spoil(root, fault):
    data = root / "Apple" / "test_public" / "data"
    {
        "missing mask": lambda: (data / "01_mask.png").unlink(),
        "truncated image": lambda: (data / "02_image_0.png").write_bytes((data / "02_image_0.png").read_bytes()[:200]),
        "depth of another size": lambda: Image.fromarray(np.ones((9, 9), np.uint16)).save(data / "03_depth.png"),
        "all-zero xyz": lambda: write_xyz(data / "04_xyz.tiff", 0),
        "NaN in xyz": lambda: write_xyz(data / "05_xyz.tiff", np.nan),
        "no pose": lambda: (data / "00_pose.txt").unlink(),
        "few points": lambda: write_xyz(data / "02_xyz.tiff", 1, count=10),
    }[fault]()


FAULTS = {
    "missing mask": "01_mask.png",
    "truncated image": "02_image_0.png",
    "depth of another size": "03_depth.png",
    "all-zero xyz": "04_xyz.tiff",
    "NaN in xyz": "05_xyz.tiff",
    "no pose": "00_pose.txt",
}


def test_six_faults_come_in_one_report(run, tmp_path):
    write_category(tmp_path / "data", "Apple", [f"{i:02d}" for i in range(6)])
    for fault in FAULTS:
        spoil(tmp_path / "data", fault)
    code, out, err, folder = run(data=tmp_path / "data")
    assert code == 2
    assert "Traceback" not in err
    assert not out
    for file in FAULTS.values():
        assert file in err
    assert not (folder / "metrics.json").exists()


def test_masks_that_show_nothing_at_the_working_size_are_counted(run, tmp_path):
    folder = write_category(tmp_path / "data", "Apple", [f"{i:02d}" for i in range(4)])
    mask = np.zeros((48, 48), np.uint8)
    mask[20, 20] = 255
    Image.fromarray(mask).save(folder / "01_mask.png")
    code, _, err, results = run("--modality=rgb", data=tmp_path / "data")
    assert code == 0
    line = "Apple: 1 of 2 masks of defective samples show no defect at 32 x 32 pixels; pixel metrics count these as "
    line += "good: 01"
    assert f"warning: {line}" in err
    assert line in json.loads((results / "run.json").read_text())["warnings"]


def test_bad_samples_are_left_out_on_request(run, tmp_path):
    write_category(tmp_path / "data", "Apple", [f"{i:02d}" for i in range(6)])
    spoil(tmp_path / "data", "all-zero xyz")
    code, _, err, folder = run("--skip_bad", data=tmp_path / "data")
    assert code == 0
    assert "04" in err
    assert [r["sample"] for r in read_scores(folder / "Apple")] == ["00", "01", "02", "03", "05"]
    assert json.loads((folder / "run.json").read_text())["skipped"] == {"Apple": ["04"]}
    # Images alone do not look at points.
    code, _, _, folder = run("--modality=rgb", data=tmp_path / "data", output=tmp_path / "rgb")
    assert len(read_scores(folder / "Apple")) == 6


def test_samples_that_cannot_be_scored_are_left_out_on_request(run, tmp_path):
    """Noticed when features are extracted, listed and left out like those that are noticed before."""
    names = [f"{i:02d}" for i in range(6)]
    write_category(tmp_path / "data", "Apple", names)
    spoil(tmp_path / "data", "few points")
    spoil(tmp_path / "data", "all-zero xyz")
    code, _, err, folder = run("--skip_bad", "--save=maps", data=tmp_path / "data")
    assert code == 0
    assert "left out of Apple: 04\n" in err
    problem = "left out of Apple: sample 02: 7 points are fewer than the 24 of a group (group_size)"
    assert f"{problem}\n" in err
    for _ in range(2):  # as computed, and as found again
        record = json.loads((folder / "run.json").read_text())
        assert record["skipped"] == {"Apple": ["04", "02"]}
        assert record["samples"] == {"Apple": 4}
        assert problem in record["warnings"]
        assert [row["sample"] for row in read_scores(folder / "Apple")] == ["00", "01", "03", "05"]
        assert sorted(p.stem for p in (folder / "Apple" / "maps").iterdir()) == ["00", "01", "03", "05"]
        code, _, err, _ = run("--skip_bad", "--save=maps", data=tmp_path / "data")
        assert "finished before" in err
    # Metrics are those of a category without it.
    metrics = (folder / "metrics.json").read_bytes()
    for name in ("02", "04"):
        for file in (tmp_path / "data" / "Apple" / "test_public" / "data").glob(f"{name}_*"):
            file.unlink()
    code, _, err, without = run(data=tmp_path / "data", output=tmp_path / "without")
    assert code == 0, err
    assert (without / "metrics.json").read_bytes() == metrics


def test_what_was_left_out_on_request_is_refused_without(run, tmp_path):
    write_category(tmp_path / "data", "Apple", [f"{i:02d}" for i in range(6)])
    spoil(tmp_path / "data", "few points")
    assert run("--skip_bad", data=tmp_path / "data")[0] == 0
    code, _, err, folder = run(data=tmp_path / "data")
    assert code == 2
    assert "error: Apple: sample 02: 7 points are fewer than the 24 of a group (group_size); skip_bad" in err
    assert not (folder / "metrics.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--categories=Pear",), "Pear"),
        (("--data_dir=/nowhere/at/all",), "/nowhere/at/all"),
        (("--weights_rgb=/nowhere/weights",), "/nowhere/weights"),
        ((f"--weights_rgb={GOLDEN / 'point_mae_tiny.pth'}",), "looks like point_mae"),
        (("--weights_rgb=pretrained", "--weights_dir=/nowhere"), "/nowhere: no such folder"),
        (("--limit=2", "--image_size=33"), "multiple"),
        (("--blocks=0,9,1",), "blocks"),
        (("--blocks=0,1",), "expected 3 image blocks"),
        (("--blocks=a",), "whole numbers"),
        (("--degrees=2",), "odd"),
        (("--interval=0",), "interval"),
        (("--windows=0",), "windows"),
        (("--ablate=nothing",), "ablate"),
        (("--ablate=cae", "--modality=rgb"), "changes nothing"),
        (("--variant=v1", "--modality=points"), "version 1"),
        (("--save=videos",), "--save"),
        (("--activation=gelu",), "only CLIP"),
        (("--group_size=2",), "group_size"),
        (("--limit=1",), "at least 2"),
        (("--limit=0",), "--limit"),
        (("--image_size=0",), "image_size"),
        (("--seed=-1",), "--seed"),
        (("--degrees=",), "--degrees"),
        (("--group_size=1000",), "fewer than"),
        (("stray",), "stray"),
        (("--subsets=0",), "--subsets"),
        (("--references=0",), "--references"),
        (("--memory_gb=0",), "--memory_gb"),
        (("--memory_gb=inf",), "--memory_gb"),
        (("--memory_gb=0.00001",), "raise --memory_gb"),
        (("--batch_size=1",), "--batch_size"),
        (("--subsets=2", "--batch_size=3"), "received both"),
        (("--normal_ratio=2",), "--normal_ratio"),
        (("--normal_ratio=1/0",), "--normal_ratio"),
        (("--seeds=1,2",), "nothing is random"),
        (("--normal_dir=good",), "only --dataset=folder"),
        (("--subsets=2", "--seeds=1,1"), "different numbers"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, arguments, message):
    code, _out, err, folder = run(*arguments)
    assert code == 2
    assert message in err
    errors = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "Traceback" not in err
    assert not (folder / "metrics.json").exists()


def test_what_a_sample_lacks_is_a_line_and_a_defect_is_none(run, monkeypatch):
    """Told apart by its type, whatever the text says."""

    def fail(error):
        def raise_it(*_, **__):
            raise error

        monkeypatch.setattr("musc_jax.pipeline.extract", raise_it)
        return run("--modality=rgb", "--categories=Apple")

    code, _, err, _ = fail(SampleError("03", "has no points"))
    assert code == 2
    assert "error: Apple: sample 03: has no points\n" in err
    with pytest.raises(ValueError, match="sample 03 of our own making"):
        fail(ValueError("sample 03 of our own making"))


def test_one_sample_is_refused(run, tmp_path):
    write_category(tmp_path / "data", "Apple", ["00"])
    code, _, err, _ = run(data=tmp_path / "data")
    assert code == 2
    assert "Apple" in err


def test_an_output_folder_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err, _ = run(output=tmp_path / "file")
    assert code == 2
    assert str(tmp_path / "file") in err


def test_results_do_not_go_into_the_dataset(run, candies, monkeypatch):
    """Neither on request nor by the default, a folder where the command is given."""
    before = fingerprint(candies)
    monkeypatch.chdir(candies)
    for data, output in ((candies, candies / "results"), (".", Path("results")), (candies / "Apple", Path("Apple"))):
        code, out, err, _ = run(data=data, output=output)
        assert code == 2
        assert not out
        assert err.startswith(f"error: {output}/eyecandies: lies in the dataset, into which nothing is written; pass")
    assert fingerprint(candies) == before


def test_the_home_folder_may_be_written_short(run, candies, monkeypatch):
    monkeypatch.setenv("HOME", str(candies.parent))
    code, _, err, _ = run("--modality=rgb", "--categories=Apple", data=f"~/{candies.name}")
    assert code == 0, err
    code, _, err, _ = run("--modality=rgb", data="~nobody at all/data")
    assert code == 2
    assert "--data_dir: ~nobody at all/data: there is no such home folder" in err


def test_two_runs_do_not_write_at_once(run, tmp_path):
    from launch.output import ResultsFolder

    with ResultsFolder(tmp_path / "results", "eyecandies").locked():
        code, _, err, _ = run("--modality=rgb")
    assert code == 2
    assert "another run" in err


def process(*arguments, cwd):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.Popen(
        [sys.executable, "-m", "launch.eval", *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_help_from_a_folder_with_our_names_in_it(tmp_path):
    """An installed package must win over data folders called weights or launch in the user's directory."""
    for name in ("weights", "launch", "musc_jax"):
        (tmp_path / name).mkdir()
    if "site-packages" not in weights.__file__:
        pytest.skip("an editable install cannot do this; CI installs the wheel")
    with process("--help", cwd=tmp_path) as started:
        out, err = started.communicate(timeout=60)
    assert started.returncode == 0, err
    for flag in ("--dataset", "--weights_rgb", "--[no]skip_bad", "--point_norm"):
        assert flag in out


def test_unknown_flags_are_refused(tmp_path):
    with process("--modallity=rgb", cwd=tmp_path) as started:
        _, err = started.communicate(timeout=60)
    assert started.returncode == 2
    assert err.startswith("error: Unknown command line flag 'modallity'")


@pytest.fixture
def run_killed(tmp_path, candies, image_weights):
    """Runs the command that kills itself before the n-th change to its results, in a process; returns their folder."""

    def call(name, at, code):
        folder = tmp_path / name
        given = [f"--data_dir={candies}", "--dataset=eyecandies", f"--weights_rgb={image_weights}", *SMALL, "--limit=3"]
        given += [f"--weights_points={GOLDEN / 'point_mae_tiny.pth'}", "--modality=rgb", "--save=maps"]
        done = subprocess.run(
            [sys.executable, KILLED, "eval", *given, f"--cache_dir={tmp_path / 'cache'}", f"--output_dir={folder}"],
            env=os.environ | {"KILLED_FOLDER": str(folder), "KILLED_AT": str(at)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return folder

    return call


def expect_same_results(a, b):
    files = sorted(p.relative_to(a) for p in a.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(b) for p in b.rglob("*") if p.is_file())
    for file in files:
        if file.suffix == ".tiff" or file.name in ("metrics.json", "metrics.csv", "scores.csv"):
            assert (a / file).read_bytes() == (b / file).read_bytes(), file


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_killed_runs_continue_to_the_same_bytes(run_killed):
    whole = run_killed("whole", 0, 0)
    changes = int(Path(f"{whole}.changes").read_text())
    # First while a category is written; then, by what is left to do, among the summary's files.
    run_killed("killed", changes // 3, -signal.SIGKILL)
    run_killed("killed", changes // 2, -signal.SIGKILL)
    expect_same_results(whole, run_killed("killed", 0, 0))


@pytest.mark.full
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_runs_killed_at_every_change_continue_to_the_same_bytes(run_killed):
    whole = run_killed("whole", 0, 0)
    for at in range(1, int(Path(f"{whole}.changes").read_text()) + 1):
        folder = f"killed_{at}"
        run_killed(folder, at, -signal.SIGKILL)
        expect_same_results(whole, run_killed(folder, 0, 0))


def test_a_platform_that_is_not_there_is_named():
    done = subprocess.run(
        [sys.executable, "-m", "launch.eval", "--limit=2"],
        env=os.environ | {"JAX_PLATFORMS": "none"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: JAX_PLATFORMS=none: JAX has no device to run on (")
    assert done.stderr.count("\n") == 1


def test_commands_start_without_what_takes_a_second_to_import():
    """All of it is for what comes later: metrics, cleaning, downloads. And cleaning leaves no thread that polls."""
    code = """
import os, sys, launch.eval, launch.fetch_weights, numpy as np
assert not {'sklearn', 'scipy.stats', 'open3d', 'huggingface_hub'} & set(sys.modules)
if sys.platform == "linux":
    from musc_jax.data.cleaning.eyecandies import cluster
    before = os.listdir("/proc/self/task")
    cluster(np.zeros((9, 3)))
    assert os.listdir("/proc/self/task") == before
"""
    plain = {name: value for name, value in os.environ.items() if name != "PARLAY_NUM_THREADS"}
    subprocess.run([sys.executable, "-c", code], check=True, env=plain)
