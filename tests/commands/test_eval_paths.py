"""`python -m launch.eval` with names and folders of somebody who means harm, or just names them carelessly."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
import tifffile
from dataset_trees import write_visa
from eyecandies_tree import fingerprint
from PIL import Image

from launch import compare
from launch import eval as command
from musc_jax.execution.feature_store import StoreWriter

PLACES = ("line1/left", "line1/right", "line2")


@pytest.fixture(scope="session")
def parts(tmp_path_factory):
    """Three small pictures in each of three folders, two of which lie in another one."""
    root, rng = tmp_path_factory.mktemp("data") / "parts", np.random.default_rng(0)
    for place in PLACES:
        (root / place).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(root / place / f"{i}.png")
    return root


@pytest.fixture
def run(tmp_path, image_weights, parts, capsys):
    """Runs the command on the folder; returns its exit code, what it printed, what went wrong."""

    def call(*arguments, data=parts, dataset="folder"):
        given = [f"--output_dir={tmp_path / 'results'}", f"--cache_dir={tmp_path / 'cache'}", "--modality=rgb"]
        given += [f"--dataset={dataset}", f"--data_dir={data}", f"--weights_rgb={image_weights}", "--image_size=32"]
        code = command.main(["eval", *given, *arguments])
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


def refused(outcome, *texts):
    """One line, exit code 2; the line."""
    code, out, err = outcome
    assert code == 2, err
    assert not out
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in err
    for text in texts:
        assert text in line
    return line


def test_nested_categories_from_start_to_end(run, tmp_path, parts, capsys):
    before = fingerprint(parts)
    wanted = f"--categories={','.join(PLACES)}"
    code, out, err = run(wanted, "--save=maps,images")
    assert code == 0, err
    folder = tmp_path / "results" / "folder"
    assert list(json.loads((folder / "metrics.json").read_text())["categories"]) == list(PLACES)
    for place in PLACES:
        assert f"\n{place} " in out
        with (folder / place / "scores.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["sample"] for row in rows] == ["0", "1", "2"]
        for row in rows:
            anomaly_map = tifffile.imread(folder / place / "maps" / f"{row['sample']}.tiff")
            assert anomaly_map.max() == pytest.approx(float(row["max_score"]), rel=1e-6)
            with Image.open(folder / place / "images" / f"{row['sample']}.png") as picture:
                picture.verify()
    # Taken up again where it was stopped: here as if it had been before the second of them.
    (folder / "line1" / "right" / "category.json").unlink()
    (folder / "metrics.json").unlink()
    for name in ("scores.csv", "maps", "images"):
        (folder / "line1" / "right" / name).rename(tmp_path / name)
    code, _, err = run(wanted, "--save=maps,images")
    assert code == 0, err
    assert [place for place in PLACES if f"{place}: finished before" in err] == ["line1/left", "line2"]
    assert (folder / "line1" / "right" / "scores.csv").read_bytes() == (tmp_path / "scores.csv").read_bytes()
    # And compared, with itself and as a whole folder of results.
    assert compare.main(["compare", str(folder), str(tmp_path / "results")]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{place} " in out for place in PLACES)
    assert fingerprint(parts) == before


def test_an_empty_data_dir_is_not_the_current_folder(run, parts, monkeypatch):
    """As by `--data_dir=$PARTS` where that is not set."""
    monkeypatch.chdir(parts / "line2")
    refused(run(data=""), "--data_dir: expected a path, received ''")


@pytest.mark.parametrize(
    ("category", "reason"),
    [
        ("{data}/line2", "is absolute"),
        ("../parts", "climbs out by '..'"),
        ("line1/../../parts", "climbs out by '..'"),
        ("line1/", "has an empty part"),
        ("./line2", "has the part '.'"),
        ("line2,.partial-x", "begins with '.partial-'"),
        ("C:line2", "is absolute"),
        ("metrics.json", "is where the run's summary goes"),
        ("", "expected at least one category"),
    ],
)
def test_categories_that_are_paths_elsewhere(run, tmp_path, parts, category, reason):
    before = fingerprint(parts)
    refused(run(f"--categories={category.format(data=parts)}"), reason)
    assert fingerprint(parts) == before
    assert [path.name for path in (tmp_path / "results").rglob("*")] == ["folder"]


def test_categories_of_a_table_lead_nowhere_else(run, tmp_path):
    """VisA says in a table what its categories are called and where its pictures lie."""
    write_visa(tmp_path / "visa")
    table = tmp_path / "visa" / "split_csv" / "1cls.csv"
    text = table.read_text()
    first = text.splitlines()[1].split(",")[0]
    for name, reason in (("../../evil", "climbs out"), ("/evil", "is absolute"), ("a//b", "has an empty part")):
        table.write_text(text.replace(f"\n{first},", f"\n{name},"))
        refused(run(data=tmp_path / "visa", dataset="visa"), f"visa: category '{name}' {reason}")
    for picture in ("../x.JPG", "/x.JPG", "a\0b.JPG"):
        table.write_text(f"{text.splitlines()[0]}\n{first},test,normal,{picture},\n")
        assert "paths below DATA_DIR" in run(data=tmp_path / "visa", dataset="visa")[2]
    assert not (tmp_path / "evil").exists()


ODD = {
    b"\xff.png": ("_", "\\xff.png"),
    "①.png".encode(): ("①", "①.png"),
    "日本.png".encode(): ("日本", "日本.png"),
    b"a\nb.png": ("a_b", "a\\nb.png"),
    b"x" * 251 + b".png": (None, "x" * 251 + ".png"),
    b" .png": (None, " .png"),
    b"con.png": ("con_", "con.png"),
}


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such names")
def test_samples_under_any_names(run, tmp_path, parts):
    """Results have names that any system takes; the table says what the files are really called."""
    data = tmp_path / "odd \udcff"
    data.mkdir()
    for i in range(2):
        (data / f"{i}.png").write_bytes((parts / "line2" / f"{i}.png").read_bytes())
    for i, name in enumerate(ODD):
        picture = np.random.default_rng(100 + i).integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(picture).save(data / "0.tmp.png")
        (data / "0.tmp.png").rename(data / os.fsdecode(name))
    code, out, err = run("--save=maps,images", data=data)
    assert code == 0, err
    out.encode()
    folder = tmp_path / "results" / "folder" / "odd _"
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"0.png", "1.png", *(real for _, real in ODD.values())}
    for name, real in ODD.values():
        row = rows[real]
        assert name in (None, row["sample"])
        assert row["image_path"] == f"{tmp_path}/odd \\xff/{real}"
        for file in (f"maps/{row['sample']}.tiff", f"images/{row['sample']}.png"):
            assert (folder / file).is_file()


def test_a_folder_that_is_in_the_way_is_seen_before_any_work(run, tmp_path):
    place = tmp_path / "results" / "folder" / "line2"
    place.mkdir(parents=True)
    (place / "precious.txt").write_text("mine")
    for arguments in (("--categories=line2",), ("--categories=line1/left,line2",)):
        outcome = run(*arguments)
        refused(outcome, f"{place}: is there already and no results of an earlier run", "pass another --output_dir")
        assert "check samples" not in outcome[2]  # the dataset is not opened, which may take long
    assert [path.name for path in place.iterdir()] == ["precious.txt"]


def test_files_of_a_user_survive_another_run(run, tmp_path):
    folder = tmp_path / "results" / "folder" / "line2"
    assert run("--categories=line2", "--save=maps")[0] == 0
    (folder / "notes.txt").write_text("mine")
    first = (folder / "scores.csv").read_bytes()
    code, _, err = run("--categories=line2", "--ablate=ia")
    assert code == 0, err
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "scores.csv").read_bytes() != first
    assert not (folder / "maps").exists()


def test_links_in_the_results_folder(run, tmp_path, parts):
    before = fingerprint(parts)
    place = tmp_path / "results" / "folder" / "line2"
    place.parent.mkdir(parents=True)
    place.symlink_to(parts / "line2")
    refused(run("--categories=line2"), f"{place}: ")
    assert fingerprint(parts) == before


def test_nothing_is_derived_into_the_dataset(run, parts):
    before = fingerprint(parts)
    for place in (parts, parts / "cache"):
        line = refused(run("--categories=line2", f"--cache_dir={place}"))
        assert line == f"error: {place}: lies in the dataset, into which nothing is written; pass --cache_dir"
    assert fingerprint(parts) == before


@pytest.mark.parametrize("place", ["elsewhere", "../elsewhere", "sub/../../elsewhere"])
def test_folders_of_a_dataset_may_lie_elsewhere(run, tmp_path, parts, place):
    """Nothing is written there, either: --normal_dir is relative to the category's folder, or absolute."""
    for folder in ("elsewhere", "data/sub", "data/elsewhere"):
        shutil.copytree(parts / "line2", tmp_path / folder)
    before = fingerprint(tmp_path)
    name = place if place.startswith(".") or "/" in place else str(tmp_path / place)
    given = (f"--normal_dir={name}", f"--cache_dir={tmp_path / 'cache'}")
    target = tmp_path / "elsewhere" / "results"
    line = refused(run(*given, f"--output_dir={target}", data=tmp_path / "data"))
    assert line.startswith(f"error: {target}/folder: lies in the dataset, into which nothing is written")
    refused(run(*given, f"--cache_dir={target}", data=tmp_path / "data"), "pass --cache_dir")
    refused(run(*given, "--categories=sub", f"--output_dir={tmp_path / 'data/elsewhere'}", data=tmp_path / "data"))
    assert fingerprint(tmp_path) == before


