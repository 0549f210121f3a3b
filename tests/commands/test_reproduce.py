"""`python -m launch.reproduce`: every published row is a run that `launch.eval` takes, and stands beside its figure."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from dataset_trees import write_btad, write_eyecandies, write_mpdd, write_mvtec3d, write_mvtec_ad, write_visa

import weights
from launch import distributed, reproduce, reproduce_runs
from launch import eval as evaluation
from launch import flags as options
from launch.own_flags import parse
from musc_jax.report.published_metrics import published_categories, published_tables
from musc_jax.report.reproduction import declared_tables

TABLES = declared_tables()
RUNS = list(dict.fromkeys(row.run for table in TABLES.values() for row in table.rows if row.run is not None))
NARROW = {"width": 32, "depth": 3, "heads": 2, "mlp_width": 48}
SMALL = ("--weights=random", "--image_size=32", "--blocks=0,1,2", "--num_groups=16", "--group_size=12")


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("1", "table_1"), ("2", "table_2"), ("3", "table_3_ipg"), ("4", "table_4_scoring"), ("5", "table_5_snamd"),
        ("6", "table_6_rescoring"), ("7", "table_7_batch_size"), ("8", "table_8_time_rtx3090"),
    ],
)  # fmt: skip
def test_every_published_figure_of_the_method_stands_in_its_table(table, key):
    printed = [row for row in published_tables()[key] if row.get("method", "MuSc").startswith("MuSc")]
    metrics = {"image_AUROC", "image_F1Max", "image_AP", "pixel_AUROC", "pixel_F1Max", "pixel_AP", "pixel_PRO"}
    want = Counter(tuple(sorted((m, float(row[m])) for m in metrics & row.keys())) for row in printed)
    assert want == Counter(
        tuple(sorted((m, v) for m, v in row.published.items() if m in metrics)) for row in TABLES[table].rows
    )


def test_every_run_is_a_command_line_that_eval_takes():
    for run in RUNS:
        parse(["eval", *run.arguments], options.flags, distributed.flags)
        config, division = options.plain_config(), options.division()
        assert (config.modality, config.image_size) == (run.modality, run.size)
        by_chance = any(
            flag in ("subsets", "batch_size", "normal_ratio") and value != "0" for flag, value in run.switches
        )
        assert len(division.seeds) == (10 if by_chance and not run.timed else 1), run


def test_runs_have_names_of_their_own():
    assert len({run.name for run in RUNS}) == len(RUNS)
    assert all(run.name.isascii() and "/" not in run.name for run in RUNS)


class StandIn:
    """In the place of launch.eval and launch.features: notes what they are called with, writes made-up results."""

    def __init__(self, monkeypatch):
        self.calls, self.fails = [], {}
        for name, module in (("eval", evaluation), ("features", reproduce_runs.features)):
            monkeypatch.setattr(module, "main", lambda argv, name=name: self.main(name, argv[1:]))

    def main(self, name, arguments):
        self.calls.append((name, arguments))
        given = dict(argument[2:].split("=", 1) for argument in arguments)
        run = Path(given["output_dir"]).name
        if run in self.fails:
            print(self.fails[run][1], file=reproduce_runs.sys.stderr)
            return self.fails[run][0]
        if name == "eval":
            print("a table")
            folder = Path(given["output_dir"]) / given["dataset"]
            folder.mkdir(parents=True, exist_ok=True)
            mean = {"image_AUROC": 0.5, "image_F1Max": 0.25, "image_AP": None, "pixel_PRO": 0.9, "pixel_PRO_200": 0.125}
            there = dict.fromkeys(["bagel"] if "fewer" in self.fails else published_categories(given["dataset"]))
            summary = {"categories": there, "mean": mean}
            if "subsets" in given:
                summary["deviation"] = {"mean": {"image_AUROC": 0.01}}
            (folder / "metrics.json").write_text(json.dumps(summary))
            record = {"samples": {"a": 1, "b": 3}, "seconds_per_sample": {"a": {"all": 2.0}, "b": {"all": 4.0}}}
            (folder / "run.json").write_text(json.dumps(record | {"peak_memory_bytes": {"host": 9e9, "device": 2.5e9}}))
        return 0

    def named(self, name):
        return [arguments for called, arguments in self.calls if called == name]


@pytest.fixture
def stand_in(monkeypatch):
    return StandIn(monkeypatch)


@pytest.fixture
def call(in_process, tmp_path):
    """The command with its folders, and rows of a CSV that it wrote."""
    (tmp_path / "data").mkdir()

    def called(*arguments, data=("mvtec3d", "eyecandies", "mvtec_ad", "visa", "mpdd", "btad")):
        for name in data:
            (tmp_path / "data" / name).mkdir(exist_ok=True)
        places = (
            f"--data_root={tmp_path / 'data'}",
            f"--output_dir={tmp_path / 'out'}",
            f"--cache_dir={tmp_path / 'c'}",
        )
        return in_process(reproduce, *places, *arguments)

    return called


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_everything_is_listed(in_process):
    code, out, _ = in_process(reproduce, "--list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[:-1]] == ["1", "2", "3", "4", "5", "6", "7", "8", "10", "11"]


def test_own_figures_stand_beside_published_ones(call, stand_in, tmp_path):
    code, out, err = call("--table=1")
    assert code == 0, err
    rows = {(*list(row.values())[:5], row["metric"]): row for row in rows_of(tmp_path / "out" / "table_1.csv")}
    whole = rows["mvtec3d", "rgb+points", "MuSc-V2", "ViT-B-8+PT", "1", "image_AUROC"]
    assert (whole["here"], whole["published"], whole["difference"]) == ("50", "88.1", "-38.1")
    # The published PRO is that of 200 thresholds.
    assert rows["mvtec3d", "rgb+points", "MuSc-V2", "ViT-B-8+PT", "1", "pixel_PRO"]["here"] == "12.5"
    halves = rows["mvtec3d", "rgb+points", "MuSc-V2", "ViT-B-8+PT", "2", "image_AUROC"]
    assert (halves["deviation"], halves["published_deviation"]) == ("1", "0.2")
    absent = rows["mvtec3d", "rgb+points", "MuSc-V2", "ViT-B-8+PT", "1", "image_AP"]
    assert (absent["here"], absent["difference"], absent["published"]) == ("", "", "96.8")
    shown = [line.split() for line in out.splitlines()]
    at = next(i for i, line in enumerate(shown) if line[:3] == ["mvtec3d", "points", "MuSc-V2"])
    assert shown[at][4:8] == ["1", "here", "50.00", "25.00"]
    assert shown[at + 1][:3] == ["published", "83.7", "92.5"]
    assert shown[at + 2][:3] == ["minus", "-33.70", "-67.50"]
    markdown, latex = ((tmp_path / "out" / f"table_1.{ending}").read_text() for ending in ("md", "tex"))
    assert "| 50.00 ± 1.00 (87.6) |" in markdown
    assert r"50.00 $\pm$ 1.00 (87.6) & " in latex
    assert r"eyecandies & rgb+points" in latex


def test_tokens_are_made_once_and_scored_by_all_that_share_them(call, stand_in, tmp_path):
    code, _, err = call("--table=3,4,7", "--memory_gb=2", "--blocks=0,1", "--weights=random")
    assert code == 0, err
    # IPG and whole runs, of two datasets; the runs without IPG share theirs with nobody.
    made = [{*arguments} for arguments in stand_in.named("features")]
    assert len(made) == 2
    assert all("--weights_points=random" in arguments and "--blocks=0,1" in arguments for arguments in made)
    assert not any(argument.startswith("--memory_gb") for arguments in made for argument in arguments)
    scored = stand_in.named("eval")
    assert len(scored) == 2 * 8
    for arguments in scored:
        alone = "--ablate=ipg" in arguments
        assert any(argument.startswith("--features=") for argument in arguments) != alone
        assert ("--weights_rgb=random" in arguments) == alone == ("--blocks=0,1" in arguments)
        assert "--memory_gb=2.0" in arguments
    assert not (tmp_path / "c" / "reproduce").exists() or not list((tmp_path / "c" / "reproduce").iterdir())


def test_timed_runs_make_their_own(call, stand_in, tmp_path):
    code, _, err = call("--table=8")
    assert code == 0, err
    assert not stand_in.named("features")
    rows = {(*list(row.values())[:3], row["metric"]): row for row in rows_of(tmp_path / "out" / "table_8.csv")}
    row = rows["Multimodal", "MuSc-V2", "3", "milliseconds"]
    assert (row["here"], row["published"]) == ("3500", "934.4")
    assert rows["Multimodal", "MuSc-V2", "3", "peak_GB"]["here"] == "2.5"


def test_what_cannot_be_made_says_why(call, stand_in, tmp_path):
    stand_in.fails["eyecandies-rgb_points-dino_vitb8-224-degrees=3"] = (2, "error: dino_vitb8: not found\nsecond line")
    code, out, err = call("--table=5", data=("eyecandies",))
    assert code == 0, err
    missing = {(row["dataset"], row["setting"]): row["missing"] for row in rows_of(tmp_path / "out" / "table_5.csv")}
    assert missing["mvtec3d", "SNAMD (Ours)"] == f"no data: {tmp_path / 'data' / 'mvtec3d'}"
    assert missing["eyecandies", "SNAMD (r=3)"] == "dino_vitb8: not found"
    assert missing["eyecandies", "SNAMD (r=5)"] == ""
    assert missing["eyecandies", "LNAMD"].startswith("the aggregation of another method")
    assert "not made, dino_vitb8: not found: eyecandies SNAMD (r=3)" in out


def test_a_run_that_is_interrupted_ends_the_call_and_loses_nothing(call, stand_in, tmp_path):
    stand_in.fails["eyecandies-rgb_points-dino_vitb8-224-batch_size=9"] = (130, "interrupted")
    code, _, err = call("--table=7")
    assert code == 130
    assert "the same command goes on" in err
    rows = rows_of(tmp_path / "out" / "table_7.csv")
    assert {row["missing"] for row in rows if row["dataset"] == "mvtec3d"} == {""}
    assert {row["missing"] for row in rows if row["dataset"] == "eyecandies" and row["batch size"] == "9"} == {
        "not run"
    }


def test_a_trial_is_called_one(call, stand_in, tmp_path):
    call("--table=2", "--limit=4", "--weights=random", "--seeds=0,1")
    text = (tmp_path / "out" / "table_2.txt").read_text()
    assert "random weights" in text
    assert "a trial, not the paper's setting: --limit=4 --seeds=0,1" in text
    # Nothing is random in these runs, and eval refuses seeds then.
    assert not any(argument.startswith("--seeds") for arguments in stand_in.named("eval") for argument in arguments)
    assert "trial" not in (call("--table=2") and (tmp_path / "out" / "table_2.txt").read_text())


def test_a_mean_over_some_categories_is_called_one(call, stand_in, tmp_path):
    call("--table=3")
    assert "categories" not in (tmp_path / "out" / "table_3.txt").read_text()
    stand_in.fails["fewer"] = None
    call("--table=3", "--precision=fast")
    text = " ".join((tmp_path / "out" / "table_3.txt").read_text().split())
    assert "mean over 1 categories, published over 10: mvtec3d w/o IPG, mvtec3d w IPG" in text
    assert "not the paper's setting: --precision=fast" in text


def test_a_dry_run_runs_nothing_and_says_what_it_would_take(call, stand_in, tmp_path):
    code, _, err = call("--table=1,10", "--dry_run", data=("eyecandies",))
    assert code == 0
    assert not stand_in.calls
    assert not (tmp_path / "out").exists()
    assert "mvtec3d-points  [no data: " in err
    assert "eyecandies-rgb_points-dino_vitb8-224-subsets=2  [tokens shared]" in err
    assert "TFLOP/s" in err
    assert "GB in the cache" in err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "--table: expected some of 1, 2, 3"),
        (("--table=9",), "received 9"),
        (("--table=1", "--data_root="), "--data_root: expected the folder"),
        (("--table=1", "--data_root=nowhere"), "nowhere: no such folder"),
    ],
)
def test_what_asks_for_nothing_is_refused(call, arguments, problem):
    code, _, err = call(*arguments)
    assert code == 2
    assert problem in err


@pytest.fixture
def narrow(monkeypatch):
    """Backbones of three narrow blocks; nothing that the flags say of them changes."""
    load = weights.load

    def narrowed(source, name, **named):
        sizes = NARROW | ({"conv_widths": (16, 24, 32), "position_width": 16} if name == "point_mae" else {})
        return load(source, name, **sizes, **named)

    monkeypatch.setattr(weights, "load", narrowed)


def write_trees(root):
    writers = (write_mvtec3d, write_eyecandies, write_mvtec_ad, write_visa, write_mpdd, write_btad)
    for write in writers:
        write(root / write.__name__.removeprefix("write_"))


def test_shared_tokens_give_what_a_run_of_its_own_gives(call, in_process, narrow, tmp_path):
    write_eyecandies(tmp_path / "data" / "eyecandies")
    code, _, err = call("--table=4", *SMALL, "--categories=CandyCane", data=())
    assert code == 0, err
    rows = rows_of(tmp_path / "out" / "table_4.csv")
    got = {(row["setting"], row["metric"]): row["here"] for row in rows if row["dataset"] == "eyecandies"}
    assert all(got.values())
    small = (*SMALL[1:], "--weights_rgb=random", "--weights_points=random", f"--cache_dir={tmp_path / 'c'}")
    where = (
        f"--data_dir={tmp_path / 'data' / 'eyecandies'}",
        f"--output_dir={tmp_path / 'own'}",
        "--dataset=eyecandies",
    )
    code, _, err = in_process(
        evaluation, *where, *small, "--modality=rgb+points", "--ablate=cae", "--categories=CandyCane"
    )
    assert code == 0, err
    mean = json.loads((tmp_path / "own" / "eyecandies" / "metrics.json").read_text())["mean"]
    for metric in TABLES["4"].metrics:
        assert got["w/o CAE", metric] == f"{100 * mean[metric]:.6g}"


@pytest.mark.full
def test_all_of_it_on_tiny_trees(call, narrow, tmp_path):
    """Every table and figure, really run; again, it finds all of it."""
    # A size that patches of 8 and of 14 pixels divide.
    write_trees(tmp_path / "data")
    code, _, err = call("--table=all", *SMALL, "--image_size=56", "--seeds=0,1", data=())
    assert code == 0, err
    reasons = {row["missing"] for name in TABLES for row in rows_of(next((tmp_path / "out").glob(f"*_{name}.csv")))}
    assert {reason for reason in reasons if "no source" not in reason} == {""}
    before = {p: p.read_bytes() for p in (tmp_path / "out").glob("*.csv") if "table_8" not in p.name}
    code, _, err = call("--table=all", *SMALL, "--image_size=56", "--seeds=0,1", data=())
    assert code == 0, err
    assert {p: p.read_bytes() for p in before} == before
