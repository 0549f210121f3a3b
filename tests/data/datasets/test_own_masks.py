"""What masks of a plain folder mean, decided over all of them; `docs/inputs.md` has the rules."""

import io
import re

import numpy as np
import pytest
from dataset_trees import SIDE as TREE_SIDE
from dataset_trees import blob, picture, save, write_mvtec_ad
from PIL import Image

from musc_jax.data import DataError, FolderLayout, open_dataset

SIDE = 40
SHAPE = (SIDE, SIDE)
LAYOUT = {"normal_dir": ("good",), "abnormal_dir": ("bad",), "mask_dir": ("masks",)}
# Where each mask has its defects; small ones, apart from the border.
PLACES = [(slice(10, 20), slice(12, 22)), (slice(4, 9), slice(20, 31)), (slice(25, 33), slice(5, 9))]


def truth(number):
    mask = np.zeros(SHAPE, bool)
    mask[PLACES[number]] = True
    return mask


def png(image, **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, "PNG", **options)
    return buffer.getvalue()


def jpeg(pixels, quality=60):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def opened(root, files, /, *, suffix="png", shape=SHAPE, working=None, modality="rgb", limit=None, **layout):
    """Two good samples, and a defective one for each mask, all in a folder."""
    for i in range(2):
        save(root / "good" / f"{i}.png", picture(i, (*shape, 3)))
    (root / "masks").mkdir(parents=True, exist_ok=True)
    for i, data in enumerate(files):
        save(root / "bad" / f"{i}.png", picture(10 + i, (*shape, 3)))
        (root / "masks" / f"{i}.{suffix}").write_bytes(data)
    return open_dataset(
        "folder",
        data_dir=root,
        cache_dir=root.parent / "cache",
        modality=modality,
        folder=FolderLayout(**(LAYOUT | layout)),
        working=working,
        limit=limit,
    )


def read(dataset, count=3, size=SIDE):
    name = dataset.categories[0]
    return [dataset.load(name, 2 + i, size=size).gt_mask for i in range(count)]


def said(dataset, topic="masks"):
    return [line for line in dataset.accounts[dataset.categories[0]].lines if line.startswith(f"{topic}:")]


def painted(number, background, defect):
    """Background and defect as colours of any number of channels."""
    return np.where(truth(number)[..., None], np.uint8(defect), np.uint8(background)).squeeze()


def palette(number, colors, swapped=False):
    """A palette picture; `swapped`: index 1 is the background."""
    image = Image.fromarray((truth(number) ^ swapped).astype(np.uint8), "P")
    image.putpalette([value for color in colors for value in color])
    return image


BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (255, 0, 0)

