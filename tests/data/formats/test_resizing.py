"""Resize rules against plain statements of them."""

import numpy as np
import pytest
from PIL import Image

from musc_jax.data.formats.resizing import mask_label, resize_image, resize_mask, resize_points


@pytest.mark.parametrize("shape", [(48, 48), (37, 53), (10, 9)])
@pytest.mark.parametrize("size", [1, 16, 48, 60])
def test_points_take_the_floor_of_the_scaled_index(rng, shape, size):
    points = rng.normal(size=(*shape, 3))
    resized = resize_points(points, size=size)
    assert resized.dtype == np.float32
    for row in range(size):
        for column in range(size):
            source = points[int(row * shape[0] / size), int(column * shape[1] / size)]
            np.testing.assert_array_equal(resized[row, column], source.astype(np.float32))


def test_points_at_full_size_are_unchanged(rng):
    points = rng.normal(size=(224, 224, 3)).astype(np.float32)
    np.testing.assert_array_equal(resize_points(points, size=224), points)


def test_image_is_pillows_bicubic(rng):
    image = rng.integers(0, 256, (37, 53, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BICUBIC))
    resized = resize_image(image, size=16)
    assert resized.dtype == np.uint8
    np.testing.assert_array_equal(resized, expected)
    assert resized.flags.writeable


def test_image_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::2] = 255
    assert abs(int(resize_image(stripes, size=8)[4, 4, 0]) - 127) <= 2


def test_mask_is_cut_strictly_above_one_half():
    # Two columns become one, whose value is their mean (rounded by Pillow).
    for high, expected in ((255, True), (254, False), (0, False)):
        mask = np.array([[high, 0], [high, 0]], np.uint8)
        filtered = np.asarray(Image.fromarray(mask).resize((1, 1), Image.Resampling.BILINEAR))[0, 0]
        assert (filtered / 255 > 0.5) == expected
        assert resize_mask(mask, size=1)[0, 0] == expected


def test_mask_equals_the_plain_statement(rng):
    mask = (rng.random((96, 80)) > 0.5).astype(np.uint8) * 255
    filtered = np.asarray(Image.fromarray(mask).resize((31, 31), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resize_mask(mask, size=31), filtered.astype(np.float64) / 255 > 0.5)


def test_mask_of_class_indices_is_the_same_as_full_scale():
    mask = np.zeros((32, 32), np.uint8)
    mask[8:20, 4:20] = 1
    np.testing.assert_array_equal(resize_mask(mask, size=16), resize_mask(mask * np.uint8(255), size=16))
    assert resize_mask(mask, size=16).any()


def test_label_counts_a_pixel_that_the_resized_mask_loses():
    mask = np.zeros((512, 512), np.uint8)
    mask[100, 100] = 1
    assert mask_label(mask) == 1
    assert not resize_mask(mask, size=32).any()
    assert mask_label(np.zeros((4, 4), np.uint8)) == 0


@pytest.mark.parametrize("size", [0, -3])
def test_size_is_checked(size):
    with pytest.raises(ValueError, match="at least 1"):
        resize_mask(np.zeros((4, 4), np.uint8), size=size)
