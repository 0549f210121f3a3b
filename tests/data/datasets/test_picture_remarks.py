"""Odd pictures and masks of published datasets are read as ever; a warning names the file."""

import io
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import SIDE, blob, picture, save, write_mvtec3d, write_mvtec_ad, write_visa
from eyecandies_tree import write_category
from PIL import Image

from launch.summary import lost_masks
from musc_jax.data import Sample, open_dataset
from musc_jax.data.formats import files, pictures
from musc_jax.data.formats.files import Content, read
from musc_jax.data.formats.remarks import overheard
from musc_jax.data.formats.resizing import resize_image, resize_mask

PICTURE = Path("bottle/test/good/000.png")
MASK = Path("bottle/ground_truth/broken_large/000_mask.png")


@pytest.fixture
def tree(tmp_path):
    """MVTec AD's layout; returns a function that opens it with a file replaced, and the path of that."""
    root = tmp_path / "mvtec"
    write_mvtec_ad(root, categories=("bottle",))

    def with_file(path, data=None):
        if data is not None:
            (root / path).write_bytes(data)
        return open_dataset("mvtec_ad", data_dir=root, cache_dir=tmp_path / "cache", modality="rgb"), root / path

    return with_file


def png(pixels, **options):
    buffer = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(buffer, "PNG", **options)
    return buffer.getvalue()


def exif(orientation):
    notes = Image.Exif()
    notes[274] = orientation
    return notes


def moving():
    first, *others = (Image.fromarray(picture(i)) for i in range(3))
    buffer = io.BytesIO()
    first.save(buffer, "PNG", save_all=True, append_images=others)
    return buffer.getvalue()