FORMS = {
    "white on black": (lambda i: png(painted(i, [0], [255])), ""),
    "numbers of one class": (lambda i: png(painted(i, [0], [1])), ""),
    "one dim value": (lambda i: png(painted(i, [0], [100])), ""),
    "1 bit": (lambda i: png(Image.fromarray(truth(i))), ""),
    "16 bits": (lambda i: png((truth(i) * 65535).astype(np.uint16)), ""),
    "16 bits, a low value": (lambda i: png((truth(i) * 300).astype(np.uint16)), ""),
    "palette, black first": (lambda i: png(palette(i, [BLACK, WHITE])), ""),
    "palette, white first": (lambda i: png(palette(i, [WHITE, BLACK], swapped=True)), ""),
    "palette, one colour for all numbers": (lambda i: png(palette(i, [BLACK, BLACK])), ""),
    "palette, colours of VOC": (lambda i: png(palette(i, [BLACK, (128, 0, 0)])), "#800000 is a defect"),
    "palette, another background": (lambda i: png(palette(i, [(30, 120, 180), (250, 9, 9)])), "#1e78b4 is the backgr"),
    "black on white": (lambda i: png(painted(i, [255], [0])), "white is the background, everything else a defect"),
    "black on white, 1 bit": (lambda i: png(Image.fromarray(~truth(i))), "white is the background"),
    "red": (lambda i: png(painted(i, BLACK, RED)), "#ff0000 is a defect"),
    "dim red": (lambda i: png(painted(i, BLACK, (100, 0, 0))), "#640000 is a defect"),
    "nearly black blue": (lambda i: png(painted(i, BLACK, (0, 0, 1))), "#000001 is a defect"),
    "red on white": (lambda i: png(painted(i, WHITE, RED)), "white is the background"),
    "alpha, black": (lambda i: png(painted(i, (0, 0, 0, 0), (0, 0, 0, 255))), "what is transparent is no defect"),
    "alpha, white": (lambda i: png(painted(i, (255, 255, 255, 0), (255, 255, 255, 255))), "transparent is no defect"),
    "alpha, grey": (lambda i: png(painted(i, (0, 0), (0, 255))), "what is transparent is no defect"),
    "alpha, red on transparent white": (lambda i: png(painted(i, (255, 255, 255, 0), (255, 0, 0, 255))), "no defect"),
    "alpha, half opaque": (lambda i: png(painted(i, (9, 9, 9, 0), (9, 9, 9, 100))), "transparent is no defect"),
    "half opaque red": (lambda i: png(painted(i, (0, 0, 0, 0), (255, 0, 0, 127))), "transparent is no defect"),
    "holes": (lambda i: png(painted(i, (0, 0, 0, 255), (0, 0, 0, 0))), "what is transparent is a defect"),
    "opaque everywhere": (lambda i: png(painted(i, (0, 0, 0, 255), (255, 255, 255, 255))), ""),
    "transparent everywhere": (lambda i: png(painted(i, (0, 0, 0, 0), (255, 255, 255, 0))), ""),
    "transparent palette": (lambda i: png(palette(i, [BLACK, RED]), transparency=0), "transparent is no defect"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_mask_is_understood_whatever_its_form(tmp_path, form):
    write, words = FORMS[form]
    dataset = opened(tmp_path / "parts", [write(i) for i in range(3)])
    for i, mask in enumerate(read(dataset)):
        np.testing.assert_array_equal(mask, truth(i), form)
    assert words in " ".join(said(dataset))
    assert bool(said(dataset)) == bool(words)
    assert not dataset.warnings
    assert dataset.accounts["parts"].facts["masks"]["files"] == 3


@pytest.mark.parametrize("colors", [(RED, WHITE), ((255, 0, 0), (0, 0, 255)), ((90, 0, 0), (255, 255, 255))])
def test_several_colours_in_one_mask_are_all_defects(tmp_path, colors):
    """Red counted 76 of 255 in grey, and was lost beside white."""
    masks = []
    for i in range(3):
        mask = painted(i, BLACK, colors[0])
        mask[PLACES[(i + 1) % 3]] = colors[1]
        masks.append(png(mask))
    dataset = opened(tmp_path / "parts", masks)
    for i, mask in enumerate(read(dataset)):
        np.testing.assert_array_equal(mask, truth(i) | truth((i + 1) % 3))
    (line,) = said(dataset)
    assert "each of" in line


@pytest.mark.parametrize("values", [(1, 2, 3), (1, 2, 255), (50, 100, 150), (64, 128, 255), (5, 20, 15)])
def test_values_of_classes_are_all_defects(tmp_path, values):
    """Also one that is all around another one; of small numbers even if it is so thin that it could be an edge."""
    masks = []
    for _ in range(3):
        mask = np.zeros(SHAPE, np.uint8)
        for value, place in zip(values, PLACES, strict=True):
            mask[place] = value
        mask[26:29, 6:8] = values[0]
        if values[1] <= 20:
            mask[PLACES[0]] = values[1]
            mask[11:19, 13:21] = values[2]
            mask[26:29, 6:8] = values[2]
            mask[PLACES[1]] = values[0]
        masks.append(png(mask))
    dataset = opened(tmp_path / "parts", masks)
    for mask in read(dataset):
        np.testing.assert_array_equal(mask, truth(0) | truth(1) | truth(2))
    (line,) = said(dataset)
    assert ("sometimes meant to be ignored" in line) == (values == (1, 2, 255))


def soft(number, scale=255):
    """A defect with an edge that fades over some pixels."""
    blurred = Image.fromarray((truth(number) * 255).astype(np.uint8)).resize((10, 10), Image.Resampling.BILINEAR)
    return (np.asarray(blurred.resize(SHAPE[::-1], Image.Resampling.BICUBIC), np.float64) * scale / 255).astype(
        np.uint8
    )


def test_soft_edges_are_cut_at_one_half_after_resizing(tmp_path):
    dataset = opened(tmp_path / "parts", [png(soft(i)) for i in range(3)])
    for i, mask in enumerate(read(dataset, size=16)):
        wanted = np.array(Image.fromarray(soft(i)).resize((16, 16), Image.Resampling.BILINEAR)) > 127
        np.testing.assert_array_equal(mask, wanted)
        assert wanted.any()
    assert not said(dataset)


def test_edges_of_few_values_are_edges_not_classes(tmp_path):
    """A mask made half as large has 64, 128 and 191 at its edges."""
    masks = []
    for i in range(3):
        large = np.zeros((2 * SIDE, 2 * SIDE), np.uint8)
        large[21 + i : 42 + i, 25:44] = 255
        masks.append(np.array(Image.fromarray(large).reduce(2)))
    assert len(np.unique(masks)) <= 5
    dataset = opened(tmp_path / "parts", [png(mask) for mask in masks])
    for found, mask in zip(read(dataset), masks, strict=True):
        np.testing.assert_array_equal(found, mask > 127)


@pytest.mark.parametrize(("background", "defect"), [([0], [255]), (BLACK, RED), ([255], [0]), ([0], [100])])
def test_noise_of_jpeg_is_no_defect(tmp_path, background, defect):
    """White, red, inverted, and so dim that half of the most decides."""
    masks = [jpeg(painted(i, background, defect)) for i in range(3)]
    dataset = opened(tmp_path / "parts", masks, suffix="jpg")
    for i, mask in enumerate(read(dataset)):
        assert (mask != truth(i)).mean() < 0.02
        assert not mask[~_grown(truth(i))].any()


def _grown(mask):
    padded = np.pad(mask, 2)
    return np.any([padded[y : y + SIDE, x : x + SIDE] for y in range(5) for x in range(5)], axis=0)


def test_noise_of_jpeg_in_another_file_is_no_class(tmp_path):
    """Few values, some just off black and some just off white."""
    rng, masks = np.random.default_rng(0), []
    for i in range(3):
        noise = rng.integers(0, 4, SHAPE).astype(np.uint8)
        masks.append(png(np.where(truth(i), 255 - noise, noise)))
    dataset = opened(tmp_path / "parts", masks)
    for i, mask in enumerate(read(dataset)):
        np.testing.assert_array_equal(mask, truth(i))


def flat(root, masks, **layout):
    """Without labels: masks decide them."""
    for i, data in enumerate(masks):
        save(root / f"{i}.png", picture(i))
        (root / "masks").mkdir(exist_ok=True)
        (root / "masks" / f"{i}.png").write_bytes(data)
    folder = FolderLayout(mask_dir=("masks",), **layout)
    return open_dataset("folder", data_dir=root, cache_dir=root.parent / "cache", modality="rgb", folder=folder)


@pytest.mark.parametrize(
    ("background", "defect"), [([0], [255]), ([0], [3]), ([255], [0]), (BLACK, RED), ((0, 0, 0, 0), (0, 0, 0, 255))]
)
def test_labels_come_from_what_masks_mean(tmp_path, background, defect):
    """A white mask in a folder of black on white is that of a good sample."""
    clean = np.broadcast_to(np.uint8(background), (*SHAPE, len(background))).squeeze()
    dataset = flat(tmp_path / "parts", [png(clean), png(painted(0, background, defect)), png(clean)])
    assert [sample.gt_label for sample in dataset.samples("parts", size=16)] == [0, 1, 0]


def test_noise_alone_makes_no_sample_defective(tmp_path):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 30, SHAPE).astype(np.uint8) // 10 for _ in range(3)]
    masks = [png(np.where(truth(0), soft(0), noise[0])), png(noise[1]), png(np.maximum(soft(2), noise[2]))]
    dataset = flat(tmp_path / "parts", masks)
    assert [sample.gt_label for sample in dataset.samples("parts", size=16)] == [1, 0, 1]


def test_soft_masks_that_are_dim_as_a_whole_are_cut_at_half_of_what_they_reach(tmp_path):
    dataset = opened(tmp_path / "parts", [png(soft(i, scale=100)) for i in range(3)])
    for i, mask in enumerate(read(dataset)):
        np.testing.assert_array_equal(
            mask, soft(i, scale=100) > int(max(soft(k, scale=100).max() for k in range(3))) // 2
        )
        assert mask.any()


def test_masks_without_any_defect_are_said_to_be_so(tmp_path):
    dataset = flat(tmp_path / "parts", [png(np.zeros(SHAPE, np.uint8)) for _ in range(3)])
    assert said(dataset) == ["masks: none of 3 shows a defect (--masks says otherwise)"]
    noise = [jpeg(painted(i, [0], [2])) for i in range(3)]
    assert "none of 3 shows a defect" in said(opened(tmp_path / "lossy", noise, suffix="jpg"))[0]


# What is odd


def test_a_defect_on_most_of_a_picture_or_of_its_border_is_named(tmp_path):
    large, frame = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    large[2:-2, 2:-2] = 255
    frame[:3], frame[-3:], frame[:, :3], frame[:, -3:] = 255, 255, 255, 255
    dataset = opened(tmp_path / "parts", [png(painted(0, [0], [255])), png(large), png(frame)])
    (line,) = dataset.warnings
    assert line.startswith(f"{tmp_path / 'parts' / 'masks' / '1.png'}: shows a defect on more than half of its picture")
    assert line.endswith("the same of masks/2.png")


def test_one_inverted_mask_among_others_is_named_and_they_are_understood(tmp_path):
    masks = [png(painted(i, [0], [255])) for i in range(2)] + [png(painted(2, [255], [0]))]
    dataset = opened(tmp_path / "parts", masks)
    np.testing.assert_array_equal(read(dataset)[1], truth(1))
    assert "2.png: shows a defect on more than half" in dataset.warnings[0]


def test_large_defects_do_not_speak_against_a_background(tmp_path):
    """Two of five inverted masks are black in more than half of their area."""
    large = np.full(SHAPE, 255, np.uint8)
    large[2:-2, 3:-3] = 0
    masks = [png(painted(i, [255], [0])) for i in range(3)] + [png(large)] * 2
    dataset = opened(tmp_path / "parts", masks)
    np.testing.assert_array_equal(read(dataset)[0], truth(0))
    np.testing.assert_array_equal(read(dataset, 5)[4], large == 0)


def test_masks_that_are_all_defect_are_taken_as_such_and_named(tmp_path):
    dataset = opened(tmp_path / "parts", [png(np.full(SHAPE, 255, np.uint8)) for _ in range(3)])
    assert all(mask.all() for mask in read(dataset))
    assert "shows a defect on more than half" in dataset.warnings[0]


def test_a_mask_without_a_defect_of_a_defective_sample_is_named(tmp_path):
    dim = (soft(1).astype(int) * 100 // 255).astype(np.uint8)
    dataset = opened(tmp_path / "parts", [png(soft(0)), png(dim), png(np.zeros(SHAPE, np.uint8))])
    assert f"{tmp_path / 'parts' / 'masks' / '1.png'}: its largest value is {dim.max()} of 255" in dataset.warnings[0]
    assert "2.png: has no defect, though its sample is defective" in dataset.warnings[1]


def test_a_picture_is_no_mask(tmp_path):
    masks = [png(picture(i)) for i in range(3)]
    with pytest.raises(DataError) as error:
        opened(tmp_path / "parts", masks)
    lines = str(error.value).splitlines()[1:]
    assert [line.partition(":")[0].strip() for line in lines] == [
        str(tmp_path / "parts" / "masks" / f"{i}.png") for i in range(3)
    ]
    assert (
        "looks like a picture, not like a mask: it has no background of one colour; draw defects in white" in lines[0]
    )


def test_a_picture_on_black_is_no_mask_either(tmp_path):
    """Most of its area is black, as that of a mask."""
    masks = []
    for i in range(3):
        shown = np.zeros((*SHAPE, 3), np.uint8)
        shown[8:32, 8:32] = picture(i)[8:32, 8:32]
        masks.append(png(shown))
    with pytest.raises(DataError, match="looks like a picture, not like a mask"):
        opened(tmp_path / "parts", masks)


def cut_out(number, background):
    """A piece of a picture, some of it brighter than one half and some not."""
    shown = picture(number, (*SHAPE, 3)) // 2 + 60
    return np.where(truth(number)[..., None], shown, np.uint8(background))


@pytest.mark.parametrize("background", [0, 255])
@pytest.mark.parametrize("grey", [False, True])
def test_defects_cut_out_of_their_pictures_are_no_masks(tmp_path, background, grey):
    """Only what is brighter than one half would count, a tenth of some defects."""
    masks = [cut_out(i, background) for i in range(3)]
    masks = [png(mask[..., 0] if grey else mask) for mask in masks]
    with pytest.raises(DataError, match=r"shows pieces of a picture on its background, not a mask; .* by --masks"):
        opened(tmp_path / "parts", masks)
    if background == 0:
        dataset = opened(tmp_path / "parts", masks, masks="nonzero")
        for i, mask in enumerate(read(dataset)):
            np.testing.assert_array_equal(mask, truth(i))


@pytest.mark.parametrize("colored", [False, True])
def test_any_number_of_instances_are_defects(tmp_path, colored):
    """Numbers of defects up to 31, or a colour for each; those that touch another do, too."""
    count = 36 if colored else 16
    masks = []
    for i in range(count):
        first, second = ((7 * i % 120, 3, 1 + i), (2 * i % 100, 90, i)) if colored else ([i + 1], [2 * i + 1])
        mask = painted(i % 3, (0, 0, 0) if colored else [0], first)
        mask[truth(i % 3) & (np.arange(SIDE) % 8 < 4)] = second
        masks.append(png(mask))
    dataset = opened(tmp_path / "parts", masks)
    for i, mask in enumerate(read(dataset, count)):
        np.testing.assert_array_equal(mask, truth(i % 3))
    (line,) = said(dataset)
    assert re.search(r"masks: each of .* and \d+ others is a defect", line)


def test_masks_in_which_no_colour_is_the_background_are_refused(tmp_path):
    halves = np.zeros((*SHAPE, 3), np.uint8)
    halves[:20], halves[20:] = (200, 10, 10), (10, 200, 10)
    with pytest.raises(DataError, match="is a mask without black, and no other colour is most of its border"):
        opened(tmp_path / "parts", [png(halves) for _ in range(3)])
    dataset = opened(tmp_path / "parts", [png(halves) for _ in range(3)], masks="nonzero")
    assert read(dataset)[0].all()


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("white", np.array([False, False, True, True])),
        ("black", np.array([True, True, False, False])),
        ("nonzero", np.array([False, True, True, True])),
        ("alpha", np.array([True, True, True, False])),
    ],
)
def test_a_rule_that_is_asked_for_is_followed(tmp_path, asked, wanted):
    mask = np.zeros((*SHAPE, 4), np.uint8)
    for i, (value, opaque) in enumerate(((0, 255), (100, 255), (200, 255), (255, 0))):
        mask[:, 10 * i : 10 * i + 10] = (value, value, value, opaque)
    if asked != "alpha":
        mask[..., 3] = 255
    dataset = opened(tmp_path / "parts", [png(mask) for _ in range(3)], masks=asked)
    np.testing.assert_array_equal(read(dataset)[0][5, ::10], wanted)
    assert dataset.accounts["parts"].facts["masks"]["rule"] == asked


