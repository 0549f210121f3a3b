"""`python -m launch.compare` as a user runs it: what it finds, what it says, and what it refuses."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

import weights
from launch import compare, distributed
from launch import flags as options
from launch.output import ResultsFolder
from musc_jax import Config
from musc_jax import metrics as measure
from musc_jax.config import RescoringConfig, ScoringConfig
from musc_jax.models import Backbone
from musc_jax.report import settings
from musc_jax.report.published_metrics import published_categories, published_results
from musc_jax.report.tables import METRIC_KEYS

ROW = {key: 0.9 - 0.01 * i for i, key in enumerate(METRIC_KEYS)}
BOTH = ("rgb+points", "dino_vitb8")
CLIP = ("rgb", "clip_vitl14_336")


def backbone_of(name):
    """A backbone that has everything but parameters."""
    spec = weights.BACKBONES[name]
    sizes = {"blocks": spec.blocks, "v1_blocks": spec.v1_blocks, "image_size": spec.image_size}
    return Backbone(
        SimpleNamespace(config=spec.config), {}, name=name, source="here", digest="d" * 64, random=False, **sizes
    )


def config_of(modality, backbone, variant="released", **options):
    return (
        Config(
            variant=variant,
            modality=modality,
            image_backbone=None if modality == "points" else backbone_of(backbone),
            point_backbone=None if modality == "rgb" else backbone_of("point_mae"),
            **({"rescoring": RescoringConfig(windows=(1, 2, 3))} if variant == "v1" else {}) | options,
        )
        .resolved()
        .config
    )


def write(folder, dataset, categories, config, *, given=None, **changes):
    """A finished run, through the writer of launch.eval."""
    mean, _ = measure.mean_metrics(categories)
    run = {
        "dataset": dataset,
        "config": config.as_dict(),
        "flags": {"limit": None, "dtype": "float32", "output_dir": str(folder)} | (given or {}),
        "device": {"platform": "cpu", "kind": "cpu", "count": 1},
        "versions": {"jax": "0.10.2"},
        "samples": dict.fromkeys(categories, 50),
        "skipped": {name: [] for name in categories},
    }
    ResultsFolder(folder, dataset).write_summary(categories, mean, metrics_csv="", run=run | changes, note=None)
    return folder / dataset


def whole(dataset, **metrics):
    return dict.fromkeys(sorted(published_categories(dataset)), ROW | metrics)


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    """Runs the command in this process: (exit code, stdout, stderr, JSON)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        file = tmp_path / "out.json"
        file.unlink(missing_ok=True)
        given = [str(a) for a in arguments]
        given += [] if any(a.startswith("--json") for a in given) else [f"--json={file}"]
        code = compare.main(["compare", *given])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert not list(tmp_path.rglob(".partial-*"))
        return code, out, err, json.loads(file.read_text()) if file.exists() else None

    return run


# Published


@pytest.mark.parametrize(
    ("dataset", "setting", "variant", "size", "given", "tables"),
    [
        ("eyecandies", BOTH, "released", 224, {}, ["the released program's results by category", "Table I"]),
        ("mvtec3d", BOTH, "released", 224, {"subsets": 1, "batch_size": None}, ["the released", "Table I"]),
        ("mvtec3d", BOTH, "released", 224, {"subsets": 2}, ["Table I"]),
        ("eyecandies", BOTH, "released", 224, {"subsets": 3}, ["Table I"]),
        ("eyecandies", BOTH, "released", 224, {"batch_size": 7}, ["Table VII"]),
        ("mvtec3d", ("points", "point_mae"), "released", 224, {}, ["Table I"]),
        ("mvtec3d", ("rgb", "dino_vitb8"), "v1", 224, {}, ["Table I"]),
        ("eyecandies", CLIP, "released", 336, {}, ["Table I"]),
        ("mvtec_ad", CLIP, "released", 518, {}, ["Table II"]),
        ("visa", CLIP, "v1", 518, {}, ["the released", "Table II"]),
        ("btad", CLIP, "v1", 518, {}, ["the released", "Table II"]),
        ("mpdd", CLIP, "v1", 518, {}, ["Table II"]),
    ],
)
def test_published_setting(call, tmp_path, dataset, setting, variant, size, given, tables):
    windows = {"rescoring": RescoringConfig(windows=(1, 8, 9))} if dataset == "visa" else {}
    config = config_of(*setting, variant, image_size=size, **windows)
    run = write(tmp_path, dataset, whole(dataset), config, given=given)
    code, out, err, plain = call(run)
    assert (code, err) == (0, "")
    references = [c["reference"]["published"] for c in plain["comparisons"]]
    assert len(references) == len(tables)
    assert all(r.startswith(t) for r, t in zip(references, tables, strict=True))
    assert "differs:" not in out, "this is the published setting"
    assert all(c["settings"] == [] for c in plain["comparisons"])
    expected = published_results(dataset, modality=setting[0], backbone=setting[1], variant=variant)
    cell = plain["comparisons"][0]["mean"]["image_AUROC"]
    published = {t.mean.get("image_AUROC") for t in expected if t.table == references[0]}
    assert cell["reference"] is None or min(abs(cell["reference"] - p) for p in published) < 0.01
    assert cell["run"] == pytest.approx(90)
    by_category = plain["comparisons"][0]["categories"]
    assert set(by_category) == (published_categories(dataset) if references[0].startswith("the released") else set())
    assert "(not settled)" in out or setting != CLIP or variant != "released"


