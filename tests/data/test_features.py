"""A folder of tokens, one file a sample, as a whole: what belongs together, what is missing, what is odd."""

import dataclasses
import json
from functools import partial

import numpy as np
import pytest
from safetensors.numpy import save_file
from scenes import make_samples

from musc_jax.data import DataError, Dataset
from musc_jax.data.dataset import Entry
from musc_jax.data.features import open_features

NAMES = ("000", "001", "002")


def f(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def fill(folder, names=NAMES, **arrays):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        save_file(arrays or {"image.0": f(9, 4), "image.1": f(9, 5)}, folder / f"{name}.safetensors")


def dataset(*categories, samples=None):
    """Scenes by category, called as `NAMES` are."""
    made = make_samples(3) if samples is None else samples
    entries = [Entry(sample.name, "", partial(lambda sample, size: sample, sample)) for sample in made]
    return Dataset("parts", dict.fromkeys(categories, entries))


def problems(call):
    with pytest.raises(DataError) as caught:
        call()
    return str(caught.value)


def test_a_folder_for_each_category(tmp_path):
    for category in ("a", "line/left"):
        fill(tmp_path / category)
    (tmp_path / "a" / "notes.txt").write_text("of mine")
    (tmp_path / "a" / ".partial-x~1~00000000~00000000").write_text("")
    told = []
    found = open_features(tmp_path, progress=lambda *now: told.append(now))
    assert told[-1] == ("check features", 6, 6)
    assert found.modality == "rgb"
    assert (found.image.num_tokens, found.image.widths, found.image.image_size) == (9, (4, 5), 224)
    assert (found.image.aggregated, found.image.random, found.image.embedded) == (False, False, False)
    assert found.points is None
    plain = dataset("a", "line/left")
    joined = found.join(plain)
    assert joined.warnings == []
    samples = list(joined.samples("line/left", size=32))
    assert [sample.name for sample in samples] == list(NAMES)
    for sample in samples:
        np.testing.assert_array_equal(sample.tokens.image[1], f(9, 5))
    assert joined.digest("a") == plain.digest("a"), "the samples are the same"


def test_notes_say_what_arrays_cannot(tmp_path):
    fill(tmp_path / "a")
    said = {"image_size": 32, "aggregated": True, "random": True, "backbone": "net", "grid": 3, "stages": 2}
    (tmp_path / "features.json").write_text(json.dumps(said))
    image = open_features(tmp_path).image
    assert (image.image_size, image.aggregated, image.random, image.name) == (32, True, True, "net")


def test_the_digest_is_of_what_is_scored(tmp_path):
    fill(tmp_path / "x" / "a")
    fill(tmp_path / "y" / "a")
    digest = lambda name: open_features(tmp_path / name).image.digest  # noqa: E731
    assert digest("x") == digest("y")
    (tmp_path / "y" / "features.json").write_text('{"made": {"by": "x"}}')
    assert digest("x") == digest("y")
    (tmp_path / "y" / "features.json").write_text('{"aggregated": true}')
    assert digest("x") != digest("y")
    (tmp_path / "y" / "features.json").unlink()
    fill(tmp_path / "y" / "a", ("000",), **{"image.0": f(9, 4), "image.1": f(9, 5, seed=1)})
    assert digest("x") != digest("y")


def test_one_category_needs_no_folder_of_its_own(tmp_path):
    fill(tmp_path)
    found = open_features(tmp_path, categories=["b"])
    assert all(sample.tokens for sample in found.join(dataset("b")).samples("b", size=32))
    text = problems(lambda: found.join(dataset("b", "c")))
    assert [line.partition(": ")[0] for line in text.splitlines()] == [str(tmp_path / "b"), str(tmp_path / "c")]
    assert "3 of 3 samples have no file of tokens: 000, 001, 002; expected 000.safetensors" in text


def test_folders_may_be_those_of_the_pictures(tmp_path):
    """A sample of a plain folder is called by its path, with `_` for `/`."""
    samples = [dataclasses.replace(sample, name=f"good_{sample.name}") for sample in make_samples(3)]
    for top in (tmp_path / "x", tmp_path / "y" / "parts"):
        fill(top / "good")
        found = open_features(top.parent if top.name == "parts" else top, categories=["parts"])
        joined = found.join(dataset("parts", samples=samples))
        assert joined.warnings == []
        assert all(sample.tokens for sample in joined.samples("parts", size=32))
    fill(tmp_path / "x", ("good_001",))
    text = problems(lambda: open_features(tmp_path / "x").join(dataset("parts", samples=samples)))
    assert "would be called good_001, too; rename one of them" in text


def test_a_category_within_another_has_its_own_files(tmp_path):
    fill(tmp_path / "a")
    fill(tmp_path / "a" / "b")
    joined = open_features(tmp_path).join(dataset("a", "a/b"))
    assert joined.warnings == []
    assert joined.names("a") == joined.names("a/b") == NAMES


def test_missing_and_extra_files_are_said(tmp_path):
    fill(tmp_path / "a", ("000", "002", "x", "y"))
    found, place = open_features(tmp_path), tmp_path / "a"
    text = problems(lambda: found.join(dataset("a")))
    assert text.startswith(f"{place}: 1 of 3 samples have no file of tokens: 001; expected 001.safetensors")
    assert "--skip_bad" in text
    joined = found.join(dataset("a"), skip_bad=True)
    assert joined.names("a") == ("000", "002")
    assert joined.skipped == {"a": ("001",)}
    extra = f"{place}: 2 files belong to no sample: x, y"
    assert joined.warnings == [f"{place}: 1 of 3 samples have no file of tokens: 001", extra]
    some = dataset("a", samples=make_samples(3)[::2])
    assert found.join(some).warnings == [extra]
    assert found.join(some, whole=False).warnings == []
    many = [dataclasses.replace(sample, name=f"n{sample.name}") for sample in make_samples(9)]
    assert problems(lambda: found.join(dataset("a", samples=many), skip_bad=True)).startswith(
        f"{place}: 9 of 9 samples have no file of tokens: n000, n001, n002, n003, n004 and 4 more; "
    )


def test_every_problem_is_in_one_report(tmp_path):
    fill(tmp_path / "a", **{"image.0": f(9, 4), "image.1": f(9, 4)})
    fill(tmp_path / "a", ("odd",), **{"image.0": f(9, 4)})
    (tmp_path / "a" / "broken.npy").write_bytes(b"x")
    np.save(tmp_path / "a" / "000.npy", f(2, 9, 4))
    text = problems(lambda: open_features(tmp_path))
    head, *lines = text.splitlines()
    assert head == f"3 problems in the features {tmp_path} (--skip_bad leaves such files out):"
    assert any("000.safetensors: 000.npy has the same sample's tokens" in line for line in lines)
    assert any("broken.npy: cannot be read as NPY" in line for line in lines)
    assert any("odd.safetensors: holds image (9, 4), but most others image (9, 4), (9, 4)" in line for line in lines)
    found = open_features(tmp_path, skip_bad=True)
    assert len(found.warnings) == 3
    assert found.join(dataset("a")).warnings == found.warnings


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ({"stages": 3}, "has 2 stages of image tokens, and features.json says 3"),
        ({"modality": "points"}, "has no points tokens, and features.json says modality points"),
        ({"grid": 4}, "9 tokens are not the 4 x 4 of features.json"),
        ({"what": 4}, "nobody knows 'what'"),
    ],
)
def test_notes_that_files_contradict_are_refused(tmp_path, notes, message):
    fill(tmp_path / "a")
    (tmp_path / "a" / "features.json").write_text(json.dumps(notes))
    assert message in problems(lambda: open_features(tmp_path))