def test_rules_are_decided_over_all_masks_whatever_is_scored(tmp_path):
    """Two of three masks are left out by the limit; alone, the first would be a large defect."""
    masks = [png(painted(i, [255], [0])) for i in range(3)]
    dataset = opened(tmp_path / "parts", masks, limit=2)
    (bad,) = [sample for sample in dataset.samples("parts", size=SIDE) if sample.gt_label]
    np.testing.assert_array_equal(bad.gt_mask, truth(0))
    assert dataset.accounts["parts"].facts["masks"]["files"] == 3
    assert opened(tmp_path / "parts", masks, masks="white").digest("parts") != opened(tmp_path / "parts", masks).digest(
        "parts"
    )


# Defects that vanish


def spot(row, column, side=1, shape=(512, 512)):
    mask = np.zeros(shape, np.uint8)
    mask[row : row + side, column : column + side] = 255
    return mask


@pytest.mark.parametrize("side", [1, 3, 8])
@pytest.mark.parametrize("shape", [(512, 512), (300, 512)])
def test_a_defect_keeps_at_least_its_strongest_pixel(tmp_path, side, shape):
    """8 to 10 pixels in 1024 at 64: three masks of four were empty."""
    places = [(17, 101), (250, 400), (0, 0), (shape[0] - side, shape[1] - side)]
    masks = [png(spot(row, column, side, shape)) for row, column in places]
    dataset = opened(tmp_path / "parts", masks, shape=shape, working=(32, 8))
    for (row, column), mask in zip(places, read(dataset, 4, size=32), strict=True):
        rows, columns = np.nonzero(mask)
        assert len(rows) >= 1
        assert abs(rows.mean() - (row + side / 2) / shape[0] * 32 + 0.5) <= 1
        assert abs(columns.mean() - (column + side / 2) / shape[1] * 32 + 0.5) <= 1
    facts = dataset.accounts["parts"].facts
    lost = facts["lost_masks"]["its defect vanishes at 32 x 32 pixels; its strongest pixel is kept"]
    assert len(lost) == 4
    assert any("its defect vanishes at 32 x 32 pixels" in line and "0.png" in line for line in dataset.warnings)


