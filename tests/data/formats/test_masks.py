"""No mark of a mask is lost on the way to 8 bits, however few of its bits are set."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from dataset_trees import picture, save
from PIL import Image

from musc_jax.data import FolderLayout, open_dataset
from musc_jax.data.formats.files import Content, FileFault
from musc_jax.data.formats.pictures import decode_any_mask

BLACK = np.zeros((4, 5), np.int64)
MARK, OTHER = (1, 2), (3, 4)


def decode(data, nonzero=None):
    return decode_any_mask(Content(Path("mask"), data, "", (0, 0)), size=BLACK.shape, nonzero=nonzero)


def tiff(pixels, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack", **options)
    return buffer.getvalue()


def png16(pixels):
    """A PNG of 16 bits, which Pillow writes of grey alone: (height, width, channels)."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    coded = (struct.pack(">I", len(c)) + t + c + struct.pack(">I", zlib.crc32(t + c)) for t, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(coded)


def marked(shape, dtype, value):
    """Black but for one pixel, and another one of the largest value, so that the range is a full one."""
    pixels = np.zeros(shape, dtype)
    pixels[MARK], pixels[OTHER] = value, np.iinfo(dtype).max
    return pixels


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32])
@pytest.mark.parametrize("nonzero", [None, False, True])
def test_grey_of_every_width(dtype, nonzero):
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    for value in (-300, -1, 1, 20, 21, 255, 256, 257, 300, 513, 65535, 65536, 2**31 - 1, high):
        if not low <= value <= high:
            continue
        pixels = marked(BLACK.shape, dtype, value)
        np.testing.assert_array_equal(decode(tiff(pixels), nonzero) > 0, pixels != 0, str(value))


@pytest.mark.parametrize("value", [1, 200, 255, 256, 300, 65535])
def test_colours_of_16_bits(value):
    for channels in (1, 2, 3, 4):
        pixels = np.zeros((*BLACK.shape, channels), np.uint16)
        pixels[(*MARK, 0)] = value
        found = decode(png16(pixels))
        assert found[MARK] > 0, channels
        assert np.count_nonzero(found) == 1, channels
    for options in ({}, {"byteorder": ">"}, {"compression": "zlib"}, {"compression": "zlib", "byteorder": ">"}):
        pixels = np.zeros((*BLACK.shape, 3), np.uint16)
        pixels[(*MARK, 2)] = value
        found = decode(tiff(pixels, **options))
        assert found[MARK] > 0, options
        assert np.count_nonzero(found) == 1, options


def test_alpha_is_no_mark():
    for channels in (2, 4):
        pixels = np.zeros((*BLACK.shape, channels), np.uint16)
        pixels[..., -1] = 65535
        assert not decode(png16(pixels)).any()


def test_colours_that_cannot_be_read_whole_are_refused():
    with pytest.raises(FileFault, match="mask: is a mask of 16 bits in several channels; convert it to grey"):
        decode(tiff(np.zeros((3, *BLACK.shape), np.uint16), planarconfig="separate"))


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_colour_as_dark_as_can_be(mode):
    """Blue counts little in grey: 1 of it is rounded to nothing."""
    image = Image.new(mode, BLACK.shape[::-1])
    image.putpixel(MARK[::-1], (0, 0, 1, 255)[: len(mode)])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert np.count_nonzero(decode(buffer.getvalue())) == 1
    assert decode(buffer.getvalue())[MARK] > 0


def test_usual_masks_keep_their_values():
    """0 and 255, numbers of classes, grey between, all widths that hold them."""
    for dtype in (np.uint8, np.uint16, np.int32):
        full = np.array([[0, 255, 128, 3]]).astype(dtype)
        assert decode_row(full) == [0, 255, 128, 3]
        assert decode_row(np.array([[0, 1, 2, 9]]).astype(dtype)) == [0, 255, 255, 255]
    assert decode_row(np.array([[0, 65535, 257, 128 * 257]]).astype(np.uint16)) == [0, 255, 1, 128]


def decode_row(pixels):
    return decode_any_mask(Content(Path("mask"), tiff(pixels), "", (0, 0)), size=None, nonzero=None)[0].tolist()


@pytest.mark.parametrize("value", [1, 256, 300, 65535])
def test_a_sample_with_any_mark_is_defective(tmp_path, value):
    """The label comes from the full-size mask; a folder without labels has no other source of it."""
    root = tmp_path / "parts"
    for i, mark in enumerate((0, value)):
        save(root / f"{i}.png", picture(i))
        mask = np.zeros(picture(i).shape[:2], np.uint16)
        mask[4:9, 5:9] = mark
        save(root / "masks" / f"{i}.png", mask)
    layout = FolderLayout(mask_dir=("masks",))
    dataset = open_dataset("folder", data_dir=root, cache_dir=tmp_path / "cache", modality="rgb", folder=layout)
    good, bad = dataset.samples("parts", size=len(mask))
    assert (good.gt_label, bad.gt_label) == (0, 1)
    np.testing.assert_array_equal(bad.gt_mask, mask > 0)
    assert not good.gt_mask.any()
