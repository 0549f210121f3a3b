"""`python -m launch.features` writes tokens that `launch.eval --features` scores as if the backbones had run."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import picture, save
from eyecandies_tree import fingerprint
from safetensors.numpy import load_file, save_file

from launch import eval as evaluation
from launch import features as command
from launch import score as scoring
from launch.own_flags import OwnFlags, parse, part
from musc_jax.storage import atomic

GOLDEN = Path(__file__).parents[1] / "golden"
DESCRIBED = ("--point_backbone=descriptors",)
SMALL = ("--image_size=32", "--num_groups=48", "--group_size=24", "--k_iter=16")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Cleaned scans, for all runs here."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(in_process, candies, cache, image_weights):
    """Runs a command on one category; the backbones' flags where they are wanted."""

    def call(module, output, *arguments, backbones=True):
        given = [f"--output_dir={output}", f"--cache_dir={cache}", "--dataset=eyecandies", f"--data_dir={candies}"]
        if backbones:
            given += [f"--weights_rgb={image_weights}", *SMALL]
            if "--point_backbone=descriptors" not in arguments:
                given += [f"--weights_points={GOLDEN / 'point_mae_tiny.pth'}"]
        return in_process(module, *given, "--categories=Apple", *arguments)

    return call


@pytest.fixture
def tokens(run, written, tmp_path):
    """Tokens of both modalities, written once and copied."""
    if not written:
        code, out, err = run(command, tmp_path / "first")
        assert code == 0, err
        assert f"tokens of 6 samples (0 MB) are in {tmp_path / 'first'}; score them by --features=" in out
        written.update({p.relative_to(tmp_path / "first"): p.read_bytes() for p in (tmp_path / "first").rglob("*.*")})
    for path, content in written.items():
        (tmp_path / "tokens" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tokens" / path).write_bytes(content)
    return tmp_path / "tokens"


@pytest.fixture(scope="module")
def written():
    return {}


def read_scores(folder):
    with (folder / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "arguments",
    [("--modality=rgb",), ("--modality=points", "--variant=paper", "--point_norm=cloud"), (), DESCRIBED],
    ids=str,
)
def test_what_is_written_is_scored_bit_for_bit_as_by_the_backbones(run, tokens, tmp_path, arguments):
    """The paper's variant samples and groups otherwise, and descriptors are others, so these are written anew."""
    if "--variant=paper" in arguments or arguments == DESCRIBED:
        tokens = tokens if arguments != DESCRIBED else tmp_path / "described"
        code, _, err = run(command, tokens, *arguments)
        assert code == 0, err
    code, _, err = run(evaluation, tmp_path / "want", "--save=maps", *arguments)
    assert code == 0, err
    own = [argument for argument in arguments if "norm" not in argument and argument not in DESCRIBED]
    scored = (f"--features={tokens}", "--save=maps", *own)
    code, _, err = run(evaluation, tmp_path / "got", *scored, backbones=False)
    assert code == 0, err
    want, got = (tmp_path / name / "eyecandies" for name in ("want", "got"))
    files = sorted(path.relative_to(want) for path in (want / "Apple").rglob("*") if path.suffix in (".csv", ".tiff"))
    assert len(files) == 7
    for name in (*files, Path("metrics.json")):
        assert (got / name).read_bytes() == (want / name).read_bytes(), name
    record = json.loads((got / "run.json").read_text())["config"]
    kind = "point_backbone" if "--modality=points" in arguments else "image_backbone"
    assert record[kind]["source"] == f"features in {tokens}"
    assert record[kind]["name"] in ("dino_vitb8", "point_mae")
    if arguments == DESCRIBED:
        assert record["point_backbone"]["name"] == "descriptors"


def test_version_1_has_its_embeddings(run, tmp_path):
    arguments = ("--variant=v1", "--modality=rgb", "--blocks=0,2")
    for module, output in ((command, "tokens"), (evaluation, "want")):
        assert run(module, tmp_path / output, *arguments)[0] == 0
    own = (f"--features={tmp_path / 'tokens'}", "--variant=v1")
    code, _, err = run(evaluation, tmp_path / "got", *own, backbones=False)
    assert code == 0, err
    got, want = (read_scores(tmp_path / name / "eyecandies" / "Apple") for name in ("got", "want"))
    assert got == want


def test_what_is_there_stays_and_what_is_missing_is_written(run, tokens, candies, written):
    before, folder = fingerprint(candies), tokens / "Apple"
    said = json.loads((folder / "features.json").read_text())
    assert (said["grid"], said["stages"], said["image_size"], said["modality"]) == (4, 3, 32, "rgb+points")
    assert said["backbone"] == {"image": "dino_vitb8", "points": "point_mae"}
    assert said["licence"] == "dino_vitb8: Apache-2.0; point_mae: MIT"
    assert said["random"] is False
    (folder / "03.safetensors").unlink()
    arrays = load_file(folder / "04.safetensors")
    save_file(arrays, folder / "04.safetensors", metadata={"made": f"{said['made']['settings']} another"})
    (folder / ".partial-x~1~00000000~00000000").write_text("mine")
    times = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    code, out, err = run(command, tokens)
    assert code == 0, err
    assert "tokens of 6 samples" in out
    assert "tokens: 2 of 2" in err
    assert {path.name for path in folder.glob("*.safetensors")} == {f"{i:02d}.safetensors" for i in range(6)}
    for path in folder.glob("*.safetensors"):
        assert path.read_bytes() == written[path.relative_to(tokens)]
        assert (times.get(path.name) == path.stat().st_mtime_ns) == (
            path.name not in ("03.safetensors", "04.safetensors")
        )
    assert fingerprint(candies) == before


def test_tokens_of_other_settings_are_replaced(run, tokens, written):
    folder = tokens / "Apple"
    shutil.copyfile(folder / "05.safetensors", folder / "99.safetensors")  # of a sample that is gone
    code, _, err = run(command, tokens, "--blocks=0,1,2", "--modality=rgb", "--limit=4")
    assert code == 0, err
    assert sorted(path.name for path in folder.glob("*.safetensors")) == [f"{i:02d}.safetensors" for i in range(4)]
    assert all(path.read_bytes() != written[path.relative_to(tokens)] for path in folder.glob("*.safetensors"))


def test_interrupted_it_goes_on(run, tmp_path, monkeypatch, tokens, written):
    write, left = atomic.write_bytes, [4]

    def interrupted(path, data):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(atomic, "write_bytes", interrupted)
    output = tmp_path / "stopped"
    code, _, err = run(command, output)
    assert code == 130
    assert "the same command goes on where it stopped" in err
    assert len(list((output / "Apple").iterdir())) == 4  # the notes among them
    monkeypatch.setattr(atomic, "write_bytes", write)
    code, _, err = run(command, output)
    assert code == 0
    assert "tokens: 3 of 3" in err
    for path, content in written.items():
        if path.suffix == ".safetensors":
            assert (output / path).read_bytes() == content


@pytest.mark.parametrize("name", ["00.npy", "00.safetensors", "features.json", "00.safetensors link", "link", "file"])
def test_nothing_of_somebody_elses_is_written_over(run, tmp_path, name):
    folder, other = tmp_path / "mine" / "Apple", tmp_path / "other"
    other.mkdir()
    if name in ("link", "file"):
        folder.parent.mkdir()
        folder.symlink_to(other) if name == "link" else folder.write_text("mine")
    else:
        folder.mkdir(parents=True)
        path = folder / name.split()[0]
        path.symlink_to(other / "x") if "link" in name else path.write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    code, _, err = run(command, tmp_path / "mine")
    assert code == 2
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert line.endswith("move it away or pass another --output_dir")
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_written_into_the_dataset(run, candies):
    code, _, err = run(command, candies / "tokens")
    assert code == 2
    assert "lies in the dataset, into which nothing is written; pass --output_dir" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--interval=0.5",), "Unknown command line flag 'interval'"),
        (("--ablate=ipg,cae",), "--ablate: tokens change by ipg alone, received cae"),
        (("--output_dir=",), "--output_dir: expected a path, received ''"),
    ],
)
def test_flags_that_change_no_token_are_refused(run, tmp_path, arguments, message):
    code, _, err = run(command, tmp_path / "x", *arguments)
    assert (code, message in err) == (2, True), err