def test_a_defect_smaller_than_a_token_is_said(tmp_path):
    masks = [png(spot(100, 100, side)) for side in (60, 160, 200)]
    dataset = opened(tmp_path / "parts", masks, shape=(512, 512), working=(32, 8))
    (line,) = dataset.warnings
    assert line.endswith("masks/0.png: its defect is smaller than a token (8 x 8 of 32 x 32 pixels)")
    assert "lost_masks" not in dataset.accounts["parts"].facts


def test_published_masks_lose_what_they_always_lost(tmp_path):
    """Numbers stay comparable there; the run warns."""
    write_mvtec_ad(tmp_path / "mvtec", categories=("bottle",))
    folder = tmp_path / "mvtec" / "bottle"
    small = blob(value=0)
    small[7, 9] = 255
    save(folder / "ground_truth" / "broken_large" / "000_mask.png", small)
    dataset = open_dataset("mvtec_ad", data_dir=tmp_path / "mvtec", cache_dir=tmp_path / "cache", modality="rgb")
    at = dataset.names("bottle").index("broken_large_000")
    sample = dataset.load("bottle", at, size=8)
    assert sample.gt_label == 1
    assert not sample.gt_mask.any()


# Proportions


def half_and_half(shape):
    """A picture whose middle square is one colour and the rest another."""
    height, width = shape
    side, pixels = min(shape), np.full((*shape, 3), 30, np.uint8)
    top, left = (height - side) // 2, (width - side) // 2
    pixels[top : top + side, left : left + side] = 200
    return pixels