@pytest.mark.parametrize("flag", ["output_dir", "cache_dir"])
def test_a_home_folder_of_nobody(run, flag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(
        run("--categories=line2", f"--{flag}=~nobody at all/x"), f"--{flag}: ~nobody at all/x: there is no such home"
    )
    refused(run("--categories=line2", f"--{flag}="), f"--{flag}: expected a path")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("~")]


@pytest.fixture
def scarce(monkeypatch):
    """Flags with which features go to disk, small as they are."""
    monkeypatch.setattr("musc_jax.execution.memory._PROGRAMS", 0)
    return ("--categories=line2", "--memory_gb=0.00008")


def test_a_store_that_fails_is_blamed_on_its_folder(run, scarce, monkeypatch, tmp_path):
    class Full:
        def write(self, view):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    def opened(writer, path, **options):
        begin(writer, path, **options)
        writer._file.close()
        writer._file = Full()

    begin = StoreWriter.__init__
    monkeypatch.setattr(StoreWriter, "__init__", opened)
    line = refused(run(*scarce))
    assert line.startswith(f"error: {tmp_path / 'cache' / 'features'}/.partial-")
    assert line.endswith(": No space left on device; pass another --cache_dir")
    assert not list((tmp_path / "cache" / "features").iterdir())


def test_other_files_are_not_blamed_on_the_cache(run, scarce, monkeypatch, tmp_path):
    """A file of the dataset, or of the results, that fails while features lie on disk."""

    def fails(error):
        def score(*arguments, **options):
            raise error

        return score

    with monkeypatch.context() as patch:
        patch.setattr(
            "musc_jax.pipeline.score_divisions", fails(PermissionError(13, "Permission denied", "/data/parts/1.png"))
        )
        line = refused(run(*scarce))
    assert line == "error: /data/parts/1.png: Permission denied; see to its place and permissions"
    assert not list((tmp_path / "cache" / "features").iterdir())
    with monkeypatch.context() as patch:
        patch.setattr("musc_jax.pipeline.score_divisions", fails(OSError("a defect of ours")))
        with pytest.raises(OSError, match="a defect of ours"):
            run(*scarce)
    code, _, err = run(*scarce)
    assert code == 0, err
    assert "of features on disk" in err