PICTURES = {
    "orientation": (png(picture(1), exif=exif(6)), "is to be turned by what its camera noted; as in the published"),
    "pages": (moving(), "has 3 pictures in it; the first is read"),
    "alpha": (png(np.concatenate([picture(1), blob()[..., None]], -1)), "is transparent in parts; as in the published"),
    "bits": (png(picture(1)[..., 0].astype(np.uint16) * 4), "has 16 bits and no value over 876"),
}
RED = np.stack([blob(), blob(value=0), blob(value=0)], -1)
WHITE_FIRST = Image.fromarray((blob() == 0).astype(np.uint8), "P")
WHITE_FIRST.putpalette([255, 255, 255, 0, 0, 0])
MASKS = {
    "inverted": (
        png(255 - blob()),
        "masks",
        "may mean something else: as in the published programs 93.8% of it is a def",
    ),
    "palette, white first": (png(WHITE_FIRST), "masks", "by its values 6.2%"),
    "constant RGB": (png(np.dstack([blob() * 0 + 255] * 3 + [blob()])), "masks", "100.0% of it is a defect, by its"),
    "red": (png(RED), None, "its largest value is 76 of 255"),
    "red and white": (png(np.maximum(RED, np.roll(blob(), 15, 0)[..., None])), "masks", "by its values 12.5%"),
    "dim beside bright": (png(np.maximum(blob(), np.roll(blob(value=100), 15, 0))), "masks", "6.2% of it is a defect"),
    "a picture": (png(picture(3)), "masks", "looks like a picture, not like a mask"),
    "orientation": (png(blob(), exif=exif(3)), "orientation", "is to be turned by a note in it"),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_an_odd_picture_is_named_and_read_as_ever(tree, kind):
    data, words = PICTURES[kind]
    plain, _ = tree(PICTURE)
    assert not plain.warnings
    dataset, path = tree(PICTURE, data)
    (line,) = dataset.warnings
    assert line.startswith(f"{path}: ")
    assert words in line
    assert kind in dataset.accounts["bottle"].facts
    wanted = resize_image(pictures.decode_picture(read(path)), size=16)
    np.testing.assert_array_equal(
        dataset.load("bottle", dataset.names("bottle").index("good_000"), size=16).image, wanted
    )
    assert dataset.digest("bottle") != plain.digest("bottle")


@pytest.mark.parametrize("kind", MASKS)
def test_an_odd_mask_is_named_and_read_as_ever(tree, kind):
    data, topic, words = MASKS[kind]
    dataset, path = tree(MASK, data)
    named = [line for line in dataset.warnings if words in line]
    assert len(named) == 1
    assert named[0].startswith(f"{path}: ")
    assert topic is None or topic in dataset.accounts["bottle"].facts
    wanted = pictures.decode_any_mask(read(path), size=(SIDE, SIDE), nonzero=None)
    sample = dataset.load("bottle", dataset.names("bottle").index("broken_large_000"), size=16)
    np.testing.assert_array_equal(sample.gt_mask, resize_mask(wanted, size=16))


def test_usual_masks_are_not_worth_a_word(tree, tmp_path):
    soft = np.array(Image.fromarray(blob()).resize((20, 20), Image.Resampling.BILINEAR).resize((SIDE, SIDE)))
    assert len(np.unique(soft)) > 20
    for mask in (blob(), blob(value=3), soft):
        dataset = tree(MASK, png(mask))[0]
        assert not dataset.warnings
        account = dataset.accounts["bottle"]
        assert account.facts == {"files": {"used": {"samples": len(dataset.names("bottle"))}, "rules": "as published"}}
        assert account.lines == []
    write_visa(tmp_path / "visa")
    save(tmp_path / "visa" / "candle" / "Data" / "Masks" / "Anomaly" / "000.png", np.tile(blob((30, 50), value=9), 1))
    assert not open_dataset("visa", data_dir=tmp_path / "visa", cache_dir=tmp_path / "cache", modality="rgb").warnings


def test_several_files_of_a_kind_share_a_line(tree):
    for i in range(3):
        dataset, _ = tree(PICTURE.with_name(f"{i:03d}.png"), png(picture(i), exif=exif(8)))
    (line,) = dataset.warnings
    assert "000.png: is to be turned" in line
    assert line.endswith("; the same of good/001.png, good/002.png")


def test_the_other_readers_name_them_too(tmp_path):
    write_mvtec3d(tmp_path / "mvtec3d", categories=("bagel",), cleaned=True)
    folder = tmp_path / "mvtec3d" / "bagel" / "test"
    with Image.open(folder / "good" / "rgb" / "000.png") as image:
        image.save(folder / "good" / "rgb" / "000.png", exif=exif(6))
    with Image.open(folder / "crack" / "gt" / "000.png") as image:
        save(folder / "crack" / "gt" / "000.png", 255 - np.array(image))
    dataset = open_dataset("mvtec3d", data_dir=tmp_path / "mvtec3d", cache_dir=tmp_path / "cache", modality="rgb")
    wanted = {str(folder / "good" / "rgb" / "000.png"), str(folder / "crack" / "gt" / "000.png")}
    assert wanted <= {line.partition(": ")[0] for line in dataset.warnings}
    write_category(tmp_path / "eyecandies", "CandyCane", ("00", "01"))
    path = next((tmp_path / "eyecandies").rglob("00_mask.png"))
    with Image.open(path) as image:
        save(path, 255 - np.array(image))
    dataset = open_dataset("eyecandies", data_dir=tmp_path / "eyecandies", cache_dir=tmp_path / "c", modality="rgb")
    assert any(line.startswith(f"{path}: ") for line in dataset.warnings)


def test_what_libraries_remark_is_named_and_not_on_the_screen(tree, monkeypatch, capfd):
    decode = pictures._decode

    def talking(content, **options):
        if content.path.name == "000.png":
            warnings.warn_explicit("strange metadata", UserWarning, "PIL/x.py", 1, module="PIL.PngImagePlugin")
        return decode(content, **options)

    monkeypatch.setattr(pictures, "_decode", talking)
    dataset, _ = tree(PICTURE)
    words = "000.png: the file's library remarks: strange metadata; the same of contamination/000.png"
    assert words in dataset.warnings[0]
    assert capfd.readouterr().err == ""


def test_decoding_alone_writes_nothing_onto_the_screen_either(capfd):
    """A palette with transparency: Pillow warns when its colours are looked up."""
    image = Image.fromarray(blob(value=1), "P")
    image.putpalette([0, 0, 0, 255, 255, 255])
    data = png(image, transparency=b"\x80\xff")
    pictures.decode_picture(Content(Path("x"), data, "", (0, 0)))
    assert capfd.readouterr().err == ""


def sample(name, label, mask):
    return Sample(name, np.zeros((4, 4, 3), np.uint8), None, mask, label, Path(name))


def test_masks_that_show_nothing_any_more_are_counted(capsys):
    empty, full = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    samples = [sample("a", 1, empty), sample("b", 1, full), sample("c", 0, empty), sample("d", 1, None)]
    (line,) = lost_masks("bottle", samples, 4)
    assert line == (
        "bottle: 1 of 3 masks of defective samples show no defect at 4 x 4 pixels; pixel metrics count these as good: a"
    )
    assert f"warning: {line}" in capsys.readouterr().err
    assert lost_masks("bottle", samples[1:], 4) == []


def test_strict_readers_are_silent_as_well(capfd):
    """A PNG whose note of its frames is broken: Pillow warns when it is opened."""
    data = png(picture(1))
    chunk = b"acTL" + bytes(8)
    broken = data[:33] + b"\0\0\0\x08" + chunk + zlib.crc32(chunk).to_bytes(4, "big") + data[33:]
    with overheard() as said:
        found = files.decode_image(Content(Path("x"), broken, "", (0, 0)))
    np.testing.assert_array_equal(found, picture(1))
    assert said == ["Invalid APNG, will use default PNG image if possible"]
    files.decode_image(Content(Path("x"), broken, "", (0, 0)))
    assert capfd.readouterr().err == ""