@pytest.mark.parametrize("shape", [(40, 80), (90, 60)])
@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_picture_mask_and_points_are_fitted_alike(tmp_path, shape, fit):
    root, pixels = tmp_path / "parts", half_and_half(shape)
    mask = (pixels[..., 0] == 200).astype(np.uint8) * 255
    y, x = np.mgrid[: shape[0], : shape[1]] / 1000.0 + 0.01
    points = np.stack([x, y, np.where(mask > 0, 0.5, 1.0)], -1).astype(np.float32)
    for i in range(3):
        save(root / f"{i}.png", pixels)
        save(root / "masks" / f"{i}.png", mask)
        np.save(root / f"{i}.npy", points)
    folder = FolderLayout(mask_dir=("masks",), fit=fit, masks="white")
    dataset = open_dataset("folder", data_dir=root, cache_dir=tmp_path / "c", modality="rgb+points", folder=folder)
    sample = dataset.load("parts", 0, size=60)
    inside = np.abs(sample.image.astype(int) - 200).max(-1) <= 2
    assert (sample.gt_mask != inside).mean() < 0.05
    assert ((sample.points[..., 2] == np.float32(0.5)) != inside).mean() < 0.05
    share = min(shape) / max(shape)
    assert inside.mean() == pytest.approx({"squash": share, "pad": share**2, "crop": 1}[fit], abs=0.05)
    outside = np.abs(sample.image.astype(int) - (124, 116, 104)).max(-1) <= 2
    assert outside.mean() == pytest.approx(1 - share if fit == "pad" else 0, abs=0.06)
    assert not sample.points[outside].any()
    assert not sample.gt_mask[outside].any()
    (line,) = said(dataset, "fit")
    assert f"sides up to {1 / share:.2f} : 1" in line
    assert dataset.accounts["parts"].facts["fit"]["fit"] == fit