def test_a_folder_is_needed(in_process):
    code, _, err = in_process(command)
    assert code == 2
    assert "--output_dir: expected a folder for the tokens, received none" in err


def test_a_sample_that_has_no_tokens_is_named_or_left_out(run, tmp_path):
    """Half of the scan's pixels have a point, which is less than a group of a thousand."""
    code, _, err = run(command, tmp_path / "x", "--group_size=1000", "--k_iter=1000", "--modality=points")
    assert code == 2
    assert "Apple: sample 00: " in err
    assert "points are fewer than the 1000 of a group (group_size); --skip_bad leaves it out" in err
    code, out, err = run(
        command, tmp_path / "x", "--group_size=1000", "--k_iter=1000", "--modality=points", "--skip_bad"
    )
    assert code == 0
    assert err.count("left out of Apple: sample 0") == 6
    assert "tokens of 0 samples" in out


def test_tokens_of_pictures_beside_the_encoder_of_points(run, tokens, tmp_path):
    """What has features takes them, the other modality its backbone: the same numbers again."""
    for path in (tokens / "Apple").glob("*.safetensors"):
        arrays = {name: array for name, array in load_file(path).items() if name.startswith("image")}
        save_file(arrays, path)
    (tokens / "Apple" / "features.json").write_text('{"image_size": 32}')
    points = f"--weights_points={GOLDEN / 'point_mae_tiny.pth'}"
    own = (f"--features={tokens}", "--modality=rgb+points", points, *SMALL)
    code, _, err = run(evaluation, tmp_path / "got", *own, backbones=False)
    assert code == 0, err
    assert run(evaluation, tmp_path / "want")[0] == 0
    got, want = (read_scores(tmp_path / name / "eyecandies" / "Apple") for name in ("got", "want"))
    assert got == want


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--weights_rgb=random",), "--weights_rgb: the tokens of --features are made already"),
        (("--backbone=dino_vitb16",), "--backbone: the tokens of --features are made already"),
        (("--num_groups=48",), "--num_groups: the tokens of --features are made already"),
        (("--dtype=bfloat16",), "--dtype: the tokens of --features are made already"),
        (("--image_size=64",), "--image_size: the features' groups lie in point maps of 32, received 64"),
        (("--features=nowhere",), "nowhere: is no folder; pass --features=DIR"),
        (("--features=",), "--features: expected a path, received ''"),
        (("--categories=Apple,Berry",), "6 of 6 samples have no file of tokens: 00, 01, 02, 03, 04 and 1 more"),
        (("--blocks=0,1",), "stage by stage the image meets the points"),
        (("--variant=v1",), "v1 re-scores by an embedding of each image, received none"),
        (("--ablate=ipg",), "'ipg' changes nothing with tokens of groups that are made already"),
    ],
)
def test_what_contradicts_features_is_refused(run, tokens, tmp_path, arguments, message):
    code, _, err = run(evaluation, tmp_path / "x", f"--features={tokens}", *arguments, backbones=False)
    assert (code, message in err) == (2, True), err
    assert "Traceback" not in err