def test_values_against_the_published_table(call, tmp_path):
    run = write(
        tmp_path, "eyecandies", {"CandyCane": ROW | {"pixel_PRO_200": 0.91, "image_AP": None}}, config_of(*BOTH)
    )
    code, out, _, plain = call(run, "--to=published")
    assert code == 0
    (found,) = plain["comparisons"]
    cells = found["categories"]["CandyCane"]
    assert cells["image_AUROC"] == pytest.approx({"run": 90.0, "reference": 46.56, "difference": 43.44})
    assert cells["pixel_PRO_200"]["difference"] == pytest.approx(0.26)
    assert cells["image_AP"] == {"run": None, "reference": 50.63, "difference": None}
    assert "pixel_PRO" not in cells
    line = next(line for line in out.splitlines() if line.startswith("CandyCane"))
    assert line.split()[1:4] == ["+43.44", "+22.33", "-"]
    assert line.split()[-1] == "+0.26"
    assert "only in the reference: ChocolateCookie, ChocolatePraline" in out
    assert len(found["only_reference"]) == 9


@pytest.mark.parametrize(
    ("options", "changes", "lines"),
    [
        ({}, {"given": {"limit": 10}}, ["limit: 10, reference: all samples"]),
        ({"image_size": 448}, {}, ["image_size: 448, reference: 224"]),
        ({"ablate": ("cae",)}, {}, ["ablate: cae, reference: none"]),
        ({"rescoring": RescoringConfig(windows=(1,))}, {}, ["rescoring.windows: 1, reference: 1,7"]),
        ({}, {"given": {"batch_size": 4}}, ["batch_size: 4, reference: all"]),
        ({}, {"given": {"subsets": 5}}, ["subsets: 5, reference: 1"]),
        ({}, {"skipped": {"CandyCane": ["000: truncated"]}}, ["skipped samples: 1, reference: 0"]),
        ({}, {"given": {"weights_rgb": "my.pth"}}, ["image_backbone.weights: my.pth, reference: pretrained"]),
    ],
)
def test_a_setting_that_differs_is_said(call, tmp_path, options, changes, lines):
    run = write(tmp_path, "eyecandies", whole("eyecandies"), config_of(*BOTH, **options), **changes)
    code, out, _, plain = call(run)
    assert code == 0
    for found, table in zip(plain["comparisons"], out.split("\n\n"), strict=True):
        assert [line.removeprefix("differs: ") for line in table.splitlines() if line.startswith("differs")] == lines
        assert len(found["settings"]) == len(lines)


def test_random_weights_and_paper_are_said(call, tmp_path):
    plain = config_of(*BOTH, "paper").as_dict()
    plain["image_backbone"]["random"] = True
    paper = SimpleNamespace(as_dict=lambda: plain)
    run = write(tmp_path, "mvtec3d", whole("mvtec3d"), paper)
    code, out, _, _ = call(run)
    assert code == 0
    assert "differs: variant: paper, reference: released, the authors' program" in out
    assert "differs: image_backbone.weights: random, reference: pretrained" in out
    assert out.count(" minus published, ") == 1
    assert "by category" not in out


def test_some_categories_in_subsets_fall_back_to_results_by_category(call, tmp_path):
    run = write(tmp_path, "mvtec3d", {"bagel": ROW}, config_of(*BOTH), given={"subsets": 2})
    code, out, _, plain = call(run)
    assert code == 0
    assert "differs: subsets: 2, reference: 1" in out
    assert list(plain["comparisons"][0]["categories"]) == ["bagel"]


