"""Masks and points are found by their paths, and never serve two samples."""

from pathlib import Path

import pytest

from musc_jax.data.pairing import Place, core, pair

ROOT = Path("/d")


def places(*names, before=()):
    return [Place.below(ROOT, ROOT / name, before=before) for name in names]


def paired(samples, partners, role="mask"):
    """By sample, the partner's path below the folder; and what was reported."""
    found = pair(places(*samples), places(*partners), role=role, what=role)
    return {samples[i]: str(path.relative_to(ROOT)) for i, path in found.of.items()}, found


@pytest.mark.parametrize(
    ("sample", "partner", "role"),
    [
        ("crack/0.png", "crack/0.png", "mask"),
        ("defects/crack/deep/0.png", "crack/deep/0.png", "mask"),
        ("crack/0.png", "0.png", "mask"),
        ("test/cut/rgb/0.png", "cut/0.png", "mask"),
        ("crack/0.png", "png/0.png", "mask"),
        ("0.jpg", "0_mask.png", "mask"),
        ("0.jpg", "mask_0.png", "mask"),
        ("0.jpg", "0-GT.png", "mask"),
        ("part7.jpg", "part7Mask.png", "mask"),
        ("aRGB.png", "aDepth.png", "points"),
        ("0.jpg", "0.jpg.png", "mask"),
        ("0.jpg", "0_ground_truth.png", "mask"),
        ("0_rgb.png", "0_depth.tiff", "points"),
        ("rgb_0001.png", "depth_0001.npy", "points"),
        ("color0001.png", "depth0001.png", "points"),
        ("IMG_7.JPG", "img_7.png", "mask"),
        ("caf\u00e9.png", "cafe\u0301.png", "mask"),
    ],
)
def test_what_belongs_together(sample, partner, role):
    found, pairs = paired([sample], [partner], role)
    assert found == {sample: partner}
    assert not pairs.faults
    assert not pairs.alone


@pytest.mark.parametrize(
    ("sample", "partner"),
    [("1.png", "2.png"), ("1.png", "11.png"), ("1.png", "1_2.png"), ("mask.png", "0.png"), ("01.png", "1.png")],
)
def test_what_does_not(sample, partner):
    found, pairs = paired([sample], [partner])
    assert not found
    assert [place.path for place in places(partner)] == pairs.alone


def test_folders_decide_before_names():
    samples = ["crack/0.png", "dent/0.png"]
    assert paired(samples, ["crack/0_mask.png", "dent/0.png"])[0] == {
        "crack/0.png": "crack/0_mask.png",
        "dent/0.png": "dent/0.png",
    }
    assert paired(["crack/0.png"], ["0.png", "crack/0_mask.png"])[0] == {"crack/0.png": "crack/0_mask.png"}
    # A mask of crack is never that of dent, also when crack's own sample is not there.
    found, pairs = paired(["crack/1.png", "dent/0.png"], ["crack/0.png"])
    assert not found
    assert len(pairs.alone) == 1


def test_the_better_fit_has_it():
    found, pairs = paired(["crack/0.png", "dent/0.png"], ["crack/0.png"])
    assert found == {"crack/0.png": "crack/0.png"}
    assert not pairs.faults
    assert not pairs.undecided
    assert paired(["0.png", "0_rgb.png"], ["0_mask.png"])[0] == {"0.png": "0_mask.png"}


def test_one_file_for_two_samples_is_refused():
    found, pairs = paired(["good/000.png", "bad/000.png", "bad/001.png"], ["000.tiff", "001.tiff"], "points")
    assert found == {"bad/001.png": "001.tiff"}
    (line,) = pairs.faults
    assert line.startswith("/d/000.tiff: could be the points of /d/good/000.png and of /d/bad/000.png, and is never")
    assert pairs.undecided == {0, 1}


def test_two_files_for_one_sample_are_refused():
    _, pairs = paired(["0.png"], ["0_mask.png", "0_gt.png"])
    (line,) = pairs.faults
    assert line == "/d/0.png: /d/0_mask.png and /d/0_gt.png could both be its mask; keep one of them"
    assert pairs.undecided == {0}
    assert paired(["0.png"], ["0_mask.png", "0.png"])[0] == {"0.png": "0.png"}


def test_words_that_say_what_a_file_is():
    assert [core(stem, "beside") for stem in ("aMask", "a_seg", "length", "a_label")] == ["a", "a", None, "a"]
    assert [core(stem, "beside") for stem in ("1_mask", "depth-1", "mask", "1_defect", "mask1", "1mask")] == [
        "1",
        "1",
        None,
        None,
        "1",
        "1",
    ]