def test_categories_that_were_made_differently_are_refused(tmp_path):
    for name in "ab":
        fill(tmp_path / name)
    (tmp_path / "b" / "features.json").write_text('{"aggregated": true}')
    text = problems(lambda: open_features(tmp_path))
    assert text == f"{tmp_path / 'b' / 'features.json'}: aggregated is True, and False in a; score them one by one"
    assert open_features(tmp_path, categories=["b"]).image.aggregated


def test_a_modality_that_is_not_wanted_is_left_out(tmp_path):
    fill(tmp_path, **{"image.0": f(9, 4), "points.0": f(6, 3), "pixels": np.arange(6)})
    assert open_features(tmp_path).modality == "rgb+points"
    (tmp_path / "features.json").write_text('{"modality": "points"}')
    assert open_features(tmp_path).modality == "points"


def test_a_folder_that_is_none_or_empty_is_said(tmp_path):
    assert "is no folder; pass --features=DIR" in problems(lambda: open_features(tmp_path / "x"))
    assert "holds no tokens; expected SAMPLE.safetensors" in problems(lambda: open_features(tmp_path))


def test_a_file_that_changed_since_is_said(tmp_path):
    fill(tmp_path)
    found = open_features(tmp_path)
    fill(tmp_path, ("001",), **{"image.0": f(9, 4), "image.1": f(9, 5, seed=3)})
    text = problems(lambda: list(found.join(dataset("a")).samples("a", size=32)))
    assert text == f"{tmp_path / '001.safetensors'}: has changed since the run began; start it again"


def test_centres_are_brought_to_the_nearest_points(tmp_path):
    """As the scan has them, and a little beside them."""
    samples, pixels = make_samples(3), np.array([100, 500, 1000])
    for sample in samples:
        at = sample.points.reshape(-1, 3)[pixels] + np.float32(1e-3)
        fill(tmp_path, (sample.name,), **{"points.0": f(3, 4), "centers": at})
    for sample in open_features(tmp_path).join(dataset("a", samples=samples)).samples("a", size=32):
        np.testing.assert_array_equal(sample.tokens.pixels, pixels)
        assert sample.tokens.pixels.dtype == np.int32
    flat = [dataclasses.replace(sample, points=None) for sample in samples]
    joined = open_features(tmp_path).join(dataset("a", samples=flat))
    assert all(len(sample.tokens.pixels) == 0 for sample in joined.samples("a", size=32))