@pytest.mark.parametrize(
    ("dataset", "setting", "categories", "message"),
    [
        ("synthetic", BOTH, ["Praline"], "nothing is published for synthetic with rgb+points, dino_vitb8, released"),
        ("mvtec_ad", ("rgb", "dino_vitb8"), ["bottle"], "nothing is published for mvtec_ad with rgb, dino_vitb8"),
        ("mvtec3d", ("rgb", "dinov2_vitb14"), ["bagel"], "nothing is published for mvtec3d with rgb, dinov2_vitb14"),
        ("mvtec_ad", CLIP, ["bottle"], "only the means over all 15 categories are published, and cable, capsule, ca"),
        ("mvtec3d", BOTH, ["Praline"], "no category in common"),
    ],
)
def test_no_table_fits(call, tmp_path, dataset, setting, categories, message):
    run = write(tmp_path, dataset, dict.fromkeys(categories, ROW), config_of(*setting))
    code, out, err, plain = call(run)
    assert (code, out, plain) == (2, "", None)
    assert err.startswith(f"error: {run}: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("backbone", ["dinov3_vitb16", "tipsv2_vitl14", "lingbot_vits16", "clip_vitb16_plus_240"])
def test_which_backbones_results_are_published_with_is_said(call, tmp_path, backbone):
    run = write(tmp_path, "mvtec3d", {"bagel": ROW}, config_of("rgb", backbone))
    _, _, err, _ = call(run)
    released = "released or paper or v1"
    assert f"with rgb, {backbone}, released; there are results for rgb, dino_vitb8, {released}; " in err
    for listed in (
        f"rgb, clip_vitl14_336, {released}",
        "points, point_mae, released or paper",
        "rgb+points, dino_vitb8, ",
    ):
        assert f"; {listed}" in err
    assert err.count("\n") == 1
    assert "there are results" not in call(write(tmp_path, "synthetic", {"Praline": ROW}, config_of(*BOTH)))[2]


@pytest.mark.parametrize("variant", ["released", "paper", "v1"])
@pytest.mark.parametrize("modality", ["rgb", "points", "rgb+points"])
def test_usual_values_are_those_of_the_config(tmp_path, variant, modality):
    if variant == "v1" and modality != "rgb":
        return
    for name, spec in weights.BACKBONES.items():
        if (name == "point_mae") == (modality == "points"):
            config = config_of(modality, name, variant).as_dict()
            usual = compare._usual(config, "bottles", tmp_path)
            free = ("image_size", "image_backbone", "point_backbone")
            assert {k: v for k, v in usual.items() if k not in free} == {
                k: v for k, v in config.items() if k not in free
            }, spec


# Runs


def test_two_runs(call, tmp_path):
    ours = write(
        tmp_path / "a", "btad", {"01": ROW, "02": ROW | {"image_AUROC": None}}, config_of(*CLIP, image_size=518)
    )
    theirs = {"01": ROW | {"image_AUROC": 0.7, "pixel_PRO": 0.5}, "02": ROW}
    theirs = write(
        tmp_path / "b",
        "btad",
        theirs,
        config_of(*CLIP, image_size=336),
        given={"limit": 3},
        versions={"jax": "0.11"},
    )
    for arguments in ((theirs, ours), (ours, f"--to={theirs}")):
        code, out, err, plain = call(*arguments)
        assert (code, err) == (0, "")
        (found,) = plain["comparisons"]
        assert found["categories"]["01"]["image_AUROC"]["difference"] == pytest.approx(20)
        assert found["categories"]["01"]["pixel_PRO"]["difference"] == pytest.approx(34)
        assert found["categories"]["02"]["image_AUROC"]["difference"] is None
        assert found["mean"]["image_AUROC"]["difference"] == pytest.approx(20)
        assert {s["name"] for s in found["settings"]} == {"image_size", "flags.limit", "versions.jax"}
        assert (found["run"], found["reference"]) == (str(ours), {"run": str(theirs), "dataset": "btad"})
        row = next(line for line in out.splitlines() if line.startswith("01")).split()
        assert (row[1], row[7]) == ("+20.00", "+34.00")


def test_what_differs_is_said_once(call, tmp_path):
    """Flags that lead to the config stand beside it in run.json; those that change no number stand there, too."""
    given = {"references": 20, "precision": "fast", "seed": 3, "memory_gb": 2.0, "save": ["maps"], "blocks": ["2"]}
    scoring = ScoringConfig(references=20, precision="fast", seed=3)
    changed = config_of(*CLIP, scoring=scoring, blocks=(2, 5))
    ours = write(tmp_path / "a", "btad", {"01": ROW}, changed, given=given)
    theirs = write(tmp_path / "b", "btad", {"01": ROW}, config_of(*CLIP), given=dict.fromkeys(given))
    _, out, _, _ = call(theirs, ours)
    assert [line for line in out.splitlines() if line.startswith("differs: ")] == [
        "differs: blocks: 2,5, reference: 7,15,23",
        "differs: scoring.precision: fast, reference: full",
        "differs: scoring.references: 20, reference: none",
        "differs: scoring.seed: 3, reference: 0",
    ]


def test_every_flag_of_eval_is_known_to_the_comparison():
    """In one place only: a field of the config, or in one of the lists; a new flag has to be put somewhere."""
    default = {flag.name: flag.default for module in (options, distributed) for flag in module.flags.all}
    fields = {name.rsplit(".", 1)[-1] for name in settings.config_defaults()} & default.keys()
    places = [*fields, *settings.FLAGS, *settings.RECORDED, *settings.WITHOUT_EFFECT]
    assert sorted(places) == sorted(default)
    assert {name: default[name] for name in settings.FLAGS} == settings.FLAGS


def test_several_runs_are_compared_with_the_first(call, tmp_path):
    names = ("a", "b", "c")
    a, b, c = (
        write(tmp_path / name, "btad", {"01": ROW | {"image_AUROC": 0.5 + 0.1 * i}}, config_of(*CLIP))
        for i, name in enumerate(names)
    )
    code, out, _, plain = call(a, b, tmp_path / "c" / "btad" / "metrics.json")
    assert code == 0
    assert [f["mean"]["image_AUROC"]["difference"] for f in plain["comparisons"]] == pytest.approx([10, 20])
    assert [f["reference"]["run"] for f in plain["comparisons"]] == [str(a)] * 2
    assert " ".join(out.split()).count(" minus ") == 2
    code, _, _, plain = call(a, b, f"--to={c}")
    assert [f["mean"]["image_AUROC"]["difference"] for f in plain["comparisons"]] == pytest.approx([-20, -10])


def test_folders_of_several_datasets_meet_by_dataset(call, tmp_path):
    for folder, value in (("a", 0.5), ("b", 0.75)):
        write(tmp_path / folder, "btad", {"01": ROW | {"image_AUROC": value}}, config_of(*CLIP))
        write(tmp_path / folder, "visa", {"pcb1": ROW | {"image_AP": value}}, config_of(*CLIP))
    write(tmp_path / "b", "mpdd", {"tubes": ROW}, config_of(*CLIP))
    (tmp_path / "b" / "mvtec_ad" / "bottle").mkdir(parents=True)
    (tmp_path / "b" / "mvtec_ad" / "bottle" / "category.json").write_text("{}")
    (tmp_path / "b" / "folder" / "line1" / "left").mkdir(parents=True)  # a category that lies in another folder
    (tmp_path / "b" / "folder" / "line1" / "left" / "category.json").write_text("{}")
    code, _, err, plain = call("a", "b")
    assert code == 0
    assert [(f["dataset"], list(f["categories"])) for f in plain["comparisons"]] == [
        ("btad", ["01"]),
        ("visa", ["pcb1"]),
    ]
    for dataset in ("mvtec_ad", "folder"):
        assert f"left out: b/{dataset}: no metrics.json: the run is not finished" in err
    assert "b/mpdd: no run of mpdd among a/btad, a/visa" in err
    assert len(plain["left_out"]) == 1
    code, _, err, plain = call("a/btad", "b/visa")
    assert (code, plain) == (2, None)
    assert "no category in common: pcb1 here, 01 there" in err


def test_what_fits_no_table_does_not_hide_what_does(call, tmp_path):
    write(tmp_path / "out", "eyecandies", whole("eyecandies"), config_of(*BOTH))
    write(tmp_path / "out", "synthetic", {"Praline": ROW}, config_of(*BOTH))
    code, out, err, plain = call("out")
    assert code == 0
    assert {f["dataset"] for f in plain["comparisons"]} == {"eyecandies"}
    assert "out/synthetic: nothing is published" in err
    assert plain["left_out"] == [err.strip().removeprefix("left out: ")]
    assert "synthetic" not in out


def test_without_run_json_the_settings_are_unknown(call, tmp_path):
    run = write(tmp_path, "btad", {"01": ROW}, config_of(*CLIP))
    copied = tmp_path / "btad" / "copied.json"
    copied.write_text((run / "metrics.json").read_text())
    code, out, _, plain = call("btad/copied.json", "btad")
    assert code == 0
    assert "settings unknown, no run.json beside btad/copied.json" in " ".join(out.split())
    assert plain["comparisons"][0]["settings"] == []
    code, _, err, _ = call(copied)
    assert code == 2
    assert "no run.json beside metrics.json, so the run's setting is unknown" in err


# Bad input


def metrics_of(value):
    return {"metrics.json": json.dumps({"categories": {"01": {"image_AUROC": value}}})}


def run_json(**config):
    return {"run.json": json.dumps({"dataset": "btad", "config": config})}


GOOD = {"variant": "v1", "modality": "rgb", "image_backbone": {"name": "clip_vitl14_336"}}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"metrics.json": ""}, "metrics.json: no readable JSON"),
        ({"metrics.json": '{"categories": {"01"'}, "metrics.json: no readable JSON"),
        ({"metrics.json": "[" * 100_000}, "metrics.json: no readable JSON"),
        ({"metrics.json": b"\xff\xfe{}"}, "metrics.json: no readable JSON"),
        ({"metrics.json": "[1]"}, "metrics.json: expected a JSON object, received list"),
        ({"metrics.json": "{}"}, "metrics.json: no metrics by category"),
        ({"metrics.json": '{"categories": {}}'}, "metrics.json: no metrics by category"),
        ({"metrics.json": '{"categories": {"01": 3}}'}, "01: expected metrics by name, received int"),
        ({"metrics.json": '{"categories": {"\\ud800": {}}}'}, "expected the name of a category"),
        (metrics_of("high"), "01: image_AUROC: expected a fraction or null, received 'high'"),
        (metrics_of(float("nan")), "received nan"),
        (metrics_of(float("inf")), "received inf"),
        (metrics_of(10**400), "expected a fraction or null"),
        (metrics_of(True), "received True"),
        (metrics_of(97.5), "received 97.5"),
        ({"run.json": "{"}, "run.json: no readable JSON"),
        ({"run.json": "{}"}, "run.json: expected the config of launch.eval"),
        (run_json(variant="v1"), "run.json: expected the config of launch.eval"),
        (run_json(**GOOD | {"variant": "v3"}), "run.json: variant: expected one of released, paper, v1"),
        (run_json(**GOOD | {"image_backbone": {"name": ["x"]}}), "config.image_backbone: expected a backbone"),
        (run_json(**GOOD | {"image_backbone": None}), "config.image_backbone: expected a backbone"),
        (run_json(**GOOD | {"modality": "points"}), "config.point_backbone: expected a backbone"),
        (
            run_json(**GOOD | {"modality": "points", "point_backbone": {"name": "descriptors"}}),
            "nothing is published for points by --point_backbone=descriptors",
        ),
    ],
)
def test_damaged_files(call, tmp_path, files, message):
    run = write(tmp_path, "btad", {"01": ROW}, config_of(*CLIP))
    for name, content in files.items():
        (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    code, out, err, plain = call(run)
    assert (code, out, plain) == (2, "", None)
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected at least one RUN"),
        (("nowhere",), "nowhere: no such folder"),
        (("x" * 300,), "name too long"),
        (("",), "expected a path"),
        (("~nobody-of-this-name/x",), "RUN: ~nobody-of-this-name/x: "),
        (("empty",), "empty: no metrics.json: the run is not finished, or this is no folder of launch.eval"),
        (("begun",), "begun: no metrics.json: the run is not finished\n"),
        (("begun/btad",), "btad: no metrics.json: the run is not finished\n"),
        (("good", "--to=nowhere"), "nowhere: no such folder"),
        (("good", "--to="), "--to: expected a path"),
        (("good", "good", "--json="), "--json: expected a path"),
        (("good", "good", "--json=/"), "--json=/: expected a file"),
        (("good", "good", "--json=begun"), "--json=begun: cannot be written"),
        (("good", "good", "--json=good/btad/run.json/x"), "cannot be written"),
        (("good", "good", "--json=good/btad/metrics.json"), "is a file of a run"),
        (("good", "good", "--json=good/../good/btad/run.json"), "is a file of a run"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(call, tmp_path, arguments, message):
    run = write(tmp_path / "good", "btad", {"01": ROW}, config_of(*CLIP))
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    (tmp_path / "empty").mkdir()
    (tmp_path / "begun" / "btad" / "01").mkdir(parents=True)
    (tmp_path / "begun" / "btad" / "01" / "category.json").write_text("{}")
    code, out, err, _ = call(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message.lower() in err.lower()
    assert err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_as_a_program(tmp_path, in_process):
    for name, value in (("a", 0.5), ("b", 0.75)):
        write(tmp_path / name, "btad", {"01": ROW | {"image_AUROC": value}}, config_of(*CLIP))

    command = [sys.executable, "-m", "launch.compare", "a", "b", "--json=deep/er/out.json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("b/btad minus a/btad\n")
    assert [p.name for p in (tmp_path / "deep" / "er").iterdir()] == ["out.json"]
    code, out, err = in_process(compare, "a", "--nonsense")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
