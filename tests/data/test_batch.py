"""A category as a batch: copies, odd sizes, and what a limit leaves."""

import numpy as np
import pytest
from dataset_trees import picture, save, write_mvtec_ad

from musc_jax.copies import representatives, with_copies
from musc_jax.data import FolderLayout, SampleError, open_dataset
from musc_jax.data.batch_remarks import choose
from musc_jax.data.dataset import Candidate
from musc_jax.execution.scoring import PatchScores
from musc_jax.pipeline import Results

LABELLED = FolderLayout(normal_dir=("good",), abnormal_dir=("bad",))


def load(root, modality="rgb", *, name="folder", folder=None, **options):
    return open_dataset(
        name, data_dir=root, cache_dir=root.parent / "cache", modality=modality, folder=folder, **options
    )


@pytest.fixture
def root(tmp_path):
    """Five good samples and a bad one."""
    root = tmp_path / "parts"
    for i in range(5):
        save(root / "good" / f"{i}.png", picture(i))
    save(root / "bad" / "0.png", picture(10))
    return root


# ---- Copies


def test_copies_are_named(root):
    assert load(root, folder=LABELLED).copies("parts") == ()
    plain = load(root, folder=LABELLED).digest("parts")
    save(root / "bad" / "1.bmp", picture(10))
    save(root / "bad" / "2.png", picture(10), compress_level=0)
    save(root / "good" / "9.png", picture(1))
    dataset = load(root, folder=LABELLED)
    names = dataset.names("parts")
    groups = [[names[i] for i in group] for group in dataset.copies("parts")]
    assert groups == [["good_1", "good_9"], ["bad_0", "bad_1", "bad_2"]]
    assert dataset.accounts["parts"].facts["duplicates"] == groups
    assert dataset.warnings == [
        "parts: 3 samples are copies of others: good_1 = good_9; bad_0 = bad_1 = bad_2; they count as one and never "
        "score each other (--copies=each changes that)"
    ]
    each = load(root, folder=LABELLED, copies="each")
    assert each.copies("parts") == dataset.copies("parts")
    assert not each.copies_count_once
    assert "lower each other's scores" in each.warnings[0]
    assert len({plain, dataset.digest("parts"), each.digest("parts")}) == 3
    with pytest.raises(ValueError, match="copies must be one of once, each, received 'twice'"):
        load(root, folder=LABELLED, copies="twice")


def test_a_copy_under_another_label_is_said(root):
    save(root / "bad" / "1.png", picture(2))
    (line,) = load(root, folder=LABELLED).warnings
    assert line.endswith("; 1 of these groups are called both good and defective: good_2 = bad_1")


def test_grey_and_colours_that_show_the_same_are_copies(root):
    grey = picture(3, (20, 20))
    save(root / "good" / "grey.png", grey)
    save(root / "good" / "colours.png", np.repeat(grey[..., None], 3, axis=-1))
    save(root / "good" / "other.png", np.repeat(grey[..., None], 3, axis=-1)[::-1])
    dataset = load(root / "good")
    assert [[dataset.names("good")[i] for i in group] for group in dataset.copies("good")] == [["colours", "grey"]]


@pytest.mark.parametrize("modality", ["rgb", "points", "rgb+points"])
def test_a_copy_is_one_in_all_that_is_scored(root, modality):
    for i in range(5):
        points = np.random.default_rng(max(i, 1)).random((40, 40, 3)).astype(np.float32) + 1
        np.save(root / "good" / f"{i}.npy", points)
    save(root / "good" / "4.png", picture(3))
    # Points of 0 and 1 are the same, pictures of 3 and 4.
    dataset = load(root / "good", modality)
    assert dataset.copies("good") == {"rgb": ((3, 4),), "points": ((0, 1),), "rgb+points": ()}[modality]
    np.save(root / "good" / "4.npy", np.load(root / "good" / "3.npy"))
    assert load(root / "good", "rgb+points").copies("good") == ((3, 4),)


def test_published_datasets_are_only_warned_of(tmp_path):
    write_mvtec_ad(tmp_path / "mvtec", categories=("bottle",))
    for i in range(2):
        save(tmp_path / "mvtec" / "bottle" / "test" / "contamination" / f"{i:03d}.png", picture(100 + i))
    dataset = load(tmp_path / "mvtec", name="mvtec_ad")
    assert not dataset.copies_count_once
    (line,) = dataset.warnings
    assert line.startswith("bottle: 2 samples are copies of others: broken_large_000 = contamination_000; ")
    assert line.endswith("; they score each other as any others do, and lower each other's scores")