@pytest.fixture
def parts(tmp_path):
    """Four pictures, and tokens of another program for them: the third one's middle is odd."""
    rng = np.random.default_rng(0)
    usual = rng.normal(size=(2, 9, 5))
    for i in range(4):
        save(tmp_path / "parts" / f"p{i}.png", picture(i))
        own = usual + 0.1 * rng.normal(size=usual.shape)
        own[:, 4] += 5 * (i == 2)
        (tmp_path / "tokens").mkdir(exist_ok=True)
        np.save(tmp_path / "tokens" / f"p{i}.npy", own.astype(np.float16))
    return tmp_path


@pytest.fixture
def score_parts(parts, in_process):
    def call(*arguments):
        given = ["--dataset=folder", f"--data_dir={parts / 'parts'}", f"--output_dir={parts / 'results'}"]
        given += [f"--features={parts / 'tokens'}", f"--cache_dir={parts / 'cache'}", "--image_size=33", *arguments]
        code, out, err = in_process(evaluation, *given)
        (folder,) = (parts / "results" / "folder").glob("*/") if code == 0 else [None]
        return code, out, err, folder

    return call


def test_tokens_of_another_program_are_scored(score_parts):
    code, out, err, folder = score_parts()
    assert code == 0, err
    assert "NOTE" not in out
    assert max(read_scores(folder), key=lambda row: float(row["max_score"]))["sample"] == "p2"


