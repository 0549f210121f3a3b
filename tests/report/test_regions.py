"""Regions of a map: their figures, and their place on the original picture."""

import numpy as np
import pytest

from musc_jax.data.formats.resizing import FITS, make_square
from musc_jax.report.regions import Region, enlarge_inside, enlarge_map, find_regions


def test_figures_of_a_region():
    values = np.zeros((6, 8), np.float32)
    values[1, 2:5] = [1, 2, 3]
    values[2, 5] = 6  # touches by a corner
    values[5, 0] = 4
    assert find_regions(values, 0.5) == [
        Region((2, 1, 6, 3), 4, 6.0, 3.0, (3.5, 1.25)),
        Region((0, 5, 1, 6), 1, 4.0, 4.0, (0.0, 5.0)),
    ]
    assert [region.area for region in find_regions(values, 0.5, least_area=2)] == [4]
    # Above, not from it on.
    assert [region.area for region in find_regions(values, 4.0)] == [1]
    assert find_regions(values, 6.0) == []


def test_boxes_within_boxes_are_kept_apart():
    values = np.zeros((7, 7), np.float32)
    values[1:6, 1:6] = 1
    values[2:5, 2:5] = 0
    values[3, 3] = 2
    assert [(region.area, region.peak) for region in find_regions(values, 0.5)] == [(1, 2.0), (16, 1.0)]


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("full_size", [(60, 100), (100, 60), (80, 80), (61, 97)])
def test_a_spot_comes_back_to_its_place(fit, full_size):
    """A spot in the picture, made square and small as samples are, and enlarged again."""
    height, width = full_size
    picture = np.zeros(full_size, np.float32)
    picture[height // 2 - 3 : height // 2 + 4, width // 2 + 5 : width // 2 + 12] = 1
    square = make_square(picture, fit)
    small = enlarge_map(square, full_size=(40, 40)) if square.shape[0] == square.shape[1] else None
    if small is None:  # squashed
        rows, columns = (np.arange(40) * side // 40 for side in square.shape)
        small = square[rows[:, None], columns]
    back = enlarge_map(small, full_size=full_size, fit=fit)
    assert back.shape == full_size
    (region,) = find_regions(back, 0.5)
    assert region.centroid == pytest.approx((width // 2 + 8, height // 2), abs=2.5)
    assert region.area == pytest.approx(49, rel=0.6)


def test_what_was_cropped_is_not_hot():
    back = enlarge_map(np.linspace(1, 2, 16, dtype=np.float32).reshape(4, 4), full_size=(4, 10), fit="crop")
    assert (back[:, :3] == 1).all()
    assert (back[:, 7:] == 1).all()
    np.testing.assert_array_equal(back[:, 3:7], np.linspace(1, 2, 16, dtype=np.float32).reshape(4, 4))


def test_margins_do_not_come_back():
    square = np.zeros((10, 10), np.float32)
    square[:3] = 5  # the margin above
    square[3:7] = 1
    back = enlarge_map(square, full_size=(4, 10), fit="pad")
    np.testing.assert_array_equal(back, np.ones((4, 10)))


@pytest.mark.parametrize(("full_size", "fit", "said"), [((0, 4), "squash", "full_size"), ((4, 4), "stretch", "fit")])
def test_what_makes_no_sense_is_refused(full_size, fit, said):
    with pytest.raises(ValueError, match=f"{said}: expected .* received"):
        enlarge_map(np.zeros((4, 4), np.float32), full_size=full_size, fit=fit)


def test_an_edge_of_the_region_of_interest_neither_glows_nor_fades():
    roi = np.broadcast_to(np.arange(8) < 4, (8, 8))
    drawn, inside = enlarge_inside(np.where(roi, 5, 99).astype(np.float32), roi, full_size=(20, 40))
    np.testing.assert_array_equal(inside, np.broadcast_to(np.arange(40) < 20, (20, 40)))
    np.testing.assert_array_equal(drawn, np.where(inside, 5, 0))
    assert find_regions(drawn, -1.0, inside=inside)[0].box == (0, 0, 20, 20)
    whole, everywhere = enlarge_inside(np.ones((8, 8), np.float32), None, full_size=(20, 40))
    assert whole.all()
    assert everywhere.all()