def results(names):
    count = len(names)
    samples = [named(name) for name in names]
    scores = np.arange(count, dtype=np.float32)
    maps = np.zeros((count, 2, 2), np.float32) + scores[:, None, None]
    return Results(samples, scores, scores + 10, maps, PatchScores(maps.reshape(count, 4), None))


class named:
    def __init__(self, name):
        self.name = name


def test_copies_get_the_outcome_of_the_one_that_was_scored():
    names, groups = list("abcdefg"), ((1, 3, 6), (2, 4))
    kept = representatives(groups, len(names))
    assert kept.tolist() == [0, 1, 2, 5]
    whole = with_copies(results([names[i] for i in kept]), groups, names, lambda i: named(names[i]))
    assert [sample.name for sample in whole.samples] == names
    assert whole.pred_scores.tolist() == [0, 1, 2, 1, 2, 3, 1]
    assert whole.max_scores.tolist() == [10, 11, 12, 11, 12, 13, 11]
    assert whole.anomaly_maps[:, 0, 0].tolist() == whole.pred_scores.tolist()
    assert whole.patch_scores.image[:, 0].tolist() == whole.pred_scores.tolist()
    # Those of a part only; and one that could not be scored takes its copies along.
    part = results(["c", "f"])._replace(skipped=(SampleError("b", "why"),))
    some = with_copies(part, groups, names, lambda i: named(names[i]))
    assert [sample.name for sample in some.samples] == ["c", "e", "f"]
    assert [(error.name, error.problem) for error in some.skipped] == [("b", "why"), ("d", "why"), ("g", "why")]


# ---- Limits


def candidates(labels):
    return [Candidate(str(i), lambda: None, label=label) for i, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("labels", "limit", "taken"),
    [
        ([0] * 8 + [1] * 4, 6, [0, 2, 4, 6, 8, 10]),
        ([0] * 100 + [1] * 2, 10, [0, 11, 22, 33, 44, 55, 66, 77, 88, 100]),
        ([0] * 2 + [1] * 100, 10, [0, 2, 13, 24, 35, 46, 57, 68, 79, 90]),
        ([0] * 5 + [1] * 5, 2, [0, 5]),
        ([0] * 5 + [1] * 5, 3, [0, 5, 7]),
        ([0, 1, 1], 2, [0, 1]),
        ([0] * 5 + [1] * 5, 1, [0]),
        ([0] * 5 + [1] * 5, 20, list(range(10))),
        ([0] * 5, 2, [0, 1]),
        ([None] * 5, 3, [0, 1, 2]),
    ],
)
def test_a_limit_takes_of_each_label(labels, limit, taken):
    found = candidates(labels)
    assert [int(one.name) for one in choose(found, limit, spread=True)] == taken
    assert [int(one.name) for one in choose(found, limit, spread=False)] == list(range(len(labels)))[:limit]


def test_limits_of_a_folder_and_of_a_published_dataset(root, tmp_path):
    dataset = load(root, folder=LABELLED, limit=3)
    assert dataset.names("parts") == ("good_0", "good_2", "bad_0")
    assert not dataset.warnings
    (root / "bad" / "0.png").unlink()
    (root / "bad").rmdir()
    only_good = FolderLayout(normal_dir=("good",))
    assert not load(root, folder=only_good, limit=2).warnings  # no limit could leave others
    write_mvtec_ad(tmp_path / "mvtec", categories=("bottle",))
    dataset = load(tmp_path / "mvtec", name="mvtec_ad", limit=2)
    assert dataset.names("bottle") == ("broken_large_000", "broken_large_001")
    assert dataset.warnings == [
        "bottle: the limit leaves 2 of 7 samples, all of them defective: no metric is defined then; raise it (--limit)"
    ]


# ---- Sizes


def test_the_odd_one_is_named(root):
    assert "sizes" not in load(root, folder=LABELLED).accounts["parts"].facts
    save(root / "bad" / "7.png", picture(7, (60, 60, 3)))
    account = load(root, folder=LABELLED).accounts["parts"]
    assert account.facts["sizes"] == {"40 x 40": 6, "60 x 60": 1}
    assert "sizes: 1 of 7 pictures are not 40 x 40 as the others: bad_7 is 60 x 60" in account.lines
    # Other proportions are named as such, once.
    save(root / "bad" / "7.png", picture(7, (30, 40, 3)))
    lines = load(root, folder=LABELLED).accounts["parts"].lines
    assert len([line for line in lines if "bad_7" in line or "7.png" in line]) == 1


def test_many_sizes_are_no_oddity(root):
    for i in range(4):
        save(root / "good" / f"1{i}.png", picture(i, (50 + i, 50 + i, 3)))
    account = load(root, folder=LABELLED).accounts["parts"]
    assert len(account.facts["sizes"]) == 5
    assert not [line for line in account.lines if line.startswith("sizes")]