def test_nearly_square_pictures_are_not_worth_a_word(tmp_path):
    dataset = opened(tmp_path / "parts", [png(np.zeros((40, 44), np.uint8))] * 3, shape=(40, 44))
    assert "fit" not in dataset.accounts["parts"].facts


def test_a_defect_that_is_cropped_away_is_named(tmp_path):
    mask = np.zeros((40, 80), np.uint8)
    mask[10:20, 2:8] = 255
    dataset = opened(tmp_path / "parts", [png(mask)] * 3, shape=(40, 80), fit="crop", working=(16, 4))
    assert "0.png: its defect is outside of what --fit=crop leaves" in dataset.warnings[0]
    sample = dataset.load("parts", 2, size=16)
    assert sample.gt_label == 1
    assert not sample.gt_mask.any()


# Large pictures


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_a_large_picture_is_read_at_reduced_size_and_its_mask_still_fits(tmp_path, form):
    root, shape = tmp_path / "parts", (64, 96)
    ramp = np.linspace(0, 255, 64 * 96).reshape(shape).astype(np.uint8)
    for i in range(3):
        for folder, pixels in (("", np.repeat(ramp[..., None], 3, -1)), ("masks", spot(40, 60, 2, shape))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            kind = form if not folder else "PNG"
            Image.fromarray(pixels).save(root / folder / f"{i}.{kind.lower()}", kind)
    small, whole = (
        open_dataset(
            "folder",
            data_dir=root,
            cache_dir=tmp_path / "c",
            modality="rgb",
            folder=FolderLayout(mask_dir=("masks",), max_pixels=pixels, extensions=(form,)),
        )
        for pixels in (1600, 10_000)
    )
    (line,) = said(small, "large")
    assert line == "large: 3 of 3 pictures have over 1600 pixels (--max_pixels) and are read at reduced size"
    assert not said(whole, "large")
    a, b = small.load("parts", 0, size=16), whole.load("parts", 0, size=16)
    assert np.abs(a.image.astype(int) - b.image).max() <= 6
    assert (a.image != b.image).any()
    np.testing.assert_array_equal(a.gt_mask, b.gt_mask)
    assert a.gt_label == 1


def test_a_jpeg_is_made_smaller_by_its_decoder(tmp_path):
    """Of as many pixels another file is refused: it would be decoded whole."""
    root = tmp_path / "parts"
    for i in range(2):
        save(root / f"{i}.jpg", half_and_half((64, 96)))
    dataset = open_dataset(
        "folder", data_dir=root, cache_dir=tmp_path / "c", modality="rgb", folder=FolderLayout(max_pixels=500)
    )
    image = dataset.load("parts", 0, size=8).image
    assert image.mean() == pytest.approx(half_and_half((64, 96)).mean(), abs=3)


def test_far_too_large_pictures_are_refused_with_the_flag(tmp_path):
    root = tmp_path / "parts"
    for i in range(2):
        save(root / f"{i}.png", picture(i, (64, 96, 3)))
    with pytest.raises(DataError, match=r"is 96 x 64 pixels large, over 8 times the 500 .*raise --max_pixels"):
        open_dataset(
            "folder", data_dir=root, cache_dir=tmp_path / "c", modality="rgb", folder=FolderLayout(max_pixels=500)
        )


@pytest.mark.parametrize("form", ["BMP", "PPM"])
def test_a_damaged_size_is_no_large_picture(tmp_path, form):
    """No flag helps there."""
    root = tmp_path / "parts"
    for i in range(2):
        save(root / f"{i}.{form.lower()}", picture(i))
    path = root / f"1.{form.lower()}"
    data = path.read_bytes()
    wide = (2_000_000).to_bytes(4, "little")
    path.write_bytes(
        data[:18] + wide + data[22:]
        if form == "BMP"
        else data.replace(b"%d %d" % (TREE_SIDE, TREE_SIDE), b"2000000 %d" % TREE_SIDE, 1)
    )
    with pytest.raises(
        DataError, match=r"is a damaged picture: it claims 2000000 x \d+ pixels, which its \d+ bytes do"
    ):
        open_dataset("folder", data_dir=root, cache_dir=tmp_path / "c", modality="rgb")
