"""Pictures of who voted: what is cut out, where the mark is, and what is written."""

import numpy as np
import pytest

from musc_jax.report.votes import Tile, cut_out, stacked, vote_picture


def dotted(height, width, row, column):
    """Black, with one white pixel."""
    image = np.zeros((height, width, 3), np.uint8)
    image[row, column] = 255
    return image


@pytest.mark.parametrize("place", [(0.5, 0.5), (0.02, 0.97), (0.99, 0.01), (0.3, 0.8)])
@pytest.mark.parametrize("aspect", [1.0, 2.0, 0.5])
@pytest.mark.parametrize("size", [(100, 100), (400, 200)])
def test_the_mark_is_on_the_place(place, aspect, size):
    row, column = (int(at * length) for at, length in zip(place, size))
    pixels, (left, top, right, bottom) = cut_out(
        dotted(*size, row, column), place, patch=0.06, reach=0.2, aspect=aspect
    )
    height, width = pixels.shape[:2]
    # As much of the picture before it was squashed on either side.
    assert height / size[0] == pytest.approx(0.2 * aspect**0.5, abs=0.02)
    assert width / size[1] == pytest.approx(0.2 / aspect**0.5, abs=0.02)
    ((y, x),) = np.argwhere(pixels[..., 0] == 255)
    assert left * width <= x + 1 <= right * width + 1
    assert top * height <= y + 1 <= bottom * height + 1
    assert right - left <= 0.061 * size[1] / width


def test_a_part_as_large_as_the_picture_is_the_picture():
    image = dotted(20, 30, 3, 4)
    pixels, box = cut_out(image, (0.5, 0.5), patch=2.0, reach=5.0)
    np.testing.assert_array_equal(pixels, image)
    assert box == (0, 0, 1, 1)


def test_a_picture_has_its_tiles_and_any_script():
    def tile(color, name, distance=None):
        return Tile(np.full((9, 9, 3), color, np.uint8), (0.4, 0.4, 0.6, 0.6), name, distance)

    own = tile((200, 0, 0), "螺絲 " + "x" * 200)
    lowest = [tile((0, 150, 0), f"g{i}", 0.1 * i) for i in range(3)]
    picture = np.asarray(vote_picture("винт (3, 4)", "note", own, lowest, [tile((0, 0, 90), "b", 9.0)]))
    assert picture.shape[2] == 3
    areas = [int((picture == color).all(-1).sum()) for color in ((200, 0, 0), (0, 150, 0), (0, 0, 90))]
    # Nine tenths of them at least are not under a mark.
    assert areas[0] > 0.9 * 232**2
    assert 3 * 100**2 >= areas[1] > 0.9 * 3 * 100**2
    assert 100**2 >= areas[2] > 0.9 * 100**2
    nobody = vote_picture("a", "b", own, [], [])
    whole = stacked([nobody, nobody])
    assert whole.size == (nobody.width, 2 * nobody.height)
    assert np.array_equal(np.asarray(whole)[: nobody.height], np.asarray(nobody))
