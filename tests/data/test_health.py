"""The health check of a batch: bad ones are named by the sample, ordinary ones are left alone."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from musc_jax.data import FolderLayout, open_dataset, opening
from musc_jax.data.health import examine, few_samples, look_at

SIZE, COUNT, ODD = 128, 12, 5


def part(seed, *, blob=(0.3, 0.35), color=(150, 120, 60)):
    """A part as a camera sees it: a bright shape off the middle, a surface of its own, and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    shape = np.exp(-(((x - blob[0]) / 0.12) ** 2) - ((y - blob[1]) / 0.25) ** 2)
    surface = ndimage.gaussian_filter(rng.normal(0, 1, (SIZE, SIZE)), 3) * 60
    pixels = np.array(color) * (0.4 + shape[..., None]) + surface[..., None] + rng.normal(0, 3, (SIZE, SIZE, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def scan(seed):
    """Heights over every pixel, with bumps in other places for each seed, and the picture that they have."""
    rng = np.random.default_rng(seed)
    bumps = ndimage.gaussian_filter(rng.normal(0, 1, (SIZE, SIZE)), 6)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    steps = 0.02 * (bumps > 0.02) + 0.5
    shade = np.clip(120 + 80 * (bumps > 0.02) + rng.normal(0, 4, (SIZE, SIZE)), 0, 255)
    return np.stack([x, y, steps], -1).astype(np.float32), np.repeat(shade[..., None], 3, -1).astype(np.uint8)


@pytest.fixture(scope="module")
def parts():
    return [part(seed) for seed in range(COUNT)]


@pytest.fixture(scope="module")
def scans():
    return [scan(seed) for seed in range(COUNT)]


def found(pictures, points=None, copies=()):
    """Rules and the indices of the samples that they name."""
    looks = [look_at(image, None if points is None else points[i]) for i, image in enumerate(pictures)]
    return {finding.rule: finding.samples for finding in examine(looks, [str(i) for i in range(len(looks))], copies)}


def changed(pictures, change):
    return [change(image) if i == ODD else image for i, image in enumerate(pictures)]


def jpeg(image, quality):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def brightened(image, gain):
    return np.clip(image * gain, 0, 255).astype(np.uint8)


def test_an_ordinary_batch_has_no_finding(parts, scans):
    assert found(parts) == {}
    points, pictures = zip(*scans, strict=True)
    assert found(pictures, points) == {}
    for count in range(2, COUNT):
        assert found(parts[:count]) == {}


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("exposure", lambda image: brightened(image, 1.6)),
        ("exposure", lambda image: brightened(image, 0.4)),
        ("flat", lambda image: np.full_like(image, 90)),
        ("flat", lambda image: image // 40 + 80),
        ("turned", lambda image: np.rot90(image)),
        ("turned", lambda image: image[::-1, ::-1]),
        ("view", lambda image: part(99, blob=(0.8, 0.8))),
    ],
)
def test_one_odd_picture_is_named(parts, rule, change):
    assert found(changed(parts, change)) == {rule: (str(ODD),)}


def test_it_is_said_how_a_picture_is_turned(parts):
    for turn, text in ((1, "a quarter to the left"), (2, "upside down"), (3, "a quarter to the right")):
        looks = [look_at(image, None) for image in changed(parts, lambda image: np.rot90(image, turn))]  # noqa: B023
        (finding,) = examine(looks, [f"{i}.png" for i in range(COUNT)])
        assert str(finding) == (
            f"1 of 12 pictures is turned {text} against the others: 5.png; turn them back, or score each direction by "
            "itself"
        )


@pytest.mark.parametrize(
    "again",
    [
        lambda image: jpeg(image, 60),
        lambda image: brightened(image, 1.15),
        lambda image: np.asarray(Image.fromarray(image).resize((SIZE // 2, SIZE // 2), Image.Resampling.BOX)),
    ],
)
def test_near_duplicates_are_named_by_both_names(parts, again):
    assert found([*parts, again(parts[ODD])]) == {"duplicates": (str(ODD), str(COUNT))}


def test_a_defect_is_no_near_duplicate(parts):
    """A part and the same with a scratch judge each other, which is what scoring is for."""
    scratched = parts[ODD].copy()
    scratched[60:66, 40:70] = 255 - scratched[60:66, 40:70]
    assert found([*parts, scratched]) == {}


def test_copies_are_not_said_again(parts):
    assert found([*parts, parts[ODD]]) == {"duplicates": (str(ODD), str(COUNT))}
    assert found([*parts, parts[ODD]], copies=[(ODD, COUNT)]) == {}


def test_parts_that_all_look_the_same_are_no_duplicates():
    """On a fixture, under one light: only noise tells them apart, and less of it those that were saved twice."""
    rng = np.random.default_rng(3)
    same = [np.clip(part(0) + rng.normal(0, 12, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8) for _ in range(COUNT)]
    assert found(same) == {}
    assert found([*same, jpeg(same[ODD], 90)]) == {"duplicates": (str(ODD), str(COUNT))}


@pytest.mark.parametrize("count", [3, 6, 12])
def test_two_products_in_a_folder_are_two_kinds(parts, count):
    others = [part(50 + i, color=(30, 90, 200), blob=(0.5, 0.5)) for i in range(count)]
    assert found([*parts, *others])["kinds"] in (
        tuple(str(COUNT + i) for i in range(count)),
        tuple(map(str, range(COUNT))) if count == COUNT else None,
    )
    # They are not said to be odd one by one, too.
    assert found([*parts, *others]).keys() == {"kinds"}


def test_a_scan_of_another_sample(scans):
    points, pictures = map(list, zip(*scans, strict=True))
    swapped = [*points]
    swapped[1], swapped[4] = points[4], points[1]
    assert found(pictures, swapped) == {"pairing": ("1", "4")}
    assert len(found(pictures, [*points[1:], points[0]])["pairing"]) == COUNT


def test_empty_and_sparse_scans(scans):
    points, pictures = map(list, zip(*scans, strict=True))
    points[2], points[3] = points[2].copy(), points[3].copy()
    points[2][2:] = 0
    points[3][SIZE // 3 :] = 0
    looks = [look_at(image, cloud) for image, cloud in zip(pictures, points, strict=True)]
    first, second = examine(looks, [f"{i}.png" for i in range(COUNT)])
    assert (first.samples, second.samples) == (("2.png",), ("3.png",))
    assert "nearly empty" in str(first)
    assert "sparse" in str(second)
    # Without rows and columns the number of points tells.
    lists = [np.ones((30 if i == 7 else 100, 3), np.float32) for i in range(COUNT)]
    assert found([None] * COUNT, lists) == {"sparse": ("7",)}


def test_many_odd_ones_are_one_line(parts):
    flat = [np.full_like(parts[0], 50 + 20 * i) for i in range(8)]
    looks = [look_at(image, None) for image in [*flat, *parts]]
    (finding,) = examine(looks, [f"{i}" for i in range(len(looks))])
    assert str(finding) == (
        "8 of 20 pictures are of one colour, or nearly so, with nothing to be seen: 0, 1, 2, 3, 4 and 3 more; take "
        "them again, or leave them out"
    )
    assert len(finding.samples) == 8


@pytest.mark.parametrize(
    ("count", "interval", "text"),
    [
        (2, 0.3, "nothing"),
        (3, 0.3, "relative"),
        (4, 0.3, "from 8 samples"),
        (7, 0.3, "few"),
        (8, 0.3, None),
        (20, 0.1, "from 21 samples"),
        (4, 1.0, None),
    ],
)
def test_few_samples(count, interval, text):
    found = few_samples(count, interval)
    assert found is None if text is None else text in found


def test_a_folder_is_examined_and_scored_all_the_same(tmp_path, parts, monkeypatch):
    root = tmp_path / "parts"
    root.mkdir()
    for i, image in enumerate(changed(parts, lambda image: brightened(image, 1.6))):
        Image.fromarray(image).save(root / f"{i:02}.png")

    def opened():
        layout = FolderLayout(unlabelled=True)
        return open_dataset("folder", data_dir=root, cache_dir=tmp_path / "c", modality="rgb", folder=layout)

    dataset = opened()
    (finding,) = dataset.health["parts"]
    assert (finding.rule, finding.samples) == ("exposure", ("05",))
    (facts,) = dataset.accounts["parts"].facts["health"]
    assert facts == {"rule": "exposure", "samples": ["05"], "what": finding.what, "advice": finding.advice}
    monkeypatch.setattr(opening, "examine_health", lambda dataset: None)
    assert opened().health == {"parts": ()}
    assert opened().digest("parts") == dataset.digest("parts"), "what is scored does not hang on it"