def test_tokens_of_another_program_are_scored_without_labels(parts, in_process, score_parts):
    where = [f"--output_dir={parts / 'scored'}", f"--cache_dir={parts / 'cache'}"]
    given = [f"--features={parts / 'tokens'}", "--image_size=33", "--save=report"]
    code, out, err = in_process(scoring, parts / "parts", *where, *given)
    assert code == 0, err
    assert "1  p2" in out
    assert "NOTE" not in out
    (folder,) = (path.parent for path in (parts / "scored").rglob("scores.csv"))
    first = read_scores(folder)
    _, _, err = in_process(scoring, parts / "parts", *where, *given, "--threshold=rate:0.5")
    assert "scored before with the same settings" in err
    got, want = read_scores(folder), read_scores(score_parts()[3])
    for rows in (first, got):
        assert {row["sample"]: row["pred_score"] for row in rows} == {r["sample"]: r["pred_score"] for r in want}


def test_tokens_that_are_random_or_aggregated_are_known_as_such(score_parts, parts):
    assert score_parts()[0] == 0
    (parts / "tokens" / "features.json").write_text('{"random": true}')
    code, out, _, folder = score_parts()
    first = read_scores(folder)
    assert (code, "random weights" in out) == (0, True)
    (parts / "tokens" / "features.json").write_text('{"aggregated": true}')
    code, out, _, folder = score_parts()
    assert (code, "random weights" in out) == (0, False)
    assert read_scores(folder) != first
    code, _, err, _ = score_parts("--degrees=1")
    assert (code, "--degrees: the tokens of --features are made already" in err) == (2, True)


def test_changed_tokens_are_scored_anew(score_parts, parts):
    first = read_scores(score_parts()[3])
    _, _, err, _ = score_parts()
    assert "finished before with the same settings" in err
    np.save(parts / "tokens" / "p0.npy", np.load(parts / "tokens" / "p0.npy")[:, ::-1])
    code, _, err, folder = score_parts()
    assert code == 0, err
    assert read_scores(folder) != first


def test_missing_extra_and_broken_files_are_said(score_parts, parts):
    (parts / "tokens" / "p1.npy").rename(parts / "tokens" / "q.npy")
    code, _, err, _ = score_parts()
    assert code == 2
    assert "1 of 4 samples have no file of tokens: p1; expected p1.safetensors and so on" in err
    code, _, err, folder = score_parts("--skip_bad")
    assert code == 0, err
    assert "left out of" in err
    assert "1 file belongs to no sample: q" in err
    assert [row["sample"] for row in read_scores(folder)] == ["p0", "p2", "p3"]
    (parts / "tokens" / "p0.npy").write_bytes(b"nothing")
    code, _, err, _ = score_parts()
    assert code == 2
    assert f"{parts / 'tokens' / 'p0.npy'}: cannot be read as NPY" in err


def test_features_that_are_not_looked_at_are_refused(score_parts):
    code, _, err, _ = score_parts("--modality=points")
    assert code == 2
    assert "has tokens of rgb only, of which --modality=points uses none; pass --modality=rgb" in err


def test_flags_that_a_command_lacks_are_at_their_defaults():
    whole = OwnFlags()
    first, second = (whole.DEFINE_integer(name, 1, "") for name in ("first", "second"))
    parse(["x", "--first=2", "--second=2"], whole)
    some = part(whole, ["second"])
    parse(["x", "--second=3"], some)
    assert (first.value, second.value) == (1, 3)
    with pytest.raises(Exception, match="Unknown command line flag 'first'"):
        parse(["x", "--first=2"], some)
